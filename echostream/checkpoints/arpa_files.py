"""ARPA files of n-gram language models, as KenLM and SRILM write them."""

from __future__ import annotations

import math
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from echostream.checkpoints.errors import UnsafeFileError
from echostream.checkpoints.text_files import read_lines
from echostream.decoding.ngram import BEGIN, END, NGramModel

MAX_ORDER, MAX_NGRAMS = 20, 20_000_000
MAX_OTHER_LINES = 10_000  # empty ones and headings: a small gzipped file may stand for any number of them
# Log-probabilities to base 10; SRILM writes -99 for what can't be. Back-off weights may be above 0.
LEAST_PROBABILITY, LARGEST_BACKOFF = -1_000.0, 1_000.0
LN_10 = math.log(10)


class NGramError(ValueError):
    """A language model that is missing, damaged or doesn't fit the dictionary."""


def load_arpa(path: str | os.PathLike[str], symbols: Sequence[str]) -> NGramModel:
    """Read an ARPA file, gzipped if its name ends in ``.gz``.

    Args:
        path: of the file; its words are subwords of the model.
        symbols: the model's source dictionary, whose numbers stand for them.

    Raises:
        NGramError: no such file, one that is damaged, or one with words that the dictionary lacks.
    """
    path = Path(path)
    if not path.is_file():
        raise NGramError(f"no language model at {path}: scripts/training/train_source_lm.py makes one")
    numbers = {symbol: number for number, symbol in enumerate(symbols)}
    if lacking := [symbol for symbol in (BEGIN, END) if symbol not in numbers]:
        raise NGramError(f"{path} can't be used: the source dictionary of the model has no {lacking[0]}")
    tables = _Tables(path, numbers)
    try:
        for line in read_lines(path):
            tables.add(line)
    except UnsafeFileError as error:
        raise NGramError(f"{path} is no ARPA language model, or damaged: {error}") from error
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise NGramError(f"{path} is no ARPA language model, or damaged: {reason}") from error
    return tables.model()


class _Tables:
    """The n-grams of a file as its lines come; it never holds more of them than the file has announced."""

    def __init__(self, path: Path, numbers: Mapping[str, int]) -> None:
        self._path, self._numbers = path, numbers
        self._probabilities: dict[tuple[int, ...], float] = {}
        self._backoffs: dict[tuple[int, ...], float] = {}
        self._announced: dict[int, int] = {}
        self._order = 0
        self._left = 0  # n-grams of the current order still to come
        self._others = 0

    def add(self, line: str) -> None:
        """Take in a line.

        Raises:
            NGramError: one that no such file has.
        """
        try:
            if line.startswith("ngram "):
                self._announce(line[6:])
            elif line.startswith("\\") and line.endswith("-grams:"):
                self._begin(int(line[1:-7]))
            elif line and not line.startswith("\\"):
                self._ngram(line)
            elif (others := self._others + 1) > MAX_OTHER_LINES:
                raise ValueError(f"more than {MAX_OTHER_LINES:,} lines hold no n-gram")
            else:
                self._others = others
        except NGramError:
            raise
        except ValueError as error:
            raise self._damaged(line, str(error)) from error

    def model(self) -> NGramModel:
        """The language model, once all lines have come.

        Raises:
            NGramError: there are fewer n-grams than announced, or none.
        """
        total = sum(self._announced.values())
        if not total or total != len(self._probabilities):
            raise NGramError(
                f"{self._path} is no ARPA language model, or cut short: {len(self._probabilities)} n-grams "
                f"instead of the {total} that it announces"
            )
        begin, end = self._numbers[BEGIN], self._numbers[END]
        return NGramModel(self._probabilities, self._backoffs, max(self._announced), begin, end)

    def _announce(self, text: str) -> None:
        order, count = map(int, text.split("="))
        if not 1 <= order <= MAX_ORDER or not 0 <= count <= MAX_NGRAMS or order in self._announced:
            raise ValueError(f"up to {MAX_NGRAMS:,} n-grams of each length from 1 to {MAX_ORDER} can be read")
        self._announced[order] = count

    def _begin(self, order: int) -> None:
        if order not in self._announced:
            raise ValueError(f"n-grams of length {order} are not announced")
        self._order, self._left = order, self._announced[order]

    def _ngram(self, line: str) -> None:
        probability, *words = re.split(r"[ \t]+", line)  # other spaces may be parts of words
        nats = float(probability)  # first, since text of another kind is found out by it
        if len(words) not in (self._order, self._order + 1) or not self._order:
            raise ValueError(f"a number, {self._order} words and perhaps another number are expected")
        ngram = tuple(self._number(word) for word in words[: self._order])
        if not LEAST_PROBABILITY <= nats <= 0:
            raise ValueError(f"{probability} is no log-probability")
        if not self._left or ngram in self._probabilities:
            raise ValueError("it stands there twice, or there are more n-grams than announced")
        self._left -= 1
        self._probabilities[ngram] = LN_10 * nats
        if len(words) > self._order:
            backoff = float(words[-1])
            if not abs(backoff) <= LARGEST_BACKOFF:
                raise ValueError(f"{words[-1]} is no back-off weight")
            self._backoffs[ngram] = LN_10 * backoff

    def _number(self, word: str) -> int:
        number = self._numbers.get(word)
        if number is None:
            raise NGramError(
                f"the language model {self._path} has the word {word[:80]!r}, which the source dictionary lacks: "
                "it must be made of this model's subwords (scripts/training/train_source_lm.py)"
            )
        return number

    def _damaged(self, line: str, reason: str) -> NGramError:
        short = reason if len(reason) <= 160 else f"{reason[:157]}..."
        return NGramError(f"{self._path} is no ARPA language model, or damaged, at {line[:60]!r}: {short}")
