"""Speech out as it comes: a WAV file that is whole after every write, or raw PCM into a pipe."""

from __future__ import annotations

import wave
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self

import numpy as np


def to_s16le(samples: np.ndarray) -> bytes:
    """float32 ``(n,)`` in [-1, 1] as little-endian 16-bit samples, clipped at full scale."""
    return np.clip(np.round(samples * 32768), -32768, 32767).astype("<i2").tobytes()


class SpeechWriter(Protocol):
    """Takes speech, float32 ``(n,)``, piece by piece."""

    def write(self, samples: np.ndarray) -> None: ...

    def close(self) -> None: ...


class WavWriter:
    """A 16-bit mono WAV file whose header is right after every write, so that it survives being interrupted.

    Args:
        path: overwritten; its folder is made.
        sample_rate: in Hz.

    Raises:
        OSError: a place that can't be written to.
    """

    def __init__(self, path: Path, sample_rate: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb")
        self._wave = wave.open(self._file, "wb")  # noqa: SIM115  (closed by close)
        self._wave.setnchannels(1)
        self._wave.setsampwidth(2)
        self._wave.setframerate(sample_rate)
        self._put(b"")

    def write(self, samples: np.ndarray) -> None:
        """Append float32 ``(n,)``."""
        if samples.size:
            self._put(to_s16le(samples))

    def _put(self, frames: bytes) -> None:
        self._wave.writeframes(frames)  # which also corrects the header
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        try:
            self._wave.close()
        finally:  # on a full disk the other one fails too, but closes
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class PcmWriter:
    """Raw 16-bit little-endian mono samples into a pipe, flushed at once; the pipe stays open."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, samples: np.ndarray) -> None:
        """Append float32 ``(n,)``."""
        if samples.size:
            self._stream.write(to_s16le(samples))
            self._stream.flush()

    def close(self) -> None:
        """Nothing is left to do."""
