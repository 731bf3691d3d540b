"""Subwords, text and the distance between texts."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path

import numpy as np

WORD_MARK = "▁"  # SentencePiece's mark of a word's first subword


def split_lines(text: str) -> list[str]:
    """The lines of a text, without their ends: LF, CR LF or CR.

    ``str.splitlines`` ends lines at U+2028, U+0085 and others as well, which may stand within a text.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.removesuffix("\n").split("\n") if text else []


def text_lines(path: str | os.PathLike[str], errors: str = "strict") -> list[str]:
    """The lines of a UTF-8 file, see :func:`split_lines`.

    Raises:
        OSError, UnicodeDecodeError: missing, not to be read, or not UTF-8 where ``errors`` is ``strict``.
    """
    return split_lines(Path(path).read_text(encoding="utf-8", errors=errors))


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


def word_errors(hypotheses: Iterable[str], references: Iterable[str]) -> tuple[int, int]:
    """Count the word errors of all pairs of texts, and the words of the references.

    Words are what lies between spaces.

    Raises:
        ValueError: there are more texts of one kind than of the other.
    """
    errors = words = 0
    for hypothesis, reference in zip(hypotheses, references, strict=True):
        said = reference.split()
        errors += edit_distance(hypothesis.split(), said)
        words += len(said)
    return errors, words
