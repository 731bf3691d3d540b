"""CTC (Graves et al. 2006) of a stream: which symbols the greedy path has, and how many are to be expected.

Both are incremental. The state is the last frame's class or class probabilities, which tell whether the next frame
repeats a symbol or starts a new one. The result does not depend on how the frames are split into calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from echostream.modules.state import State

BLANK = 0
ROUND = 0.5  # a symbol counts as soon as it is likelier than not


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


def symbol_starts(logits: Tensor, before: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """How likely each frame is to start a symbol.

    The frames of a path are independent given the audio (Graves et al. 2006, equation 2), so that frame ``t`` starts
    one with probability ``sum over v of p_t(v) (1 - p_{t-1}(v))``, ``v`` being the classes other than the blank.

    Args:
        logits: ``(B, T, classes)``, T at least 1.
        before: ``(B, classes - 1)`` probabilities in the frame before the first, without the blank's; None: none.

    Returns:
        ``(B, T)`` probabilities, and ``before`` of the frame that follows.
    """
    symbols = logits.float().softmax(dim=-1)[..., BLANK + 1 :]
    first = torch.zeros_like(symbols[:, :1]) if before is None else before[:, None]
    previous = torch.cat([first, symbols[:, :-1]], dim=1)
    return (symbols * (1 - previous)).sum(dim=-1), symbols[:, -1]


def expected_counts(logits: Tensor) -> Tensor:
    """Whole symbols to be expected up to and including each frame: ``(B, T, classes)`` to int64 ``(B, T)``."""
    return (symbol_starts(logits)[0].double().cumsum(dim=1) + ROUND).floor().long()


@dataclass
class ExpectedCounter(State):
    """Incremental :func:`expected_counts`.

    Where a head is sure of what it reads, it counts the symbols of the greedy path. One that knows that a word is due,
    but not which, gives the blank the highest probability in every frame: its greedy path has next to nothing, while
    the expectation still says how much there is.

    Attributes:
        before: ``(1, classes - 1)`` probabilities in the last frame, see :func:`symbol_starts`.
        rest: what is left of the expectation beyond whole symbols, and a half, so that it is rounded to the nearest.
    """

    before: Tensor | None = None
    rest: float = ROUND

    def read(self, logits: Tensor) -> tuple[list[int], ExpectedCounter]:
        """Count in the next frames.

        Args:
            logits: ``(T, classes)``.

        Returns:
            The frames, within this call, at which one symbol more is to be expected, and the counter for those that
            follow.
        """
        return count_expected(logits[None], [self])[0]


def count_expected(logits: Tensor, counters: Sequence[ExpectedCounter]) -> list[tuple[list[int], ExpectedCounter]]:
    """:meth:`ExpectedCounter.read` for several streams: logits ``(B, T, classes)`` and a counter for each row."""
    if not logits.size(1):
        return [([], counter) for counter in counters]
    none = logits.new_zeros(1, logits.size(2) - 1, dtype=torch.float32)
    before = torch.cat([counter.before if counter.before is not None else none for counter in counters])
    starts, following = symbol_starts(logits, before)
    counted = []
    for counter, row, after in zip(counters, starts.tolist(), following.split(1), strict=True):
        frames, rest = [], counter.rest
        for frame, probability in enumerate(row):
            rest += probability
            if rest >= 1:  # a probability is at most 1, so that a frame brings one symbol at most
                rest -= 1
                frames.append(frame)
        counted.append((frames, ExpectedCounter(after.clone(), rest)))
    return counted
