"""``echostream serve``: checks the options, loads the model and runs the server."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from echostream.cli.options import UsageError, UserError, load_translator, model_settings, settle_threads
from echostream.constants import MAX_LIVE_SEGMENT_MS
from echostream.installation import install_hint
from echostream.serve.limits import limits_from
from echostream.serve.running import serve, warm_up

if TYPE_CHECKING:
    from echostream.serve.access import Access
    from echostream.serve.app import Server


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted; returns the exit status.

    Raises:
        UserError: an error that the user can correct: a missing package or file, a port in use.
        UsageError: a wrong option.
    """
    try:
        check_options(args)
        require_packages()
        check_address(args.host, args.port)
        # force: imported libraries have already configured the root logger with a level of their own
        logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
        asyncio.run(serve(build_server(args), args.host, args.port, args.certificate, args.key))
    except UnicodeError as error:
        raise UsageError(f"--host {args.host[:80]} is no name that a machine can have: {error}") from error
    except ValueError as error:
        raise UserError(str(error)) from error
    except OSError as error:
        # Only the last part of asyncio's message is needed; the rest repeats the address.
        reason = error.strerror.split(": ")[-1] if error.strerror else str(error)
        raise UserError(
            f"cannot listen on {args.host} port {args.port}: {reason}: choose another --host or --port"
        ) from error
    return 0


def check_options(args: argparse.Namespace) -> None:
    """Check the options before the model is loaded.

    Raises:
        UsageError: an option is not valid; the message names it.
        ValueError: a file that isn't there, or a model that is meant for whole recordings.
    """
    try:
        limits_from(args)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if not args.host:
        raise UsageError("--host must name an address to listen on; 0.0.0.0 is all of this machine")
    if not 0 <= args.port <= 65535:
        raise UsageError(f"--port must be from 0 to 65535, got {args.port}")
    if args.key and not args.certificate:
        raise UsageError("--key needs --certificate")
    segment_ms = model_settings(args).segment_ms
    if not 0 < segment_ms <= MAX_LIVE_SEGMENT_MS:
        kind = ValueError if args.segment_ms is None else UsageError
        raise kind(
            f"--segment-ms {segment_ms}{'' if segment_ms else ', the whole recording,'} is too long for a live "
            f"session: give at most {MAX_LIVE_SEGMENT_MS} ms"
        )
    for path in (args.certificate, args.key):
        if path and not path.is_file():
            raise ValueError(f"no such file: {path}")


def require_packages() -> None:
    """Check that the packages of the extra ``serve`` are installed.

    Raises:
        ValueError: one is missing; the message names it and how to install it.
    """
    try:
        import aiohttp  # noqa: F401
        import prometheus_client  # noqa: F401
        import soxr  # noqa: F401
    except ModuleNotFoundError as error:
        raise ValueError(f"the server needs the package {error.name}: {install_hint('serve')}") from error


def check_address(host: str, port: int) -> int:
    """Find out before the model is loaded whether the address can be used; returns the port, a free one for 0.

    Raises:
        OSError: it can't.
    """
    from echostream.serve.listener import bind

    probes = bind(host, port)
    found = int(probes[0].getsockname()[1])
    for probe in probes:
        probe.close()
    return found


def build_server(args: argparse.Namespace) -> Server:
    """Load the model and warm it up.

    Raises:
        UsageError: an origin or a proxy that can't be any.
        UserError, ValueError: a model, a file with tokens or a folder for sessions that can't be used.
    """
    from echostream.serve.app import Server
    from echostream.serve.protocol import Settings
    from echostream.serve.samples import read_samples
    from echostream.serve.session_store import SessionStore
    from echostream.streaming.state_bytes import model_fingerprint

    access = access_rules(args)
    limits = limits_from(args)
    print(f"loading {args.model}", file=sys.stderr, flush=True)
    translator = load_translator(args, task="s2tt")
    print(f"threads: {settle_threads(args, translator)}", file=sys.stderr, flush=True)
    task = args.task or ("s2st" if translator.vocoder is not None else "s2tt")
    settings = model_settings(args)
    source_lang = args.source_lang or settings.source_lang
    store = None
    if args.state_dir is not None:
        device = translator.model.fbank.device
        store = SessionStore(args.state_dir, limits.max_away_s, model_fingerprint(translator), device)
    server = Server(
        translator,
        Settings(
            settings.segment_ms,
            settings.policy,
            task,
            settings.stride_n,
            settings.lag_k,
            tuple((settings.policy_options or {}).items()),
        ),
        limits,
        args.max_batch,
        model_name(args.model),
        (source_lang, args.target_lang or settings.target_lang),
        access,
        store,
        settings.description,
        read_samples(args.model, source_lang),
    )
    warm_up(server)
    return server


def access_rules(args: argparse.Namespace) -> Access:
    """Who may use the server.

    Raises:
        UsageError: an origin or a proxy that can't be any.
        ValueError: a file with tokens that can't be used.
    """
    from echostream.serve.access import Access, is_loopback, parse_origin, proxy_network, read_tokens

    try:
        origins = [parse_origin(origin) for origin in args.allow_origin]
        proxies = [proxy_network(proxy) for proxy in args.trust_proxy]
    except ValueError as error:
        raise UsageError(str(error)) from error
    names = [urlsplit(origin).hostname or "" for origin in origins]  # a proxy may pass on its own host name
    return Access(names if is_loopback(args.host) else None, origins, read_tokens(args.token_file), proxies)


def model_name(path: Path) -> str:
    """Name a model after its folder or, if it is a checkpoint, after folder and file."""
    path = path.resolve()
    return path.name if path.is_dir() else f"{path.parent.name}/{path.stem}"
