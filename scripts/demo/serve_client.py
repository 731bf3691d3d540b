"""Send a recording to `echostream serve`, as it is spoken, and get its translation: an example of docs/protocol.md.

A connection that is lost, or a server that is restarted with `--state-dir`, costs a pause and no word.

python scripts/demo/serve_client.py talk.wav -o talk.en.wav
python scripts/demo/serve_client.py talk.wav --url ws://127.0.0.1:8765/ws --segment-ms 160 --fast
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import numpy as np
import soundfile

from echostream.constants import DEFAULT_PORT, POLICY_NAMES

PIECE_S = 0.04
BUSY = 1013  # close code: all places of the server are taken
RETRY_S = 0.25  # after a lost connection
SHARE_OF_SPEED = 0.95  # of the allowed one, since clocks differ


class ServerError(Exception):
    """The server refused or ended the session; the message is its own."""


class Client:
    """One session, over as many connections as it takes: after a lost one it goes on where the server was.

    Args:
        url: of the server's /ws.
        token: access token, if the server wants one.
        connector: of aiohttp, for other certificates or names than the system's; closed at the end.
        options: of the start message.
    """

    def __init__(
        self, url: str, token: str | None = None, connector: aiohttp.BaseConnector | None = None, **options: object
    ) -> None:
        self.url, self.connector, self.options = url, connector, options
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.speech: list[np.ndarray] = []  # int16
        self.words: list[str] = []
        self.output_sample_rate = 0
        self.translated_s = 0.0
        self.connections = 0
        self._resume_token: str | None = None
        self._seq = 0  # of the last output that came whole
        self._open_output: dict | None = None  # whose speech is still to come
        self._is_connected = False
        self._progress = asyncio.Event()
        self._limits: dict = {}

    async def translate(self, samples: np.ndarray, sample_rate: int, fast: bool = False) -> dict:
        """Send int16 `(n,)` at the speed of speech, or as fast as the server takes it; gives the server's last message.

        A recording is its own buffer. A client with a microphone keeps what it has recorded from the latest
        `acknowledged_samples` on.

        Raises:
            ServerError: the session was refused, or can't go on.
        """
        began, connected_s = time.monotonic(), -math.inf
        async with aiohttp.ClientSession(headers=self.headers, connector=self.connector) as http:
            while True:
                lost = "the server closed the connection without a word"
                try:
                    async with http.ws_connect(self.url, max_msg_size=0) as socket:
                        self.connections += 1
                        last = await self._converse(socket, samples, sample_rate, began, fast)
                        if last is not None:
                            return last
                except (aiohttp.ClientError, OSError) as error:
                    lost = str(error)
                if self._is_connected:
                    self._is_connected, connected_s = False, time.monotonic()
                if self._resume_token is None or time.monotonic() - connected_s > self._limits["max_away_s"]:
                    raise ServerError(lost)
                await asyncio.sleep(RETRY_S)

    async def _converse(
        self, socket: aiohttp.ClientWebSocketResponse, samples: np.ndarray, sample_rate: int, began: float, fast: bool
    ) -> dict | None:
        """Go on over one connection; gives the server's last message, or None if the session can be resumed."""
        if self._resume_token is None:
            opening = {"type": "start", "sample_rate": sample_rate, "resumable": True, **self.options}
        else:
            opening = {"type": "resume", "resume_token": self._resume_token, "seq": self._seq}
            self._open_output = None  # it comes again
        await socket.send_json({**opening, "version": 1})
        sending = None
        try:
            async for message in socket:
                if message.type == aiohttp.WSMsgType.BINARY:
                    self._take(self._open_output, np.frombuffer(message.data, dtype="<i2"))
                    continue
                content = message.json()
                if content["type"] in ("ready", "resumed"):
                    self._limits, self.output_sample_rate = content["limits"], content["output_sample_rate"]
                    self._resume_token, self._is_connected = content["resume_token"], True
                    work = self._send(socket, samples, content["received_samples"], sample_rate, began, fast)
                    sending = asyncio.create_task(work)
                elif content["type"] == "output" and content["samples"]:
                    self._open_output = content
                elif content["type"] == "output":
                    self._take(content, np.zeros(0, np.int16))
                elif content["type"] == "error":
                    if self._resume_token and not self._is_connected and content["code"] == BUSY:
                        return None  # a place may become free
                    raise ServerError(content["message"])
                elif content["type"] == "done":
                    return content
        finally:
            if sending is not None:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
        return None

    async def _send(
        self,
        socket: aiohttp.ClientWebSocketResponse,
        samples: np.ndarray,
        position: int,
        sample_rate: int,
        began: float,
        fast: bool,
    ) -> None:
        """Send what follows `position`: as it is spoken, and what is late at the speed that the server allows."""
        speed = SHARE_OF_SPEED * self._limits["max_speed"]
        resumed, first_s = time.monotonic(), position / sample_rate
        for piece in pieces(samples[position:], round(sample_rate * PIECE_S)):
            await socket.send_bytes(piece.astype("<i2").tobytes())
            position += len(piece)
            sent_s = position / sample_rate
            while sent_s - self.translated_s > self._limits["max_buffer_s"] / 2:  # the model is behind: wait for it
                self._progress.clear()
                await self._progress.wait()
            due = resumed + (sent_s - first_s) / speed
            await asyncio.sleep(max(0.0, (due if fast else max(due, began + sent_s)) - time.monotonic()))
        await socket.send_json({"type": "end"})

    def _take(self, output: dict | None, speech: np.ndarray) -> None:
        """Take in a whole output: print words and keep speech."""
        if output is None:
            return
        self._open_output, self._seq, self.translated_s = None, output["seq"], output["source_s"]
        self._progress.set()
        self.speech.append(speech)
        self.words += [word["text"] for word in output["words"]]
        show(output)


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
    token = args.token_file.read_text(encoding="utf-8").split()[0] if args.token_file else None
    client = Client(args.url, token, None, **{name: value for name, value in options.items() if value is not None})
    try:
        done = await client.translate(mono, sample_rate, args.fast)
    finally:
        speech = np.concatenate([np.zeros(0, np.int16), *client.speech])
        if args.output and len(speech):
            soundfile.write(args.output, speech, client.output_sample_rate)
    print(f"{done['source_s']:.1f} s heard, {done['speech_s']:.1f} s said, real-time factor {done['rtf']:.3f}")
    if client.connections > 1:
        print(f"{client.connections} connections; nothing was lost between them")
    if done["code"] != 1000:
        raise ServerError(done["message"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("audio", type=Path, help="recording, in any format and rate that soundfile reads")
    parser.add_argument("--url", default=f"ws://127.0.0.1:{DEFAULT_PORT}/ws", help="of the server (%(default)s)")
    parser.add_argument("--token-file", type=Path, help="access token, if the server wants one")
    parser.add_argument("-o", "--output", type=Path, help="write the spoken translation there")
    parser.add_argument("--fast", action="store_true", help="don't wait as a speaker would")
    parser.add_argument("--segment-ms", type=int, help="encoder segment (the server's default)")
    parser.add_argument("--policy", help=f"{', '.join(POLICY_NAMES)} (the server's default)")
    parser.add_argument("--task", help="s2st, s2tt or asr (the server's default)")
    try:
        asyncio.run(translate(parser.parse_args()))
    except (ServerError, soundfile.LibsndfileError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
