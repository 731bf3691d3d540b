"""A pipe whose beginning can be looked at before it is read."""

from __future__ import annotations

import struct
import tempfile
from typing import BinaryIO

from echostream.audio.errors import AudioError

UNKNOWN_LENGTH = 0x7FFFF000  # or more: of a recorder that could not know how long it would record
MAX_HEAD_BYTES = 1_000_000
COPIED_BYTES = 2**20


class Pipe:
    """A pipe; like a pipe it can't be sought in, and reads no more than there is.

    Args:
        stream: buffered binary reader.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._head = b""
        self._left: int | None = None

    def peek(self, size: int) -> bytes:
        """The next ``size`` bytes, or fewer if it ends before; they are still to be read."""
        while len(self._head) < size and (more := self._stream.read(size - len(self._head))):
            self._head += more
        return self._head[:size]

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes that are there, waiting for one at least; empty at the end."""
        if self._left is not None:
            size = min(size, self._left)
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
        else:
            data = self._stream.read1(size) if size else b""  # type: ignore[attr-defined]  # of buffered readers
        if self._left is not None:
            self._left -= len(data)
        return data

    def skip(self, size: int) -> None:
        """Take ``size`` bytes away that were looked at before."""
        self._head = self._head[size:]

    def limit(self, size: int) -> None:
        """End after ``size`` more bytes, unless that number only says that nobody knew."""
        if 0 < size < UNKNOWN_LENGTH:
            self._left = size

    @property
    def missing_bytes(self) -> int:
        """How many of the bytes that :meth:`limit` speaks of have not been read."""
        return self._left or 0


def needs_seeking(pipe: Pipe) -> bool:
    """Whether a stream of the MP4 family has its index behind its sound, as most recorders write it."""
    offset = 0
    while True:
        head = pipe.peek(offset + 16)
        if len(head) < offset + 8 or offset > MAX_HEAD_BYTES:
            return True  # a file will say what is wrong with it
        size, kind = struct.unpack_from(">I4s", head, offset)
        if kind == b"moov":
            return False
        if kind == b"mdat":
            return True
        if size == 1 and len(head) >= offset + 16:
            size = struct.unpack_from(">Q", head, offset + 8)[0]
        if size < 8:
            return True
        offset += size


def on_disk(pipe: Pipe, name: str) -> BinaryIO:
    """All of a pipe as a file without a name, which is gone when it is closed.

    Raises:
        AudioError: there is no room for it.
    """
    file = None
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115  # closed by whoever reads it
        while data := pipe.read(COPIED_BYTES):
            file.write(data)
        file.seek(0)
    except OSError as error:
        if file is not None:
            file.close()
        raise AudioError(
            f"cannot keep {name} in {tempfile.gettempdir()}, which an MP4 with its index at the end needs: "
            f"{error.strerror}; give the name of the file instead of -"
        ) from error
    return file
