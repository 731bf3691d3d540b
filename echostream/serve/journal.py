"""What a session has sent last, in case that its client comes back without having got it."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Entry:
    """An output: its number, its message, and its speech, which may be empty."""

    seq: int
    message: dict[str, Any]
    speech: bytes

    @property
    def size(self) -> int:
        """About how many bytes it has."""
        return len(self.speech) + len(json.dumps(self.message))


class Journal:
    """The last outputs of a session, in order, up to a size.

    Args:
        max_bytes: the oldest are dropped beyond this.
        entries: of a journal that is to be continued.
    """

    def __init__(self, max_bytes: int, entries: Sequence[Entry] = ()) -> None:
        self.max_bytes = max_bytes
        self._entries: deque[tuple[Entry, int]] = deque()
        self._bytes = 0
        for entry in entries:
            self.add(entry)

    def add(self, entry: Entry) -> None:
        """Keep an output."""
        self._entries.append((entry, entry.size))
        self._bytes += entry.size
        while self._bytes > self.max_bytes:
            self._bytes -= self._entries.popleft()[1]

    def since(self, seq: int, last: int) -> list[Entry] | None:
        """The outputs after number ``seq`` up to ``last``; None if some of them were dropped."""
        found = [entry for entry, _ in self._entries if entry.seq > seq]
        return found if len(found) == max(0, last - seq) else None

    @property
    def entries(self) -> list[Entry]:
        return [entry for entry, _ in self._entries]
