"""Take the picture of the live page that the README and the documentation show.

    python scripts/release/page_picture.py --output docs/images/live-page.png

Starts `echostream serve` on a free port of loopback, opens its page in headless Chromium, lets recordings play into the
browser's microphone, and takes the picture when so much has been heard. What is on it is what the model said.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import soundfile
import soxr

from scripts.release.chromium import chromium, find_chromium
from scripts.speech.speech_synthesis import read_table

MICROPHONE_RATE = 48_000
START_S = 120
MAX_KB = 200
SAMPLES = 3
HEARD_S = "(parseFloat(document.getElementById('heard').textContent) || 0)"
ADDRESS = re.compile(rb"EchoStream is at (http://\S+)")


def first_samples(model: Path) -> list[Path]:
    """Recordings that come with a model; those of the sets that it knows best are the first."""
    rows = read_table(model / "samples" / "samples.tsv", "source_audio")
    return [model / "samples" / row["source_audio"] for row in rows[:SAMPLES]]


def microphone_file(recordings: list[Path], pause_s: float, path: Path) -> float:
    """Write the recordings one after the other, with pauses around them, as a microphone would hear them.

    Returns:
        Seconds until the last recording has been heard.
    """
    pause = np.zeros(round(pause_s * MICROPHONE_RATE), dtype=np.float32)
    pieces = [pause]
    for recording in recordings:
        samples, rate = soundfile.read(recording, dtype="float32", always_2d=True)
        pieces += [soxr.resample(samples.mean(axis=1), rate, MICROPHONE_RATE), pause]
    # What follows keeps the page listening while the picture is taken.
    soundfile.write(path, np.concatenate([*pieces, *[pause] * 8]), MICROPHONE_RATE, subtype="PCM_16")
    return sum(len(piece) for piece in pieces) / MICROPHONE_RATE


@asynccontextmanager
async def served(model: Path) -> AsyncIterator[str]:
    """The address of a server that runs as long as the context.

    Raises:
        SystemExit: it did not start.
    """
    command = [sys.executable, "-m", "echostream.cli", "serve", "--model", str(model), "--port", "0", "--threads", "1"]
    server = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert server.stdout is not None
        async with asyncio.timeout(START_S):
            line = await server.stdout.readline()
        if not (address := ADDRESS.match(line)):
            raise SystemExit("error: the server did not start: try echostream serve by itself")
        yield address[1].decode()
    finally:
        if server.returncode is None:
            server.terminate()
        await server.wait()


async def take_picture(args: argparse.Namespace, command: str) -> str:
    """Write the picture; returns the translation that is on it."""
    with tempfile.TemporaryDirectory() as folder:
        microphone = Path(folder) / "microphone.wav"
        until_s = microphone_file(args.recordings, args.pause_s, microphone)
        async with served(args.model) as url, chromium(command, microphone) as page:
            await page.open(url)
            await page.screenshot(args.output, args.width, args.height)  # the size that the page then keeps
            await page.click("h1")  # a page that nobody touched stays silent
            await page.click("#microphone")
            await page.wait_for(f"{HEARD_S} > {until_s}", timeout_s=until_s + 60)
            await page.screenshot(args.output, args.width, args.height, args.dark)
            said = await page.evaluate("document.getElementById('translation').innerText")
            if page.errors:
                raise SystemExit(f"error: the page reports {page.errors[0]}")
            return said.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description="Take the picture of the live page.")
    parser.add_argument("--output", type=Path, default=Path("docs/images/live-page.png"), help="(default: %(default)s)")
    parser.add_argument("--model", type=Path, default=Path("models/fr-en"), help="(default: %(default)s)")
    parser.add_argument(
        "--recordings",
        type=Path,
        nargs="+",
        help=f"what the microphone hears (default: the first {SAMPLES} samples of the model)",
    )
    parser.add_argument("--pause-s", type=float, default=1.5, help="silence around each of them (default: %(default)s)")
    parser.add_argument("--width", type=int, default=1180, help="pixels (default: %(default)s)")
    parser.add_argument("--height", type=int, default=560, help="pixels (default: %(default)s)")
    parser.add_argument("--dark", action="store_true", help="the page's dark colours")
    args = parser.parse_args()
    args.recordings = args.recordings or first_samples(args.model)
    if (command := find_chromium()) is None:
        raise SystemExit("error: no Chromium was found; on Debian: apt-get install chromium")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    said = asyncio.run(take_picture(args, command))
    size_kb = args.output.stat().st_size / 1000
    if size_kb > MAX_KB:
        raise SystemExit(f"error: {args.output} has {size_kb:.0f} kB, more than {MAX_KB}: choose a smaller size")
    print(f"{args.output}: {size_kb:.0f} kB; on it: {said}")


if __name__ == "__main__":
    main()
