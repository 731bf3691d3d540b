"""A server runs: it listens until it is told to stop, and ends its sessions in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from echostream.serve.app import Server

KEEP_ALIVE_S = 75.0  # of a connection between two requests
STOPPING = "stopping; once more to stop at once"
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class ClientFaults(logging.Filter):
    """Leaves out of aiohttp's log what is no HTTP: it is answered with 400, and a scanner could fill a disk with it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is kept."""
        from aiohttp.http_exceptions import HttpProcessingError

        return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)


def warm_up(server: Server) -> None:
    """Translate one second of silence, so that the first session is not delayed by initialisation in libraries."""
    import numpy as np

    translator = server.defaults.apply(server.translator)
    translator.step(np.zeros(translator.sample_rate, dtype=np.float32), translator.init_state(), is_last=True)


async def serve(server: Server, host: str, port: int, certificate: Path | None = None, key: Path | None = None) -> None:
    """Listen until SIGINT, SIGTERM or SIGHUP, then end the sessions in order; a second signal stops at once.

    Args:
        server: is what the connections are given to.
        host, port: the address to listen on; port 0 stands for any free one.
        certificate, key: files for https, see :func:`tls_context`.

    Raises:
        OSError: the address can't be used.
        ValueError: the certificate can't be read.
    """
    context = tls_context(certificate, key)
    async with listening(server, host, port, context) as actual_port:
        signals: asyncio.Queue[int] = asyncio.Queue()
        for number in STOP_SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, signals.put_nowait, number)
        announce(host, actual_port, context is not None, bool(server.access.tokens))
        await signals.get()
        print(STOPPING, file=sys.stderr, flush=True)
        draining, again = asyncio.create_task(server.drain()), asyncio.create_task(signals.get())
        await asyncio.wait([draining, again], return_when=asyncio.FIRST_COMPLETED)
        for task in (draining, again):
            task.cancel()


@contextlib.asynccontextmanager
async def listening(server: Server, host: str, port: int, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Accept connections as long as the context is open; gives the port, which is another one if 0 was given.

    Raises:
        OSError: the address can't be used.
    """
    from aiohttp import web

    from echostream.serve.listener import Listener

    logging.getLogger("aiohttp.server").addFilter(ClientFaults())
    runner = web.AppRunner(server.application(), access_log=None, shutdown_timeout=3, keepalive_timeout=KEEP_ALIVE_S)
    await runner.setup()
    try:
        assert runner.server is not None  # setup has made it
        listener = Listener(runner.server, server.limits, context, server.access.is_proxy, server.silent)
        try:
            yield listener.listen(host, port)
        finally:
            await listener.close()
    finally:
        await runner.cleanup()


def announce(host: str, port: int, secure: bool, has_token: bool) -> None:
    """Print where the server is, and a warning if other machines can reach it and there is something to say."""
    from echostream.serve.access import is_loopback

    shown = f"[{host}]" if ":" in host else host
    if not is_loopback(host):
        warn_about_public_host(host, secure, has_token)
    print(f"EchoStream is at {'https' if secure else 'http'}://{shown}:{port}/ (Ctrl-C to stop)", flush=True)


def warn_about_public_host(host: str, secure: bool, has_token: bool) -> None:
    """Print a warning about listening on an address that other machines can reach, if there is something to say."""
    dangers = []
    if not has_token:
        dangers.append("whoever reaches this machine can use the server, there is no access token (--token-file)")
    if not secure:
        dangers.append("speech travels unencrypted, and browsers give no microphone without https (--certificate)")
    if dangers:
        print(f"warning: listening on {host}: {'; '.join(dangers)}", file=sys.stderr, flush=True)


def tls_context(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """Make the TLS context for https; returns None without a certificate.

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
