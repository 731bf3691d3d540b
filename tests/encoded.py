"""Recordings as telephones, browsers and cameras write them, made with PyAV."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np

RATE = 16_000
# Codec, sample rate, container and, if need be, bits per second; by suffix.
FORMATS: dict[str, tuple[str, int, str, int | None]] = {
    ".m4a": ("aac", 44_100, "ipod", None),
    ".mp4": ("aac", 44_100, "mp4", None),
    ".mov": ("aac", 44_100, "mov", None),
    ".3gp": ("libopencore_amrnb", 8_000, "3gp", 12_200),
    ".aac": ("aac", 44_100, "adts", None),
    ".webm": ("libopus", 48_000, "webm", None),
    ".mkv": ("flac", 16_000, "matroska", None),
    ".wma": ("wmav2", 44_100, "asf", 64_000),
    ".avi": ("libmp3lame", 44_100, "avi", None),
    ".ts": ("aac", 44_100, "mpegts", None),
    ".mp3": ("libmp3lame", 44_100, "mp3", 64_000),
    ".opus": ("libopus", 48_000, "ogg", None),
    ".ogg": ("libopus", 48_000, "ogg", None),
    ".flac": ("flac", 16_000, "flac", None),
    ".wav": ("pcm_mulaw", 8_000, "wav", None),
}


def encode(
    samples: np.ndarray,
    target: Path | BinaryIO,
    suffix: str,
    rate: int | None = None,
    bits: int | None = None,
    with_video: bool = False,
    options: dict[str, str] | None = None,
    title: str = "",
) -> None:
    """Write float ``(n,)`` at 16 kHz in the format of a suffix; ``rate`` and ``bits`` instead of the format's own."""
    codec, own_rate, container, own_bits = FORMATS[suffix]
    with av.open(target, "w", format=container, options=options or {}) as file:
        if title:
            file.metadata["title"] = title
        stream = file.add_stream(codec, rate=rate or own_rate, layout="mono")
        if bits or own_bits:
            stream.bit_rate = bits or own_bits
        if with_video:
            _add_video(file, len(samples) / RATE)
        frame = av.AudioFrame.from_ndarray(np.round(samples * 32767).astype(np.int16)[None], layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        resampler = av.AudioResampler(stream.format, "mono", stream.rate)
        for source in (frame, None):
            for converted in resampler.resample(source):
                file.mux(stream.encode(converted))
        file.mux(stream.encode(None))


def encoded(samples: np.ndarray, suffix: str, **options: object) -> bytes:
    """The same as bytes."""
    file = io.BytesIO()
    encode(samples, file, suffix, **options)
    return file.getvalue()


def _add_video(file: av.container.OutputContainer, seconds: float) -> None:
    stream = file.add_stream("mpeg4", rate=10)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    for number in range(round(10 * seconds)):
        frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), number % 256, np.uint8), format="rgb24")
        frame.pts = number
        file.mux(stream.encode(frame))
    file.mux(stream.encode(None))


class Trickle(io.RawIOBase):
    """A pipe that returns a few bytes at a time, and counts them.

    Args:
        content: what comes through it.
        size: bytes at a time.
    """

    def __init__(self, content: bytes, size: int) -> None:
        self._content, self._size, self.given = content, size, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        piece = self._content[self.given : self.given + min(self._size, len(buffer))]
        buffer[: len(piece)] = piece
        self.given += len(piece)
        return len(piece)


def pipe_of(content: bytes, size: int = 4096) -> io.BufferedReader:
    """A pipe with ``content`` as a program's standard input is one."""
    return io.BufferedReader(Trickle(content, size), 4096)
