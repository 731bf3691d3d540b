"""``echostream serve``: options, and the life of the process."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from echostream.cli.options import UserError, load_translator, model_settings
from echostream.installation import install_hint
from echostream.serve.limits import limits_from

if TYPE_CHECKING:
    from echostream.serve.app import Server

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted; returns the exit status.

    Raises:
        UserError: whatever the user can put right: a missing package or file, an option, a port that is taken.
    """
    try:
        check_options(args)
        require_packages()
        # force: libraries that were imported have set up a root logger of their own, at their level
        logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
        asyncio.run(serve(build_server(args), args))
    except ValueError as error:
        raise UserError(str(error)) from error
    except OSError as error:
        # asyncio's own text repeats the address as a tuple
        reason = error.strerror.split(": ")[-1] if error.strerror else str(error)
        raise UserError(
            f"cannot listen on {args.host} port {args.port}: {reason}: choose another --host or --port"
        ) from error
    return 0


def check_options(args: argparse.Namespace) -> None:
    """Refuse, before anything is loaded, what can't be served.

    Raises:
        ValueError: names the option.
    """
    limits_from(args)
    if not 0 <= args.port <= 65535:
        raise ValueError(f"--port must be from 0 to 65535, got {args.port}")
    if model_settings(args).segment_ms == 0:
        raise ValueError("--segment-ms 0, the whole recording, has no end in a live session: give at least 40")
    if args.key and not args.certificate:
        raise ValueError("--key needs --certificate")
    for path in (args.certificate, args.key):
        if path and not path.is_file():
            raise ValueError(f"no such file: {path}")


def require_packages() -> None:
    """Refuse to go on without the packages of the extra ``serve``.

    Raises:
        ValueError: names the one that is missing and the remedy.
    """
    try:
        import aiohttp  # noqa: F401
        import prometheus_client  # noqa: F401
        import soxr  # noqa: F401
    except ModuleNotFoundError as error:
        raise ValueError(f"the server needs the package {error.name}: {install_hint('serve')}") from error


def build_server(args: argparse.Namespace) -> Server:
    """Load the model and warm it up."""
    from echostream.serve.app import Server, is_loopback
    from echostream.serve.protocol import Settings

    print(f"loading {args.model}", file=sys.stderr, flush=True)
    translator = load_translator(args, task="s2tt")
    task = args.task or ("s2st" if translator.vocoder is not None else "s2tt")
    settings = model_settings(args)
    proxies = [urlsplit(origin).hostname or "" for origin in args.allow_origin]  # they ask under their own names
    server = Server(
        translator,
        Settings(settings.segment_ms, settings.policy, task, settings.stride_n, settings.lag_k),
        limits_from(args),
        args.max_batch,
        model_name(args.model),
        (args.source_lang or settings.source_lang, args.target_lang or settings.target_lang),
        (*LOOPBACK_NAMES, *proxies) if is_loopback(args.host) else None,
        tuple(args.allow_origin),
    )
    warm_up(server)
    return server


def model_name(path: Path) -> str:
    """What to call a model: its folder, or its checkpoint with the folder's name before it."""
    path = path.resolve()
    return path.name if path.is_dir() else f"{path.parent.name}/{path.stem}"


def warm_up(server: Server) -> None:
    """One second of silence, so that the first session doesn't pay for what libraries prepare on first use."""
    import numpy as np

    translator = server.defaults.apply(server.translator)
    translator.step(np.zeros(translator.sample_rate, dtype=np.float32), translator.init_state(), is_last=True)


async def serve(server: Server, args: argparse.Namespace) -> None:
    """Listen until SIGINT or SIGTERM.

    Raises:
        OSError: the address can't be had.
        ValueError: a certificate that can't be read.
    """
    from aiohttp import web

    from echostream.serve.app import is_loopback

    context = tls_context(args.certificate, args.key)
    runner = web.AppRunner(server.application(), access_log=None, shutdown_timeout=3)
    await runner.setup()
    try:
        site = web.TCPSite(runner, args.host, args.port, ssl_context=context)
        await site.start()
        port = runner.addresses[0][1]
        scheme = "https" if context else "http"
        shown = f"[{args.host}]" if ":" in args.host else args.host
        if not is_loopback(args.host):
            warn_of_strangers(args.host, secure=context is not None)
        print(f"EchoStream is at {scheme}://{shown}:{port}/ (Ctrl-C to stop)", flush=True)
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await stop.wait()
        print("stopping", file=sys.stderr)
    finally:
        await runner.cleanup()


def warn_of_strangers(host: str, secure: bool) -> None:
    """Say what it means to listen on an address that others reach."""
    text = f"warning: listening on {host}: whoever reaches this machine can use the server, there is no password"
    if not secure:
        text += "; speech travels unencrypted, and browsers give no microphone without https (--certificate)"
    print(text, file=sys.stderr, flush=True)


def tls_context(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """For https; None without a certificate.

    Raises:
        ValueError: files that are no certificate and key.
    """
    if certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except (ssl.SSLError, OSError) as error:
        raise ValueError(f"cannot use the certificate {certificate}: {error}") from error
    return context
