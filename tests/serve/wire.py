"""A real server on a real socket, and clients that say what a test wants them to say."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import numpy as np
from aiohttp import web

from echostream.audio.output import to_s16le
from echostream.serve.app import Server
from echostream.streaming import StreamingTranslator

RATE = 16_000
PATIENCE_S = 30


def noise(seconds: float, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """float32 ``(n,)`` that 16-bit samples hold exactly."""
    random = np.random.default_rng(seed)
    return (random.normal(0, 3000, round(seconds * rate)).round().clip(-32768, 32767) / 32768).astype(np.float32)


@contextlib.asynccontextmanager
async def running(server: Server, send_buffer: int | None = None) -> AsyncIterator[str]:
    """Serve on a free port of this machine; gives ``http://host:port``."""
    runner = web.AppRunner(server.application(), shutdown_timeout=2)
    await runner.setup()
    listener = socket.socket()
    if send_buffer:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    listener.bind(("127.0.0.1", 0))
    try:
        await web.SockSite(runner, listener).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        await runner.cleanup()


@dataclass
class Heard:
    """All that a client got."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    pcm: bytes = b""
    code: int | None = None
    reason: str = ""

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["type"] == kind]

    @property
    def last(self) -> dict[str, Any]:
        return self.messages[-1]

    def words(self, side: str) -> list[tuple[str, bool]]:
        return [(word["text"], word["joined"]) for output in self.of("output") for word in output[side]]


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A client's socket."""
    async with aiohttp.ClientSession() as client, client.ws_connect(f"{url}/ws", max_msg_size=0) as connection:
        yield connection


class LazyClient:
    """A client that reads when it is told to, and not before; aiohttp's reads by itself. Frames: RFC 6455."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, url: str) -> LazyClient:
        host, port = url.removeprefix("http://").split(":")
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        made.connect((host, int(port)))
        made.setblocking(False)
        client = cls(*await asyncio.open_connection(sock=made, limit=4_096))
        client.writer.write(
            f"GET /ws HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        assert b" 101 " in await client.reader.readuntil(b"\r\n\r\n")
        return client

    async def send(self, message: dict[str, Any] | bytes) -> None:
        data = message if isinstance(message, bytes) else json.dumps(message).encode()
        opcode = 2 if isinstance(message, bytes) else 1
        mask = bytes(4)  # leaves the data as they are
        self.writer.write(bytes([0x80 | opcode, 0x80 | 127]) + len(data).to_bytes(8, "big") + mask + data)
        await self.writer.drain()

    async def read(self) -> tuple[int, bytes]:
        """Opcode and data of the next frame."""
        head = await self.reader.readexactly(2)
        length = head[1] & 127
        if length >= 126:
            length = int.from_bytes(await self.reader.readexactly(2 if length == 126 else 8), "big")
        return head[0] & 15, await self.reader.readexactly(length)


async def listen(connection: aiohttp.ClientWebSocketResponse) -> Heard:
    """Read to the end; the speech must be where its output says."""
    heard, due = Heard(), 0
    async with asyncio.timeout(PATIENCE_S):
        async for message in connection:
            if message.type == aiohttp.WSMsgType.BINARY:
                assert len(message.data) == 2 * due
                heard.pcm += message.data
                due = 0
            else:
                assert not due
                heard.messages.append(json.loads(message.data))
                due = heard.last.get("samples", 0)
    heard.code = connection.close_code
    return heard


async def say(url: str, *messages: dict[str, Any] | bytes | str) -> Heard:
    """Send messages and read to the end."""
    async with connected(url) as connection:
        for message in messages:
            if isinstance(message, dict):
                await connection.send_json(message)
            elif isinstance(message, bytes):
                await connection.send_bytes(message)
            else:
                await connection.send_str(message)
        return await listen(connection)


def start(**options: Any) -> dict[str, Any]:
    """A start message."""
    return {"type": "start", "version": 1, "sample_rate": RATE, **options}


END = {"type": "end"}


async def translate(url: str, samples: np.ndarray, push: int = 3_000, **options: Any) -> Heard:
    """A whole session."""
    pushes = [to_s16le(samples[at : at + push]) for at in range(0, len(samples), push)]
    return await say(url, start(**options), *pushes, END)


@dataclass
class Expected:
    """What the translator gives without a server."""

    pcm: bytes
    words: list[tuple[str, bool]]
    source_words: list[tuple[str, bool]]


def alone(translator: StreamingTranslator, samples: np.ndarray, **settings: Any) -> Expected:
    """One stream, one push."""
    view = translator.view(**settings)
    out = view.step(samples, view.init_state(), is_last=True)
    words, source = ([(word.text, word.joined) for word in side] for side in (out.words, out.source_words))
    return Expected(to_s16le(out.samples), words, source)


def assert_heard(heard: Heard, expected: Expected) -> None:
    assert heard.code == 1000, heard.last
    assert heard.words("source_words") == expected.source_words
    assert heard.words("words") == expected.words
    assert heard.pcm == expected.pcm


async def until(condition: Callable[[], Any]) -> None:
    """Wait for something that happens elsewhere in this process."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)
