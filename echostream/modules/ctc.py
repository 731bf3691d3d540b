"""CTC (Graves et al. 2006): greedy decoding of a stream of frame classes.

Decoding is incremental. Its state is the class of the last frame, which tells whether the next frame repeats a symbol
or starts a new one. The result does not depend on how the frames are split into calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from echostream.modules.state import State

BLANK = 0


@dataclass
class CTCReader(State):
    """Incremental greedy collapse of frame classes.

    Attributes:
        last: class of the last frame.
    """

    last: int = BLANK

    def read(self, classes: Sequence[int]) -> tuple[list[tuple[int, int]], CTCReader]:
        """Collapse the next frames.

        Returns:
            New symbols as ``(frame index within this call, symbol)``, and the reader for the frames that follow.
        """
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
    starts_symbol = classes != BLANK
    starts_symbol[:, 1:] &= classes[:, 1:] != classes[:, :-1]
    return starts_symbol.long().cumsum(dim=1)
