"""Output of speech while it is produced: a WAV file that is valid after every write, or raw PCM to a pipe."""

from __future__ import annotations

import wave
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self

import numpy as np


def to_s16le(samples: np.ndarray) -> bytes:
    """Convert float32 ``(n,)`` in [-1, 1] to little-endian 16-bit samples, clipped at full scale."""
    return np.clip(np.round(samples * 32768), -32768, 32767).astype("<i2").tobytes()


class SpeechWriter(Protocol):
    """Sink for speech, float32 ``(n,)``, in pieces."""

    def write(self, samples: np.ndarray) -> None: ...

    def close(self) -> None: ...


class WavWriter:
    """Writes a 16-bit mono WAV file. Its header is correct after every write, even if the program is interrupted.

    Args:
        path: the file, which is overwritten; its folder is created.
        sample_rate: in Hz.

    Raises:
        OSError: the file can't be written.
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
        finally:  # on a full disk both calls raise, but the file is closed
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class PcmWriter:
    """Writes raw 16-bit little-endian mono samples to a pipe and flushes it after every write; the pipe stays open."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, samples: np.ndarray) -> None:
        """Append float32 ``(n,)``."""
        if samples.size:
            self._stream.write(to_s16le(samples))
            self._stream.flush()

    def close(self) -> None:
        """Do nothing: every write is flushed, and the pipe stays open."""
