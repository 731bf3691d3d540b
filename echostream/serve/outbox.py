"""Bounded queue of messages to one client, so that a client that doesn't read can't use up memory."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import Any

from aiohttp import web

from echostream.serve.protocol import CloseCode, close_reason


class Outbox:
    """Sends queued messages in order, and closes the connection at the end.

    Args:
        socket: socket of the client.
        max_bytes: maximum size of the queue.
        max_stall_s: maximum time for sending one message.
    """

    def __init__(self, socket: web.WebSocketResponse, max_bytes: int, max_stall_s: float) -> None:
        self.socket, self.max_bytes, self.max_stall_s = socket, max_bytes, max_stall_s
        self.unsent_bytes = 0
        self.sent_code: int | None = None  # code of the close frame, once it has been sent
        self._queue: deque[str | bytes] = deque()
        self._closing: tuple[int, str] | None = None
        self._wake = asyncio.Event()

    def put(self, message: dict[str, Any] | bytes) -> bool:
        """Queue a control message or samples; returns False if the queue is larger than ``max_bytes`` now."""
        data = message if isinstance(message, bytes) else json.dumps(message, ensure_ascii=False)
        if self._closing is None:
            self._queue.append(data)
            self.unsent_bytes += len(data)
            self._wake.set()
        return self.unsent_bytes <= self.max_bytes

    def close(self, code: CloseCode, reason: str, message: dict[str, Any]) -> None:
        """Send all queued messages and then ``message``, and close; only the first call has an effect."""
        if self._closing is None:
            if self.unsent_bytes > self.max_bytes:
                self._queue.clear()  # otherwise a slow client would receive the reason last
            self.put(message)
            self._closing = int(code), reason
            self._wake.set()

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
                data = self._queue.popleft()
                async with asyncio.timeout(self.max_stall_s):
                    if isinstance(data, bytes):
                        await self.socket.send_bytes(data)
                    else:
                        await self.socket.send_str(data)
                self.unsent_bytes = sum(map(len, self._queue))
            if self._closing is not None:
                code, reason = self._closing
                self.sent_code = code
                await self.socket.close(code=code, message=close_reason(reason))
                return
            self._wake.clear()
