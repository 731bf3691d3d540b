"""A real `echostream serve` process, and one long client that is faster than real time."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import aiohttp

from echostream.audio.output import to_s16le
from echostream.decoding.word_boundary import SourceWord
from echostream.streaming import OutputWord
from scripts.benchmarks.benchmarking import Progress
from scripts.benchmarks.serve_clients import metrics
from scripts.soak.soak_audio import SAMPLE_RATE, Programme
from scripts.soak.soak_watch import Watch

START = {"type": "start", "version": 1, "sample_rate": SAMPLE_RATE}
END = {"type": "end"}
PATIENCE_S = 600  # a server that says nothing for so long hangs; a busy machine may take minutes
CPU = "process_cpu_seconds_total"


class ServerProcess:
    """``echostream serve`` on a free port of this machine.

    Args:
        options: of the command.
        log: where its standard error goes.

    Attributes:
        url: ``http://host:port``, while it runs.
    """

    def __init__(self, options: Sequence[str], log: Path) -> None:
        self.options, self.log, self.url = list(options), log, ""

    @contextlib.contextmanager
    def running(self) -> Iterator[str]:
        """Start it, give its address, and stop it as Ctrl-C does.

        Raises:
            SystemExit: it did not start; its own last words are in the message.
        """
        command = [sys.executable, "-m", "echostream.cli", "serve", "--port", "0", *self.options]
        with (
            self.log.open("w", encoding="utf-8") as log,
            # In a session of its own, Ctrl-C reaches it only through this process.
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True) as process,
        ):
            try:
                assert process.stdout is not None
                found = (re.search(r"https?://\S+:\d+", line) for line in process.stdout)
                address = next((match[0] for match in found if match), None)
                if address is None:
                    last = self.log.read_text(encoding="utf-8").strip().splitlines()[-1:]
                    raise SystemExit(f"error: the server did not start: {''.join(last)}")
                self.url = address
                yield address
            finally:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(PATIENCE_S)
                except subprocess.TimeoutExpired:
                    process.kill()

    def tracebacks(self) -> int:
        """Errors in its log."""
        return self.log.read_text(encoding="utf-8").count("Traceback")


async def long_session(url: str, programme: Programme, sizes: Iterator[int], watch: Watch, progress: Progress) -> float:
    """One session that hears the whole programme as fast as the server takes it.

    Returns:
        the seconds of speech that the server says it has sent.

    Raises:
        ConnectionError: the server ended the session; the message is its own.
    """
    async with aiohttp.ClientSession() as client, client.ws_connect(f"{url}/ws", max_msg_size=0) as socket:
        await socket.send_json(START)
        ready = await socket.receive_json()
        if ready["type"] != "ready":
            raise ConnectionError(ready["message"])
        ahead_s = ready["limits"]["max_buffer_s"] / 2
        translated_s, moved = 0.0, asyncio.Event()
        cpu_s = (await metrics(client, url))[CPU]

        async def send() -> None:
            sent = 0
            for piece in programme.pieces(sizes):
                sent += len(piece)
                while sent / SAMPLE_RATE - translated_s > ahead_s:
                    moved.clear()
                    await moved.wait()
                await socket.send_bytes(to_s16le(piece))
            await socket.send_json(END)

        sending = asyncio.create_task(send())
        try:
            while True:
                message = await asyncio.wait_for(socket.receive(), PATIENCE_S)
                if message.type == aiohttp.WSMsgType.BINARY:
                    watch.hear(message.data)
                    continue
                if message.type != aiohttp.WSMsgType.TEXT:
                    raise ConnectionError("the server closed the connection without a word")
                content = message.json()
                if content["type"] == "error":
                    raise ConnectionError(content["message"])
                if content["type"] == "done":
                    return content["speech_s"]
                take(content, watch)
                translated_s = content["source_s"]
                moved.set()
                if watch.is_due(translated_s):
                    figures = await metrics(client, url)
                    watch.computed(figures[CPU] - cpu_s)
                    cpu_s = figures[CPU]
                    watch.mark(translated_s, figures["process_resident_memory_bytes"])
                progress.update(int(translated_s), int(programme.length_s), "s of audio")
        finally:
            sending.cancel()


def take(output: dict, watch: Watch) -> None:
    """Hand an output message to the watch."""
    words = [
        OutputWord(word["text"], word["source_s"], word["start_s"], word["end_s"], word["joined"])
        for word in output["words"]
    ]
    heard = [SourceWord(**word) for word in output["source_words"]]
    text, source_text = (
        "".join(word["text"] if word["joined"] else f" {word['text']}" for word in output[side])
        for side in ("words", "source_words")
    )
    watch.step(output["source_s"], words, heard, text, source_text)
    for word in words[-1:]:
        watch.clock(output["source_s"] - word.source_time_s)
