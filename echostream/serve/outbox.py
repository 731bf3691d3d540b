"""Bounded queue of messages to one client, so that a client that doesn't read can't use up memory."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from echostream.serve.protocol import CloseCode, close_reason


@dataclass(frozen=True)
class Pong:
    """The answer to a ping."""

    data: bytes


class Outbox:
    """Sends queued messages in order, and closes the connection at the end.

    Args:
        socket: socket of the client.
        max_bytes: size of the queue from which on it is full.
        max_stall_s: maximum time for sending one message.
    """

    def __init__(self, socket: web.WebSocketResponse, max_bytes: int, max_stall_s: float) -> None:
        self.socket, self.max_bytes, self.max_stall_s = socket, max_bytes, max_stall_s
        self.unsent_bytes = 0
        self.sent_code: int | None = None  # code of the close frame, once it has been sent
        self._queue: deque[tuple[str | bytes | Pong, int]] = deque()
        self._closing: tuple[int, str] | None = None
        self._wake = asyncio.Event()

    def put(self, message: dict[str, Any] | bytes | Pong) -> None:
        """Queue a message, samples or a pong."""
        if self._closing is None:
            if isinstance(message, dict):
                text = json.dumps(message, ensure_ascii=False)
                self._queue.append((text, len(text.encode(errors="surrogatepass"))))
            else:
                self._queue.append((message, len(message.data if isinstance(message, Pong) else message)))
            self.unsent_bytes += self._queue[-1][1]
            self._wake.set()

    def close(self, code: CloseCode, reason: str, message: dict[str, Any]) -> None:
        """Send all queued messages and then ``message``, and close; only the first call has an effect."""
        if self._closing is None:
            if code is CloseCode.SLOW_CLIENT:
                self._queue.clear()  # otherwise a slow client would receive the reason last
                self.unsent_bytes = 0
            self.put(message)
            self._closing = int(code), reason
            self._wake.set()

    @property
    def is_full(self) -> bool:
        """Whether more waits than may: nothing should be put in then."""
        return self.unsent_bytes > self.max_bytes

    @property
    def is_closing(self) -> bool:
        return self._closing is not None

    async def run(self) -> None:
        """Send until the connection is closed.

        Raises:
            TimeoutError: sending a message took longer than ``max_stall_s``.
            ConnectionError: the client has disconnected.
        """
        while True:
            await self._wake.wait()
            while self._queue:
                data, size = self._queue.popleft()
                async with asyncio.timeout(self.max_stall_s):
                    if isinstance(data, Pong):
                        await self.socket.pong(data.data)
                    elif isinstance(data, bytes):
                        await self.socket.send_bytes(data)
                    else:
                        await self.socket.send_str(data)
                self.unsent_bytes = max(0, self.unsent_bytes - size)
            if self._closing is not None:
                code, reason = self._closing
                self.sent_code = code
                await self.socket.close(code=code, message=close_reason(reason))
                return
            self._wake.clear()
