"""Accepting connections: so many of an address, so many at all, and none that says nothing for long.

asyncio's own server logs a traceback for each connection that it can't accept, a hundred at a time, and sets no limit
to the time until a request has come.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import ssl
import time
from collections.abc import Callable, Coroutine
from typing import Any

from aiohttp import web

from echostream.serve.access import client_network, is_loopback
from echostream.serve.limits import Limits

log = logging.getLogger(__name__)

BACKLOG = 128
RETRY_S = 0.5  # after a connection could not be accepted
REPEAT_S = 60  # between two lines in the log about the same trouble
MOST_STALL_S = 2_000_000.0  # of what the kernel counts, milliseconds in 31 bits
SPARE_DESCRIPTORS = 48  # for the program itself: libraries, files of states and uploads
FEWEST_CONNECTIONS = 8


def bind(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen on each address of a host, all on one port, a free one for 0.

    Raises:
        OSError: the address can't be used.
    """
    addresses = {info[4][0]: info[0] for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    sockets: list[socket.socket] = []
    try:
        for address, family in addresses.items():
            made = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(made)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.setblocking(False)
            made.bind((address, port))
            made.listen(BACKLOG)
            port = made.getsockname()[1]
    except OSError:
        for made in sockets:
            made.close()
        raise
    return sockets


class Listener:
    """Accepts connections for an HTTP server.

    Args:
        server: aiohttp's server, which makes a protocol for each connection.
        limits: of connections of one address, and of the time until a request has come.
        context: for TLS; None: without.
        is_proxy: says of an address whether it is a trusted proxy, which has as many connections as it likes.
        silent: transports on which no request has come yet; the server takes them out.
    """

    def __init__(
        self,
        server: web.Server,
        limits: Limits,
        context: ssl.SSLContext | None = None,
        is_proxy: Callable[[str], bool] = lambda _: False,
        silent: set[asyncio.BaseTransport] | None = None,
    ) -> None:
        self._server, self._limits, self._context, self._is_proxy = server, limits, context, is_proxy
        self._silent = silent if silent is not None else set()
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.max_connections = max(descriptors - SPARE_DESCRIPTORS, FEWEST_CONNECTIONS)
        self._open: dict[socket.socket, str] = {}
        self._sockets: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._said_s: dict[str, float] = {}

    def listen(self, host: str, port: int) -> int:
        """Start to listen; returns the port, which is another one if 0 was given.

        Raises:
            OSError: the address can't be used.
        """
        self._sockets = bind(host, port)
        for made in self._sockets:
            self._start(self._accept(made))
        return int(self._sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Accept no more; connections that are open stay."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for made in self._sockets:
            made.close()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, peer = await loop.sock_accept(listener)
            except ConnectionError:
                continue  # it has gone already
            except OSError as error:
                self._warn(f"no connection can be accepted: {error.strerror}")
                await asyncio.sleep(RETRY_S)
                continue
            if refusal := self._refusal(peer[0]):
                self._warn(refusal)
                connection.close()
            else:
                self._open[connection] = client_network(peer[0])
                self._start(self._serve(connection))

    def _refusal(self, peer: str) -> str | None:
        """Why a connection of ``peer`` is one too many; None if it isn't."""
        for connection in [connection for connection in self._open if connection.fileno() < 0]:
            del self._open[connection]  # the transport has closed it
        if len(self._open) >= self.max_connections:
            return (
                f"{len(self._open)} connections are open, as many as the limit of open files allows (ulimit -n): "
                "more are closed at once"
            )
        if is_loopback(peer) or self._is_proxy(peer):
            return None
        most, address = self._limits.max_connections_per_address, client_network(peer)
        if sum(other == address for other in self._open.values()) >= most:
            return f"more than {most} connections of one address (--max-connections-per-address) are closed at once"
        return None

    async def _serve(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        patience = {"ssl_handshake_timeout": self._limits.max_handshake_s} if self._context is not None else {}
        stall_ms = round(1000 * min(self._limits.max_stall_s, MOST_STALL_S))
        try:
            # A client that takes nothing of a page or a sample would keep its connection for ever. The kernel counts
            # the time for which something waits to be taken.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, stall_ms)
            transport, _ = await loop.connect_accepted_socket(self._server, connection, ssl=self._context, **patience)
        except (OSError, TimeoutError) as error:  # TLS: a client that says nothing, or nonsense
            log.debug("the handshake of a client failed: %s", error)
            connection.close()
            return
        self._silent.add(transport)
        loop.call_later(self._limits.max_handshake_s, self._drop_silent, transport)

    def _drop_silent(self, transport: asyncio.Transport) -> None:
        if transport in self._silent:
            self._silent.discard(transport)
            transport.abort()

    def _warn(self, text: str) -> None:
        """A line in the log, but not the same again and again."""
        now_s = time.monotonic()
        kind = text.lstrip("0123456789 ")
        if now_s - self._said_s.get(kind, -REPEAT_S) >= REPEAT_S:
            self._said_s[kind] = now_s
            log.warning("%s", text)
