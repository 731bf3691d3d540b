"""Text to the subwords of a dictionary, where no SentencePiece model is at hand."""

from __future__ import annotations

from collections.abc import Sequence

from echostream.text import WORD_MARK


class SubwordError(ValueError):
    """A word that can't be written with the dictionary's subwords."""


class SubwordSplitter:
    """Splits words into as few subwords as there can be, longer ones first.

    SentencePiece's unigram model (Kudo 2018) takes the likeliest split instead, which is nearly always one of few
    subwords as well.

    Args:
        symbols: fairseq dictionary of SentencePiece's subwords, the four special symbols first.
    """

    def __init__(self, symbols: Sequence[str]) -> None:
        self.numbers = {symbol: number for number, symbol in enumerate(symbols) if number > 3}
        self.longest = max(map(len, self.numbers), default=0)
        self.characters = set("".join(self.numbers))

    def split(self, word: str, starts: bool = True) -> list[int]:
        """Dictionary indices of one word; none for a word without letters that the dictionary knows.

        Without ``starts`` it is the rest of a word, such as the ``'ve`` behind ``I``.

        A word that the dictionary lacks as it is written is taken in lower case. Marks that it lacks are left out, as
        they were from the texts of the training.

        Raises:
            SubwordError: a letter or digit that the dictionary lacks.
        """
        if not set(word) <= self.characters:
            word = word.lower()
        unknown = next((letter for letter in word if letter.isalnum() and letter not in self.characters), None)
        if unknown is not None:
            raise SubwordError(f"the model has no subword with {unknown!r}, as in {word!r}: spell it otherwise")
        word = "".join(letter for letter in word if letter in self.characters)
        if not word:
            return []
        marked = WORD_MARK + word if starts else word
        best: list[list[int] | None] = [[]]  # the split of each beginning
        for end in range(1, len(marked) + 1):
            splits = []
            for start in range(max(0, end - self.longest), end):
                number, before = self.numbers.get(marked[start:end]), best[start]
                if number is not None and before is not None:
                    splits.append([*before, number])
            best.append(min(splits, key=len, default=None))
        if best[-1] is None:
            raise SubwordError(f"the model has no subwords for {word!r}: spell it otherwise")
        return best[-1]
