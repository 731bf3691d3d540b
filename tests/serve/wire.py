"""A real server on a real socket, and clients for the tests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from aiohttp import web

from echostream.audio.output import to_s16le
from echostream.serve.app import Server
from echostream.streaming import StreamingTranslator

RATE = 16_000
PATIENCE_S = 30
NAME = "translate.example.org"  # of the certificate


def noise(seconds: float, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """Noise, float32 ``(n,)``, that 16-bit samples represent exactly."""
    random = np.random.default_rng(seed)
    return (random.normal(0, 3000, round(seconds * rate)).round().clip(-32768, 32767) / 32768).astype(np.float32)


@contextlib.asynccontextmanager
async def running(server: Server, send_buffer: int | None = None) -> AsyncIterator[str]:
    """Run the server on a free local port; yields ``http://host:port``."""
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


class Process:
    """A real ``echostream serve`` on this machine, with a tiny model.

    Args:
        model: checkpoint.
        log: file for its standard error.
        options: of the command.
        max_files: limit of open files; None: as it is.
        port: to listen on; 0: any.
        module: which is run, and its command.
    """

    def __init__(
        self,
        model: Path,
        log: Path,
        *options: object,
        max_files: int | None = None,
        port: int = 0,
        module: tuple[str, ...] = ("echostream.cli", "serve"),
    ) -> None:
        command = [sys.executable, "-m", *module, "--model", model, "--port", port, "--threads", 1]
        self._command = [str(part) for part in [*command, "--policy", "fixed-rate", *options]]
        self._log, self._max_files = log, max_files
        self.url = ""
        self.process: subprocess.Popen[str] | None = None

    def begin(self) -> None:
        """Start it; :meth:`wait` waits until it is there."""
        limit = (self._max_files, self._max_files)
        self.process = subprocess.Popen(
            self._command,
            stdout=subprocess.PIPE,
            stderr=self._log.open("a"),
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limit) if self._max_files else None,
        )

    def wait(self) -> str:
        """Its address, as it prints it."""
        line = self.process.stdout.readline()
        found = re.search(r"https?://\S+:\d+", line)
        assert found, line + self.log
        self.url = found[0]
        return self.url

    def end(self, number: int, patience_s: float = PATIENCE_S) -> int:
        """Send a signal and wait; returns the exit status."""
        self.process.send_signal(number)
        status = self.process.wait(patience_s)
        self.process.stdout.close()
        return status

    def __enter__(self) -> Process:
        self.begin()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.end(signal.SIGKILL)

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")


@dataclass
class Received:
    """All messages and speech that a client has received."""

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

    @property
    def sentence_ends(self) -> list[int]:
        """Words of the translation before the end of each sentence."""
        num_words, ends = 0, []
        for output in self.of("output"):
            ends += [num_words + end for end in output["sentence_ends"]]
            num_words += len(output["words"])
        return ends


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """The socket of a connected client."""
    async with aiohttp.ClientSession() as client, client.ws_connect(f"{url}/ws", max_msg_size=0) as connection:
        yield connection


class LazyClient:
    """A client that reads only when :meth:`read` is called; aiohttp's client reads by itself. Frames: RFC 6455."""

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
        mask = bytes(4)  # a mask of zeros does not change the data
        self.writer.write(bytes([0x80 | opcode, 0x80 | 127]) + len(data).to_bytes(8, "big") + mask + data)
        await self.writer.drain()

    async def read(self) -> tuple[int, bytes]:
        """Opcode and data of the next frame."""
        head = await self.reader.readexactly(2)
        length = head[1] & 127
        if length >= 126:
            length = int.from_bytes(await self.reader.readexactly(2 if length == 126 else 8), "big")
        return head[0] & 15, await self.reader.readexactly(length)


async def receive_all(connection: aiohttp.ClientWebSocketResponse) -> Received:
    """Read until the connection closes; checks that speech follows the message that announces it."""
    received, due = Received(), 0
    async with asyncio.timeout(PATIENCE_S):
        async for message in connection:
            if message.type == aiohttp.WSMsgType.BINARY:
                assert len(message.data) == 2 * due
                received.pcm += message.data
                due = 0
            else:
                assert not due
                received.messages.append(json.loads(message.data))
                due = received.last.get("samples", 0)
    received.code = connection.close_code
    return received


async def send_all(url: str, *messages: dict[str, Any] | bytes | str) -> Received:
    """Send messages and read until the connection closes."""
    async with connected(url) as connection:
        for message in messages:
            if isinstance(message, dict):
                await connection.send_json(message)
            elif isinstance(message, bytes):
                await connection.send_bytes(message)
            else:
                await connection.send_str(message)
        return await receive_all(connection)


def start(**options: Any) -> dict[str, Any]:
    """A start message."""
    return {"type": "start", "version": 1, "sample_rate": RATE, **options}


END = {"type": "end"}


async def translate(url: str, samples: np.ndarray, push: int = 3_000, **options: Any) -> Received:
    """Run a complete session."""
    pushes = [to_s16le(samples[at : at + push]) for at in range(0, len(samples), push)]
    return await send_all(url, start(**options), *pushes, END)


@dataclass
class Expected:
    """Output of the translator without a server."""

    pcm: bytes
    words: list[tuple[str, bool]]
    source_words: list[tuple[str, bool]]
    sentence_ends: list[int]


def expected_output(translator: StreamingTranslator, samples: np.ndarray, **settings: Any) -> Expected:
    """Translate one stream in one push, without a server."""
    view = translator.view(**settings)
    out = view.step(samples, view.init_state(), is_last=True)
    words, source = ([(word.text, word.joined) for word in side] for side in (out.words, out.source_words))
    return Expected(to_s16le(out.samples), words, source, out.sentence_ends)


def assert_output(received: Received, expected: Expected) -> None:
    assert received.code == 1000, received.last
    assert received.words("source_words") == expected.source_words
    assert received.words("words") == expected.words
    assert received.sentence_ends == expected.sentence_ends
    assert received.pcm == expected.pcm


async def until(condition: Callable[[], Any]) -> None:
    """Wait until a condition in this process is true."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)
