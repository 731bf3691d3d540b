"""Many servers over one or more machines, placed, restarted and scaled by Ray Serve: docs/guides/deployment.md."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from echostream.cli.arguments import add_serve_arguments
from echostream.cli.command import EXIT_STATUS, carry_out
from echostream.cli.options import RAW_HELP, UsageError, UserError, at_least, number
from echostream.cli.parser import CommandParser
from echostream.cli.serve import access_rules, check_address, check_options, require_packages
from echostream.installation import install_hint
from echostream.serve.limits import Limits, limits_from
from echostream.serve.running import STOP_SIGNALS, STOPPING, announce

APPLICATION = "echostream"
# Requests beside the sessions: the page, files and clients for whom there is no place, who are told so by the server.
SPARE_REQUESTS = 64
POLL_S = 0.2
SPARE_S = 15  # beyond --max-drain-s, before Ray kills a server that is to stop
PROXY_PATIENCE_S = 60  # until its proxy is there
OBJECT_STORE_BYTES = 100_000_000  # the least that is comfortable for Ray; nothing is kept in it
EPILOG = """
  All options of echostream serve, which say what each server does; --host, --port and --certificate are of Ray's proxy.
  With --state-dir, a folder that all machines share, sessions go on at another server when theirs is stopped or killed.

examples:
  python -m echostream.cli.ray_serve --model models/fr-en --replicas 2 --state-dir /run/echostream/sessions
  python -m echostream.cli.ray_serve --address auto --replicas 2 --max-replicas 8 --state-dir /shared/sessions
"""


def main() -> int:
    """Carry out the command line; returns the exit status."""
    return carry_out(build_parser(), run)


def build_parser() -> CommandParser:
    """Parser of the command line."""
    parser = CommandParser(
        prog="python -m echostream.cli.ray_serve",
        description="Translate in the browser with several servers, which Ray Serve runs.",
        epilog=EPILOG + EXIT_STATUS,
        formatter_class=RAW_HELP,
    )
    group = parser.add_argument_group("Ray")
    group.add_argument("--replicas", type=at_least(1), default=1, metavar="N", help="servers (1)")
    group.add_argument(
        "--max-replicas", type=at_least(1), metavar="N", help="Ray starts more as sessions open, up to N (--replicas)"
    )
    group.add_argument(
        "--target-sessions",
        type=number(0.01, 1e6),
        metavar="N",
        help="sessions for each server, on average, that Ray scales to (half of --max-sessions)",
    )
    group.add_argument(
        "--cpus", type=number(0, 1e4), default=1.0, metavar="N", help="processors that Ray sets aside for a server (1)"
    )
    group.add_argument(
        "--gpus", type=number(0, 1e3), metavar="N", help="GPUs, or a part of one (1 with --device cuda, else 0)"
    )
    group.add_argument(
        "--address",
        help="of a Ray cluster that runs already, or auto (none: Ray runs on this machine for this command)",
    )
    add_serve_arguments(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted; returns the exit status.

    Raises:
        UserError: an error that the user can correct: a missing package or file, a port in use.
        UsageError: a wrong option.
    """
    if args.max_replicas is not None and args.max_replicas < args.replicas:
        raise UsageError(f"--max-replicas {args.max_replicas} is less than --replicas {args.replicas}")
    if args.target_sessions is not None and args.max_replicas is None:
        raise UsageError("--target-sessions needs --max-replicas")
    try:
        check_options(args)
        require_packages()
        has_token = bool(access_rules(args).tokens)
        require_ray()
    except ValueError as error:
        raise UserError(str(error)) from error
    for name, value in vars(args).items():
        if isinstance(value, Path):
            setattr(args, name, value.absolute())  # Ray starts its processes in other folders
    port = free_port(args.host, args.port)
    try:
        start_ray(args)
        deploy(args, port)
        wait_for_signal(args, port, has_token)
    finally:
        stop_ray()
    return 0


def require_ray() -> None:
    """Check that the packages of the extra ``ray`` are installed.

    Raises:
        ValueError: one is missing; the message says how to install it.
    """
    try:
        import ray  # noqa: F401
        from ray import serve  # noqa: F401
    except ModuleNotFoundError as error:
        raise ValueError(f"serving with Ray needs the package {error.name}: {install_hint('ray')}") from error


def free_port(host: str, port: int) -> int:
    """The port, or any free one if it is 0; Ray would say in many lines that it can't be used.

    Raises:
        UserError: the address can't be used.
    """
    try:
        return check_address(host, port)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"cannot listen on {host[:80]} port {port}: {reason}: choose another --host or --port"
        ) from error


def start_ray(args: argparse.Namespace) -> None:
    """Start Ray on this machine, or join the cluster of ``--address``.

    Raises:
        UserError: it can't be started or found, or has too few processors or GPUs.
    """
    # Ray reports its use to its makers unless it is told not to; nothing leaves this machine.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    for name in ("READY", "HEALTH"):  # its few seconds are too short for a machine that is busy
        os.environ.setdefault(f"RAY_SERVE_PROXY_{name}_CHECK_TIMEOUT_S", str(PROXY_PATIENCE_S))
    import ray

    own = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    try:
        ray.init(**({"address": args.address} if args.address else own), logging_level="WARNING")
    except Exception as error:  # Ray has no kind of its own for this
        where = f"at {args.address}" if args.address else "on this machine"
        raise UserError(f"cannot use Ray {where}: {error}") from error
    has = ray.cluster_resources()
    for kind, each in (("CPU", args.cpus), ("GPU", gpus(args))):
        if args.replicas * each > has.get(kind, 0):
            raise UserError(
                f"{args.replicas} servers want {args.replicas * each:g} {kind}s, Ray has {has.get(kind, 0):g}: "
                f"choose fewer --replicas or less --{kind.lower()}s"
            )


def gpus(args: argparse.Namespace) -> float:
    """How much of a GPU a server gets."""
    return args.gpus if args.gpus is not None else float(args.device.startswith("cuda"))


def deployment_options(args: argparse.Namespace) -> dict[str, Any]:
    """How Ray treats the servers."""
    from echostream.cli.ray_replica import HEALTH_PERIOD_S, SILENCE_S

    limits: Limits = limits_from(args)
    options: dict[str, Any] = {
        "name": APPLICATION,
        "max_ongoing_requests": limits.max_sessions + SPARE_REQUESTS,
        "health_check_period_s": HEALTH_PERIOD_S,
        "graceful_shutdown_wait_loop_s": HEALTH_PERIOD_S / 2,
        "graceful_shutdown_timeout_s": limits.max_drain_s + SILENCE_S + SPARE_S,
        "ray_actor_options": {"num_cpus": args.cpus, "num_gpus": gpus(args)},
    }
    if args.max_replicas is None:
        return options | {"num_replicas": args.replicas}
    scaling = {
        "min_replicas": args.replicas,
        "max_replicas": args.max_replicas,
        "target_ongoing_requests": args.target_sessions or limits.max_sessions / 2,
    }
    return options | {"autoscaling_config": scaling}


def deploy(args: argparse.Namespace, port: int) -> None:
    """Start Ray's proxy and the servers, and wait until all of them are there.

    Raises:
        UserError: a server can't start; the message is its own.
    """
    from ray import serve
    from ray.exceptions import RayError

    from echostream.cli.ray_replica import Replica, port_of_replica
    from echostream.serve.asgi import Passage

    quiet = {"log_level": "WARNING", "enable_access_log": False}
    http: dict[str, Any] = {"host": args.host, "port": port}
    if args.certificate:
        http |= {"ssl_certfile": str(args.certificate), "ssl_keyfile": str(args.key or args.certificate)}
    print(f"Ray starts {args.replicas} of {args.model}", file=sys.stderr, flush=True)
    try:
        serve.start(http_options=http, logging_config=quiet)
        deployment = serve.deployment(serve.ingress(Passage(port_of_replica))(Replica))
        application = deployment.options(**deployment_options(args), logging_config=quiet).bind(args)
        serve.run(application, name=APPLICATION)
    except RayError as error:  # its proxy or its controller
        raise UserError(f"Ray did not start: {str(error).splitlines()[0]}") from error
    except RuntimeError as error:
        raise UserError(f"the servers did not start: {reason_of(error)}") from error


def reason_of(error: RuntimeError) -> str:
    """What a server said when it could not start, out of Ray's pages about it."""
    from ray import serve

    application = serve.status().applications.get(APPLICATION)
    deployments = application.deployments.values() if application is not None else ()
    text = "\n".join(deployment.message for deployment in deployments) or str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = [line for line in lines if line.partition(":")[0].endswith(("Error", "Exception")) and ": " in line]
    return said[-1].partition(": ")[2] if said else lines[-1]


def wait_for_signal(args: argparse.Namespace, port: int, has_token: bool) -> None:
    """Wait for SIGINT, SIGTERM or SIGHUP, then let the servers end their sessions; a second one stops at once."""
    from ray import serve

    told = threading.Event()

    def stop(*_: object) -> None:
        if told.is_set():
            raise KeyboardInterrupt
        told.set()

    for number_of_signal in STOP_SIGNALS:
        signal.signal(number_of_signal, stop)
    announce(args.host, port, args.certificate is not None, has_token)
    told.wait()
    print(STOPPING, file=sys.stderr, flush=True)
    with contextlib.suppress(TimeoutError):  # Ray's patience here is a minute, --max-drain-s may be more
        serve.delete(APPLICATION)
    while APPLICATION in serve.status().applications:
        time.sleep(POLL_S)


def stop_ray() -> None:
    """Stop what :func:`start_ray` and :func:`deploy` have started."""
    import ray
    from ray import serve

    if ray.is_initialized():
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    # Ray's processes import what they run by its name, and that of this module would be __main__.
    from echostream.cli import ray_serve

    sys.exit(ray_serve.main())
