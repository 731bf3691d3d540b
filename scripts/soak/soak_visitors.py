"""Clients of `echostream serve` that leave in every possible way, and what a server keeps of them: nothing."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

import aiohttp
import numpy as np

from echostream.audio.output import to_s16le
from scripts.benchmarks.benchmarking import Progress
from scripts.benchmarks.serve_clients import metrics
from scripts.soak.soak_server import END, PATIENCE_S, START

LINGERING = 4  # sessions that nobody reads from, at a time
QUIET_S = 60  # in which a server has forgotten its last session
ROUNDING = 1  # step of 16 bits; a session that shares its steps with others gets the same numbers to 1e-5
ROUNDS_BEFORE = 2  # of every way to leave, before a server is measured
TEXT, BINARY, CLOSE = 1, 2, 8  # opcodes (RFC 6455, section 5.2)
FIGURES = {
    "open sessions": "echostream_sessions",
    "waiting audio (s)": "echostream_waiting_audio_seconds",
    "tasks": "echostream_tasks",
    "open files": "process_open_fds",
    "memory (MB)": "process_resident_memory_bytes",
}


@dataclass
class Visits:
    """200 sessions in turn: ``before`` and ``after`` are the server's figures with nobody there."""

    part: str
    sessions: int
    ways: dict[str, int]
    before: dict[str, float]
    after: dict[str, float]
    wall_s: float
    broken: list[str]


class RawClient:
    """A WebSocket client that may do what no library would (RFC 6455)."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self.reader, self.writer, self.host = reader, writer, host

    @classmethod
    async def open(cls, url: str) -> RawClient:
        """A connection on which nothing has been said."""
        host = url.split("//")[1]
        name, port = host.rsplit(":", 1)
        # a small buffer: who doesn't read is soon noticed
        return cls(*await asyncio.open_connection(name, int(port), limit=4096), host)

    @property
    def request(self) -> bytes:
        lines = ("GET /ws HTTP/1.1", f"Host: {self.host}", "Upgrade: websocket", "Connection: Upgrade")
        lines += ("Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")
        return "\r\n".join((*lines, "", "")).encode()

    async def shake_hands(self) -> RawClient:
        self.writer.write(self.request)
        answer = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
        if b" 101 " not in answer:
            raise ConnectionError(answer.splitlines()[0].decode())
        return self

    @staticmethod
    def frame(message: dict | bytes, opcode: int = TEXT) -> bytes:
        """A whole message; a mask of zeros leaves the data as they are."""
        data = message if isinstance(message, bytes) else json.dumps(message).encode()
        return bytes([0x80 | opcode, 0x80 | 127]) + len(data).to_bytes(8, "big") + bytes(4) + data

    async def say(self, *messages: dict | bytes) -> None:
        for message in messages:
            self.writer.write(self.frame(message, BINARY if isinstance(message, bytes) else TEXT))
            await asyncio.wait_for(self.writer.drain(), PATIENCE_S)

    async def frames(self) -> AsyncIterator[tuple[int, bytes]]:
        """Opcode and data of what comes, to the close frame."""
        opcode = 0
        while opcode != CLOSE:
            head = await asyncio.wait_for(self.reader.readexactly(2), PATIENCE_S)
            opcode, length = head[0] & 15, head[1] & 127
            if length >= 126:
                length = int.from_bytes(await self.reader.readexactly(2 if length == 126 else 8), "big")
            yield opcode, await self.reader.readexactly(length)

    def vanish(self) -> None:
        """Leave without a word."""
        self.writer.transport.abort()


class Visitors:
    """Sessions in turn on one server, each of which ends in another way.

    Args:
        url: of the server.
        recordings: what they say, float32 ``(n,)``.
        seed: of their order.
    """

    def __init__(self, url: str, recordings: Sequence[np.ndarray], seed: int) -> None:
        self.url, self.random = url, np.random.default_rng(seed)
        self.pcm = [to_s16le(0.5 * samples) for samples in recordings]
        self.heard: dict[int, tuple[list[str], np.ndarray]] = {}  # what the first whole session of a recording got
        self.changed: set[int] = set()  # recordings of which a later one got something else
        self._lingering: list[RawClient] = []
        self.ways: dict[str, Callable[[], Awaitable[None]]] = {
            "in the handshake": self._in_the_handshake,
            "before the start": self._before_the_start,
            "in the audio": self._in_the_audio,
            "in a message": self._in_a_message,
            "after the end": self._after_the_end,
            "with a close frame": self._with_a_close_frame,
            "never reads": self._never_reads,
            "stays to the end": self._stays_to_the_end,
        }

    async def visit(self, way: str) -> None:
        """One session."""
        await self.ways[way]()
        while len(self._lingering) > LINGERING:
            self._lingering.pop(0).vanish()

    def leave(self) -> None:
        """Whoever is still there goes."""
        while self._lingering:
            self._lingering.pop().vanish()

    async def _begun(self) -> RawClient:
        client = await (await RawClient.open(self.url)).shake_hands()
        await client.say(START)
        return client

    def _some_audio(self) -> list[bytes]:
        """A part of a recording, in pieces."""
        pcm = self.pcm[self.random.integers(len(self.pcm))]
        part = pcm[: 2 * int(self.random.integers(1, len(pcm) // 2))]
        size = 2 * int(self.random.integers(160, 16_000))
        return [part[at : at + size] for at in range(0, len(part), size)]

    async def _in_the_handshake(self) -> None:
        client = await RawClient.open(self.url)
        client.writer.write(client.request[: int(self.random.integers(1, len(client.request)))])
        await client.writer.drain()
        client.vanish()

    async def _before_the_start(self) -> None:
        (await (await RawClient.open(self.url)).shake_hands()).vanish()

    async def _in_the_audio(self) -> None:
        client = await self._begun()
        await client.say(*self._some_audio())
        client.vanish()

    async def _in_a_message(self) -> None:
        client = await self._begun()
        frame = client.frame(self.pcm[0], BINARY)
        client.writer.write(frame[: int(self.random.integers(1, len(frame)))])
        await client.writer.drain()
        client.vanish()

    async def _after_the_end(self) -> None:
        client = await self._begun()
        await client.say(*self._some_audio(), END)
        client.vanish()

    async def _with_a_close_frame(self) -> None:
        client = await self._begun()
        await client.say(*self._some_audio())
        client.writer.write(client.frame((1000).to_bytes(2, "big"), CLOSE))
        async for _ in client.frames():
            pass
        client.vanish()

    async def _never_reads(self) -> None:
        client = await self._begun()
        await client.say(*self._some_audio(), END)
        self._lingering.append(client)

    async def _stays_to_the_end(self) -> None:
        client = await self._begun()
        index = int(self.random.integers(len(self.pcm)))
        await client.say(self.pcm[index], END)
        pcm, words, last = bytearray(), list[str](), {}
        async for opcode, data in client.frames():
            if opcode == BINARY:
                pcm += data
            elif opcode == TEXT:
                last = json.loads(data)
                words += [word["text"] for word in last.get("words", [])]
        client.vanish()
        if last.get("type") != "done":
            raise ConnectionError(last.get("message", "the server closed the connection without a word"))
        self.compare(index, words, np.frombuffer(bytes(pcm), "<i2").astype(np.int32))

    def compare(self, index: int, words: list[str], samples: np.ndarray) -> None:
        """Hold what a whole session got of a recording against what the first one did."""
        first_words, first = self.heard.setdefault(index, (words, samples))
        is_same = words == first_words and samples.size == first.size
        if not is_same or np.abs(samples - first).max(initial=0) > ROUNDING:
            self.changed.add(index)


async def visit(url: str, recordings: Sequence[np.ndarray], sessions: int, seed: int, may_grow_mb: float) -> Visits:
    """All sessions, and the server's figures before and after; its memory may have grown by so much."""
    visitors, progress = Visitors(url, recordings, seed), Progress("sessions")
    counts: Counter[str] = Counter()
    began = time.monotonic()
    async with aiohttp.ClientSession() as client:
        for way in [*visitors.ways] * ROUNDS_BEFORE:  # what is made once is made now
            await visitors.visit(way)
        visitors.leave()
        before = await quiet(client, url)
        for number in range(sessions):
            way = str(visitors.random.choice(list(visitors.ways)))
            await visitors.visit(way)
            counts[way] += 1
            progress.update(number + 1, sessions, "sessions")
        visitors.leave()
        after = await quiet(client, url)
    may_grow = {"memory (MB)": may_grow_mb}
    grown = [name for name in FIGURES if after[name] - before[name] > may_grow.get(name, 0)]
    broken = [f"{name}: {before[name]:g} before, {after[name]:g} after" for name in grown]
    if visitors.changed:
        broken.append(f"{len(visitors.changed)} recordings were not translated alike each time")
    return Visits("sessions", sessions, dict(counts), before, after, time.monotonic() - began, broken)


async def quiet(client: aiohttp.ClientSession, url: str) -> dict[str, float]:
    """The figures of a server once it has come to rest, or after a minute."""
    deadline, still = time.monotonic() + QUIET_S, 0
    last: dict[str, float] = {}
    while still < 10 and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
        values = await metrics(client, url)
        figures = {text: values[name] / (1e6 if "MB" in text else 1) for text, name in FIGURES.items()}
        settled = all(figures[text] == last.get(text) for text in FIGURES if "MB" not in text)
        still = still + 1 if settled and not figures["open sessions"] else 0
        last = figures
    return last
