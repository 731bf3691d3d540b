"""Clients of `echostream serve` that speak in real time and measure how soon they are answered."""

from __future__ import annotations

import asyncio
import time
from collections import deque

import aiohttp
import numpy as np

from echostream.audio.output import to_s16le
from scripts.benchmarks.benchmarking import SAMPLE_RATE, Noise

PIECE_MS = 40
WARM_UP_S = 2  # of each session: not counted
HOPELESS_MS = 5000  # a session so far behind is given up


def what_is_said(tape: np.ndarray | None, seconds: float, sessions: int) -> list[np.ndarray]:
    """What each session speaks, int16 `(n,)` @16 kHz: `tape`, float32 `(n,)`, over and over, or noise if it is None.

    Each begins at a place of its own, so that no two sessions end a sentence at the same time for that reason.
    """
    size = round(SAMPLE_RATE * seconds)
    if tape is None:
        spoken = [Noise(seed).read(size) for seed in range(sessions)]
    else:
        spoken = [np.resize(np.roll(tape, -(tape.size * place // sessions)), size) for place in range(sessions)]
    return [np.frombuffer(to_s16le(samples), "<i2") for samples in spoken]


async def speak(url: str, samples: np.ndarray, delay_s: float, client: aiohttp.ClientSession) -> list[float]:
    """One session in real time; its reactions in ms.

    Raises:
        ConnectionError: the server ended it, or is hopelessly behind.
    """
    await asyncio.sleep(delay_s)
    sent: deque[tuple[int, float]] = deque()  # samples sent by then, time
    reactions: list[float] = []
    async with client.ws_connect(url, max_msg_size=0) as socket:
        await socket.send_json({"type": "start", "version": 1, "sample_rate": SAMPLE_RATE})

        async def send() -> None:
            began, size = time.perf_counter(), SAMPLE_RATE * PIECE_MS // 1000
            for end in range(size, len(samples) + 1, size):
                await asyncio.sleep(max(0.0, began + end / SAMPLE_RATE - time.perf_counter()))
                sent.append((end, time.perf_counter()))
                await socket.send_bytes(samples[end - size : end].tobytes())

        sending = asyncio.create_task(send())
        try:
            while True:
                # A timeout of the socket's own begins again with every ping.
                message = await asyncio.wait_for(socket.receive(), 30)
                now = time.perf_counter()
                if message.type == aiohttp.WSMsgType.BINARY:
                    continue
                if message.type != aiohttp.WSMsgType.TEXT or message.json()["type"] in ("error", "done"):
                    raise ConnectionError(message.data)
                content = message.json()
                if content["type"] != "output":
                    continue
                used = round(content["source_s"] * SAMPLE_RATE)
                while sent and sent[0][0] < used - SAMPLE_RATE // 1000:
                    sent.popleft()
                if content["source_s"] > WARM_UP_S:
                    reactions.append(1000 * (now - sent[0][1]))
                    if reactions[-1] > HOPELESS_MS:
                        raise ConnectionError(f"{reactions[-1]:.0f} ms behind")
                if used > len(samples) - SAMPLE_RATE:
                    break  # the last second is not measured: it may be no whole segment, and nothing would come
        finally:
            sending.cancel()
    return reactions


async def metrics(client: aiohttp.ClientSession, url: str) -> dict[str, float]:
    """The figures of the server that have no labels."""
    text = await (await client.get(f"{url}/metrics")).text()
    pairs = (line.rsplit(" ", 1) for line in text.splitlines() if line and line[0] != "#" and "{" not in line)
    return {name: float(value) for name, value in pairs}
