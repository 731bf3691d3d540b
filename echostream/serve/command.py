"""``echostream serve``: checks the options, loads the model and runs the server."""

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
        UserError: an error that the user can correct: a missing package or file, a wrong option, a port in use.
    """
    try:
        check_options(args)
        require_packages()
        # force: imported libraries have already configured the root logger with a level of their own
        logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
        asyncio.run(serve(build_server(args), args))
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
        ValueError: an option is not valid; the message names it.
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


def build_server(args: argparse.Namespace) -> Server:
    """Load the model and warm it up."""
    from echostream.serve.app import Server, is_loopback
    from echostream.serve.protocol import Settings

    print(f"loading {args.model}", file=sys.stderr, flush=True)
    translator = load_translator(args, task="s2tt")
    task = args.task or ("s2st" if translator.vocoder is not None else "s2tt")
    settings = model_settings(args)
    proxies = [urlsplit(origin).hostname or "" for origin in args.allow_origin]  # a proxy may pass on its own host name
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
    """Name of a model: that of its folder or, for a checkpoint, folder and file name."""
    path = path.resolve()
    return path.name if path.is_dir() else f"{path.parent.name}/{path.stem}"


def warm_up(server: Server) -> None:
    """Translate one second of silence, so that the first session is not delayed by initialisation in libraries."""
    import numpy as np

    translator = server.defaults.apply(server.translator)
    translator.step(np.zeros(translator.sample_rate, dtype=np.float32), translator.init_state(), is_last=True)


async def serve(server: Server, args: argparse.Namespace) -> None:
    """Listen until SIGINT or SIGTERM.

    Raises:
        OSError: the address can't be used.
        ValueError: the certificate can't be read.
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
            warn_about_public_host(args.host, secure=context is not None)
        print(f"EchoStream is at {scheme}://{shown}:{port}/ (Ctrl-C to stop)", flush=True)
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await stop.wait()
        print("stopping", file=sys.stderr)
    finally:
        await runner.cleanup()


def warn_about_public_host(host: str, secure: bool) -> None:
    """Print a warning about listening on an address that other machines can reach."""
    text = f"warning: listening on {host}: whoever reaches this machine can use the server, there is no password"
    if not secure:
        text += "; speech travels unencrypted, and browsers give no microphone without https (--certificate)"
    print(text, file=sys.stderr, flush=True)


def tls_context(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """The TLS context for https; None without a certificate.

    Raises:
        ValueError: the files are not a valid certificate and key.
    """
    if certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except (ssl.SSLError, OSError) as error:
        raise ValueError(f"cannot use the certificate {certificate}: {error}") from error
    return context
