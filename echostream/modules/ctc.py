"""CTC (Graves et al. 2006): greedy reading of a stream of frame classes.

Reading is incremental: the state is the class of the last frame, because a repeated class is one symbol only if no
blank lies between. What is read never depends on how the frames were cut into pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from echostream.modules.state import State

BLANK = 0


@dataclass
class CTCReader(State):
    """Greedy collapse of a stream of frame classes; the class of the last frame is all that it remembers."""

    last: int = BLANK

    def read(self, classes: Sequence[int]) -> tuple[list[tuple[int, int]], CTCReader]:
        """New symbols in ``classes`` as ``(frame index within the call, symbol)``, and the reader of what follows."""
        symbols = []
        last = self.last
        for frame, label in enumerate(classes):
            if label != BLANK and label != last:
                symbols.append((frame, label))
            last = label
        return symbols, CTCReader(last)


def greedy_collapse(classes: Tensor, lengths: Tensor) -> list[list[int]]:
    """Symbols of each row of ``(B, T)`` frame classes, repeats merged and blanks removed."""
    rows = zip(classes.tolist(), lengths.tolist(), strict=True)
    return [[symbol for _, symbol in CTCReader().read(row[:length])[0]] for row, length in rows]


def symbol_counts(classes: Tensor) -> Tensor:
    """``(B, T)`` frame classes to the number of symbols read up to and including each frame, ``(B, T)``."""
    fresh = classes != BLANK
    fresh[:, 1:] &= classes[:, 1:] != classes[:, :-1]
    return fresh.long().cumsum(dim=1)
