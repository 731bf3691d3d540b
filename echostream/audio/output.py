"""Output of speech while it is produced: a WAV file that is valid after every write, an encoded file, or raw PCM."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self

import numpy as np
import soundfile

# Suffixes of speech that is encoded, with libsndfile's names of format and encoding.
ENCODINGS = {
    ".flac": ("FLAC", "PCM_16"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
}
SPEECH_SUFFIXES = (".wav", *ENCODINGS)

# RIFF, its size, WAVE; "fmt ", size, encoding, channels, Hz, bytes a second, bytes a frame, bits; data, its size.
WAV_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")
WAV_PCM = 1
LARGEST_WAV_DATA = 2**32 - WAV_HEADER.size


def to_s16le(samples: np.ndarray) -> bytes:
    """Convert float32 ``(n,)`` in [-1, 1] to little-endian 16-bit samples, clipped at full scale."""
    return np.clip(np.round(samples * 32768), -32768, 32767).astype("<i2").tobytes()


class SpeechWriter(Protocol):
    """Sink for speech, float32 ``(n,)``, in pieces."""

    def write(self, samples: np.ndarray) -> None: ...

    def close(self) -> None: ...


class WavWriter:
    """Writes a 16-bit mono WAV file. Its header is correct after every write, even if the program is interrupted.

    The standard library's ``wave`` counts samples after it has written them, so an interruption between the two
    left some behind the end that its header names. Here the header goes by the file's own length.

    Args:
        path: the file, which is overwritten; its folder is created.
        sample_rate: in Hz.

    Raises:
        OSError: the file can't be written.
    """

    def __init__(self, path: Path, sample_rate: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file, self._sample_rate = path.open("wb"), sample_rate
        self._file.write(bytes(WAV_HEADER.size))
        self._write_header()

    def write(self, samples: np.ndarray) -> None:
        """Append float32 ``(n,)``."""
        if samples.size:
            self._file.seek(0, os.SEEK_END)
            self._file.write(to_s16le(samples))
            self._write_header()

    def _write_header(self) -> None:
        size = self._file.seek(0, os.SEEK_END) - WAV_HEADER.size
        size = min(size, LARGEST_WAV_DATA)  # all that its 32 bits can count; readers take the rest by the file's end
        byte_rate = 2 * self._sample_rate
        format_chunk = (b"fmt ", 16, WAV_PCM, 1, self._sample_rate, byte_rate, 2, 16)
        self._file.seek(0)
        self._file.write(WAV_HEADER.pack(b"RIFF", WAV_HEADER.size - 8 + size, b"WAVE", *format_chunk, b"data", size))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file.closed:
            return
        try:
            self._write_header()
        finally:  # on a full disk both calls raise, but the file is closed
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class EncodedWriter:
    """Writes mono speech as FLAC, MP3, Ogg Vorbis or Ogg Opus, by the file's suffix. It is whole when it is closed.

    Args:
        path: the file, which is overwritten; its folder is created.
        sample_rate: in Hz.

    Raises:
        OSError: the file can't be written, or its format doesn't know the sample rate.
    """

    def __init__(self, path: Path, sample_rate: int) -> None:
        container, encoding = ENCODINGS[path.suffix.lower()]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("wb").close()  # which says better than libsndfile why it can't be done
        self._path, self._is_empty = path, True
        try:
            self._file = soundfile.SoundFile(os.fsencode(path), "w", sample_rate, 1, encoding, format=container)
        except soundfile.LibsndfileError as error:
            raise OSError(errno.EINVAL, f"{encoding} can't be written at {sample_rate} Hz", str(path)) from error

    def write(self, samples: np.ndarray) -> None:
        """Append float32 ``(n,)``."""
        if not samples.size:
            return
        self._is_empty = False
        try:
            self._file.write(np.clip(samples, -1, 1))
        except soundfile.LibsndfileError as error:  # all that it says is "System error"
            raise OSError(errno.EIO, "the disk is full or failed", str(self._path)) from error

    def close(self) -> None:
        """Close the file."""
        if self._is_empty and not self._file.closed:  # without a sample, it would be no file of its format
            self.write(np.zeros(1, dtype=np.float32))
        self._file.close()


def open_speech_file(path: Path, sample_rate: int) -> WavWriter | EncodedWriter:
    """A writer for the format that the suffix of ``path`` names, one of :data:`SPEECH_SUFFIXES`.

    Raises:
        OSError: the file can't be written.
    """
    return (EncodedWriter if path.suffix.lower() in ENCODINGS else WavWriter)(path, sample_rate)


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
