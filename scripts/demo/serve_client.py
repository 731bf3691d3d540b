"""Send a recording to `echostream serve`, as it is spoken, and get its translation: an example of docs/protocol.md.

python scripts/demo/serve_client.py talk.wav -o talk.en.wav
python scripts/demo/serve_client.py talk.wav --url ws://127.0.0.1:8765/ws --segment-ms 160 --fast
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import numpy as np
import soundfile

PIECE_S = 0.04


class ServerError(Exception):
    """The server refused or ended the session; the message is its own."""


class Client:
    """One session.

    Args:
        socket: connected to the server's /ws.
        options: of the start message.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, **options: object) -> None:
        self.socket, self.options = socket, options
        self.speech: list[np.ndarray] = []  # int16
        self.output_sample_rate = 0
        self.translated_s = 0.0
        self.ready = asyncio.Event()
        self.progress = asyncio.Event()
        self.max_buffer_s = self.max_speed = 0.0

    async def send(self, samples: np.ndarray, sample_rate: int, fast: bool = False) -> None:
        """Send int16 `(n,)` at the speed of speech, or as fast as the server takes it."""
        await self.socket.send_json({"type": "start", "version": 1, "sample_rate": sample_rate, **self.options})
        await self.ready.wait()
        began, sent_s = time.monotonic(), 0.0
        speed = self.max_speed if fast else 1.0
        for piece in pieces(samples, round(sample_rate * PIECE_S)):
            await self.socket.send_bytes(piece.astype("<i2").tobytes())
            sent_s += len(piece) / sample_rate
            while sent_s - self.translated_s > self.max_buffer_s / 2:  # the model is behind: wait for it
                self.progress.clear()
                await self.progress.wait()
            await asyncio.sleep(max(0.0, began + sent_s / speed - time.monotonic()))
        await self.socket.send_json({"type": "end"})

    async def receive(self) -> dict:
        """Print words and keep speech until the server is done; gives its last message."""
        last: dict = {"type": "error", "message": "the server closed the connection without a word"}
        async for message in self.socket:
            if message.type == aiohttp.WSMsgType.BINARY:
                self.speech.append(np.frombuffer(message.data, dtype="<i2"))
                continue
            content = message.json()
            if content["type"] == "ready":
                limits = content["limits"]
                self.max_buffer_s, self.max_speed = limits["max_buffer_s"], limits["max_speed"]
                self.output_sample_rate = content["output_sample_rate"]
                self.ready.set()
            elif content["type"] == "output":
                self.translated_s = content["source_s"]
                self.progress.set()
                show(content)
            else:
                last = content
        if last["type"] == "error":
            raise ServerError(last["message"])
        return last


def pieces(samples: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Cut `(n,)` into pieces of `size`."""
    for start in range(0, len(samples), size):
        yield samples[start : start + size]


def show(output: dict) -> None:
    """A line for each language that has news."""
    for verb, words in (("heard", output["source_words"]), ("said", output["words"])):
        text = "".join(word["text"] if word["joined"] else f" {word['text']}" for word in words)
        if text:
            print(f"  {output['source_s']:6.2f} s  {verb:6}{text}", flush=True)


async def translate(args: argparse.Namespace) -> None:
    """One recording through the server."""
    samples, sample_rate = soundfile.read(args.audio, dtype="int16", always_2d=True)
    mono = np.round(samples.mean(axis=1)).astype(np.int16)
    options = {"segment_ms": args.segment_ms, "policy": args.policy, "task": args.task}
    async with aiohttp.ClientSession() as session, session.ws_connect(args.url, max_msg_size=0) as socket:
        client = Client(socket, **{name: value for name, value in options.items() if value is not None})
        sending = asyncio.create_task(client.send(mono, sample_rate, args.fast))
        try:
            done = await client.receive()
        finally:
            sending.cancel()
            speech = np.concatenate([np.zeros(0, np.int16), *client.speech])
            if args.output and len(speech):
                soundfile.write(args.output, speech, client.output_sample_rate)
    print(f"{done['source_s']:.1f} s heard, {done['speech_s']:.1f} s said, real-time factor {done['rtf']:.3f}")
    if done["code"] != 1000:
        raise ServerError(done["message"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("audio", type=Path, help="recording, in any format and rate that soundfile reads")
    parser.add_argument("--url", default="ws://127.0.0.1:8765/ws", help="of the server (%(default)s)")
    parser.add_argument("-o", "--output", type=Path, help="write the spoken translation there")
    parser.add_argument("--fast", action="store_true", help="don't wait as a speaker would")
    parser.add_argument("--segment-ms", type=int, help="encoder segment (the server's default)")
    parser.add_argument("--policy", help="alignment, stride, wait-k or fixed-rate (the server's default)")
    parser.add_argument("--task", help="s2st, s2tt or asr (the server's default)")
    try:
        asyncio.run(translate(parser.parse_args()))
    except (ServerError, aiohttp.ClientError, soundfile.LibsndfileError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
