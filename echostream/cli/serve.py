"""``echostream serve``: checks the options, loads the model and runs the server."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from echostream.cli.options import UserError, load_translator, model_settings, settle_threads
from echostream.installation import install_hint
from echostream.serve.limits import limits_from
from echostream.serve.running import serve, warm_up

if TYPE_CHECKING:
    from echostream.serve.app import Server


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
        asyncio.run(serve(build_server(args), args.host, args.port, args.certificate, args.key))
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
    if not args.host:
        raise ValueError("--host must name an address to listen on; 0.0.0.0 is all of this machine")
    if not 0 <= args.port <= 65535:
        raise ValueError(f"--port must be from 0 to 65535, got {args.port}")
    if model_settings(args).segment_ms == 0:
        raise ValueError("--segment-ms 0, the whole recording, has no end in a live session: give a length")
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
    from echostream.serve.access import Access, is_loopback, parse_origin, proxy_network, read_tokens
    from echostream.serve.app import Server
    from echostream.serve.protocol import Settings
    from echostream.serve.samples import read_samples
    from echostream.serve.session_store import SessionStore
    from echostream.streaming.state_bytes import model_fingerprint

    origins = [parse_origin(origin) for origin in args.allow_origin]
    names = [urlsplit(origin).hostname or "" for origin in origins]  # a proxy may pass on its own host name
    access = Access(
        names if is_loopback(args.host) else None,
        origins,
        read_tokens(args.token_file),
        [proxy_network(proxy) for proxy in args.trust_proxy],
    )
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


def model_name(path: Path) -> str:
    """Name a model after its folder or, if it is a checkpoint, after folder and file."""
    path = path.resolve()
    return path.name if path.is_dir() else f"{path.parent.name}/{path.stem}"
