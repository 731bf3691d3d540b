"""Columns of a table in contiguous arrays: rows of numbers, rows of text, and where an id stands.

A list of Python objects costs hundreds of bytes a row, and every worker process that merely reads it copies it, because
reading a Python object writes its reference count. A row here costs its content and eight bytes.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ragged:
    """Rows of whole numbers, each of its own length.

    Attributes:
        values: int16 or int32 ``(total,)``, the rows one after the other.
        offsets: int64 ``(rows + 1,)``; row ``i`` is ``values[offsets[i] : offsets[i + 1]]``.
    """

    values: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        """A view of one row."""
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """Length of every row, int64 ``(rows,)``."""
        return np.diff(self.offsets)

    @property
    def nbytes(self) -> int:
        """Bytes that the rows take."""
        return self.values.nbytes + self.offsets.nbytes

    def take(self, order: np.ndarray) -> Ragged:
        """The rows ``order``, int64 ``(n,)``, in that order."""
        lengths = self.lengths[order]
        offsets = np.concatenate([[0], lengths.cumsum()])
        where = np.repeat(self.offsets[:-1][order] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Ragged(self.values[where], offsets)

    def row_of(self, position: int) -> int:
        """The row that ``values[position]`` belongs to."""
        return int(np.searchsorted(self.offsets, position, side="right")) - 1

    @staticmethod
    def join(tables: Sequence[Ragged]) -> Ragged:
        """The rows of all tables, one table after the other; a single table is not copied."""
        if len(tables) == 1:
            return tables[0]
        lengths = np.concatenate([table.lengths for table in tables])
        offsets = np.concatenate([[0], lengths.cumsum()])
        return Ragged(np.concatenate([table.values for table in tables]), offsets)


class RaggedBuilder:
    """Collects the rows of a :class:`Ragged`, as int16 as long as all numbers fit; they are at most 2^31 - 1."""

    def __init__(self) -> None:
        self._values, self._offsets = array("h"), array("q", [0])

    def append(self, row: Iterable[int]) -> None:
        """Add a row."""
        numbers = list(row)
        try:
            self._values.extend(numbers)
        except OverflowError:
            self._values = array("i", self._values[: self._offsets[-1]])
            self._values.extend(numbers)
        self._offsets.append(len(self._values))

    def build(self) -> Ragged:
        """All rows. They are not copied, so that none can be added afterwards."""
        values = np.frombuffer(self._values, self._values.typecode) if self._values else np.zeros(0, np.int16)
        return Ragged(values, np.frombuffer(self._offsets, np.int64))


class Strings(Sequence[str]):
    """Rows of text, as UTF-8 in one block of bytes."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._bytes, self._offsets = bytearray(), array("q", [0])
        for text in texts:
            self.append(text)

    def append(self, text: str) -> None:
        """Add a row."""
        self._bytes += text.encode()
        self._offsets.append(len(self._bytes))

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, row: int) -> str:  # type: ignore[override]  # no slices
        row = range(len(self))[row]  # raises IndexError at the end, as iteration needs it
        return self._bytes[self._offsets[row] : self._offsets[row + 1]].decode()

    @property
    def nbytes(self) -> int:
        """Bytes that the rows take."""
        return len(self._bytes) + self._offsets.itemsize * len(self._offsets)


class IdIndex:
    """Finds the row of an id. Ids that are asked for in the order of the rows need no index at all."""

    def __init__(self, ids: Strings) -> None:
        self.ids = ids
        self._next = 0
        self._hashes: np.ndarray | None = None
        self._order: np.ndarray | None = None

    def find(self, name: str) -> int | None:
        """Row of the id ``name``; None if there is none."""
        row = self._next if self._next < len(self.ids) and self.ids[self._next] == name else self._search(name)
        if row is not None:
            self._next = row + 1
        return row

    def _search(self, name: str) -> int | None:
        if self._hashes is None or self._order is None:
            hashes = np.fromiter(map(hash, self.ids), np.int64, len(self.ids))
            self._order = np.argsort(hashes, kind="stable")
            self._hashes = hashes[self._order]
        for at in self._equal(hash(name)):
            if self.ids[self._order[at]] == name:
                return int(self._order[at])
        return None

    def _equal(self, value: int) -> Iterator[int]:
        assert self._hashes is not None
        at = int(np.searchsorted(self._hashes, value))
        while at < len(self._hashes) and self._hashes[at] == value:
            yield at
            at += 1
