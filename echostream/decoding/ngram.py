"""Back-off n-gram language models over subwords, read from ARPA files (as KenLM and SRILM write them).

What a CTC head cannot know, since its outputs are independent given the audio, such a model knows from text alone:
which subwords follow each other.
"""

from __future__ import annotations

import gzip
import math
import os
from collections.abc import Sequence
from pathlib import Path

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
LN_10 = math.log(10)
FLOOR = -20.0  # nats, of a symbol that the model doesn't have


class NGramError(ValueError):
    """A language model that is missing, damaged or doesn't fit the dictionary."""


class NGramModel:
    """Log-probabilities of symbols after their predecessors.

    Args:
        probabilities: nats of each n-gram, a tuple of symbols.
        backoffs: nats added where the longer context is unknown.
        order: length of the longest n-gram.
    """

    def __init__(
        self,
        probabilities: dict[tuple[int, ...], float],
        backoffs: dict[tuple[int, ...], float],
        order: int,
        begin: int,
        end: int,
    ) -> None:
        self.probabilities, self.backoffs, self.order = probabilities, backoffs, order
        self.start: tuple[int, ...] = (begin,) if order > 1 else ()
        self.end = end

    def score(self, context: tuple[int, ...], symbol: int) -> float:
        """Nats of ``symbol`` after ``context``, at most ``order - 1`` symbols."""
        total = 0.0
        while True:
            found = self.probabilities.get((*context, symbol))
            if found is not None:
                return total + found
            if not context:
                return total + FLOOR
            total += self.backoffs.get(context, 0.0)
            context = context[1:]

    def after(self, context: tuple[int, ...], symbol: int) -> tuple[int, ...]:
        """The context of what follows ``symbol``."""
        return (*context, symbol)[-(self.order - 1) :] if self.order > 1 else ()


def no_language_model(begin: int, end: int) -> NGramModel:
    """A model that knows nothing and finds every symbol equally likely."""
    return NGramModel({}, {}, 1, begin, end)


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
    probabilities: dict[tuple[int, ...], float] = {}
    backoffs: dict[tuple[int, ...], float] = {}
    counts: dict[int, int] = {}
    order, line = 0, ""
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            for line in map(str.strip, file):
                if line.startswith("ngram "):
                    length, count = line[6:].split("=")
                    counts[int(length)] = int(count)
                elif line.endswith("-grams:"):
                    order = int(line[1:-7])
                elif line and not line.startswith("\\"):
                    prob, *words = line.split()
                    ngram = tuple([numbers[word] for word in words[:order] if word in numbers or _refuse(word, path)])
                    probabilities[ngram] = LN_10 * float(prob)
                    if len(words) > order:
                        backoffs[ngram] = LN_10 * float(words[order])
    except NGramError:
        raise
    except (OSError, EOFError, ValueError) as error:  # of gzip, of numbers, of the encoding
        raise NGramError(f"{path} is no ARPA language model, or damaged, at {line[:60]!r}: {error}") from error
    if not counts or sum(counts.values()) != len(probabilities):
        raise NGramError(
            f"{path} is no ARPA language model, or cut short: {len(probabilities)} n-grams "
            f"instead of the {sum(counts.values())} that it announces"
        )
    return NGramModel(probabilities, backoffs, max(counts), numbers[BEGIN], numbers[END])


def _refuse(word: str, path: Path) -> bool:
    raise NGramError(
        f"the language model {path} has the word {word!r}, which the source dictionary lacks: "
        "it must be made of this model's subwords (scripts/training/train_source_lm.py)"
    )
