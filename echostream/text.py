"""Subwords, text and the distance between texts."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

WORD_MARK = "▁"  # SentencePiece's mark of a word's first subword


def pieces_to_text(pieces: Sequence[str]) -> str:
    """SentencePiece subwords to text, a leading space kept where a word begins."""
    return "".join(pieces).replace(WORD_MARK, " ")


def edit_distance(hypothesis: Sequence[Hashable], reference: Sequence[Hashable]) -> int:
    """Levenshtein distance: fewest insertions, deletions and substitutions that turn ``hypothesis`` into ``reference``.

    A row of the dynamic programme depends on itself only through insertions, which cost one a step;
    subtracting the column number turns that into a running minimum, so each row is a few vector operations.
    """
    numbers: dict[Hashable, int] = {}
    left = np.array([numbers.setdefault(item, len(numbers)) for item in hypothesis], dtype=np.int64)
    right = np.array([numbers.setdefault(item, len(numbers)) for item in reference], dtype=np.int64)
    columns = np.arange(len(right) + 1)
    row = columns.copy()
    for item in left:
        best = row + 1
        best[1:] = np.minimum(best[1:], row[:-1] + (right != item))
        row = np.minimum.accumulate(best - columns) + columns
    return int(row[-1])
