"""Recordings that libsndfile decodes: wav, flac, ogg, mp3, aiff and many more."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from echostream.audio.errors import AudioError, UnknownFormatError
from echostream.constants import FRAME_S

# libsndfile's log line for a chunk that is shorter than its header says. Recorders that write to a pipe don't know the
# length and write about 2 or 4 GiB instead, which is no sign of a truncated file.
SHORT_CHUNK = re.compile(r"^\s*(data|SSND|riff) : (\d+) \(should be (\d+)\)", re.MULTILINE)
UNKNOWN_LENGTH = 0x7FFFF000


class _SequentialFile(soundfile.SoundFile):
    """A file for sequential reading.

    soundfile seeks in a seekable file after every read, which makes the MP3 decoder produce clicks.
    """

    def seekable(self) -> bool:
        return False


def check_file(path: Path, name: str) -> None:
    """Check that there is something to read.

    Raises:
        AudioError: the file is missing or empty.
    """
    try:
        if not path.is_file():
            raise AudioError(f"{name} is not a file" if path.exists() else f"no such file: {name}")
        if not path.stat().st_size:
            raise AudioError(f"{name} is empty (0 bytes)")
    except PermissionError as error:
        raise AudioError(f"cannot read {name}: permission denied") from error


def open_sound_file(source: Path | BinaryIO, name: str) -> soundfile.SoundFile:
    """Open the decoder of a file.

    Raises:
        AudioError: the file is missing or empty.
        UnknownFormatError: libsndfile can't decode it.
    """
    if isinstance(source, Path):
        check_file(source, name)
    try:
        # As bytes, since the names of files are any bytes; soundfile takes for text what is UTF-8 alone.
        return _SequentialFile(os.fsencode(source) if isinstance(source, Path) else source)
    except PermissionError as error:
        raise AudioError(f"cannot read {name}: permission denied") from error
    except (OSError, TypeError, soundfile.LibsndfileError) as error:
        reason = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
        remedy = "wav, flac, ogg, mp3, aiff and the like are read, convert others"
        raise UnknownFormatError(name, reason.rstrip("."), remedy) from error


def sound_file_chunks(name: str, file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    """Chunks ``(n, channels)`` of an encoder frame.

    Raises:
        AudioError: the file is damaged, or ends earlier than its header says.
    """
    size = max(round(file.samplerate * FRAME_S), 1)
    frames = 0
    while True:
        try:
            chunk = file.read(size, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise AudioError(
                f"{name} is damaged or cut short after {frames / file.samplerate:.2f} s of "
                f"{file.frames / file.samplerate:.2f} s: {error.error_string.rstrip('.')}; copy it again"
            ) from error
        if not len(chunk):
            break
        frames += len(chunk)
        yield chunk
    if reason := _cut_short(file, frames):
        raise AudioError(f"{name} is cut short after {frames / file.samplerate:.2f} s: {reason}; copy it again")


def _cut_short(file: soundfile.SoundFile, frames: int) -> str | None:
    """Why a file is truncated if reading it to its end gave ``frames`` frames; None if it is complete."""
    if file.frames - frames > file.samplerate // 10:
        return f"it says to be {file.frames / file.samplerate:.2f} s long"
    for _, declared, actual in SHORT_CHUNK.findall(file.extra_info):
        if int(actual) < int(declared) < UNKNOWN_LENGTH:
            return f"its header promises {int(declared) - int(actual)} bytes more"
    if "lacks an end-of-stream bit" in file.extra_info:
        return "its last page is missing"
    return None
