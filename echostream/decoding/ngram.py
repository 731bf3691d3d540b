"""Back-off n-gram language models over subwords.

What a CTC head cannot know, since its outputs are independent given the audio, such a model knows from text alone:
which subwords follow each other.
"""

from __future__ import annotations

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
FLOOR = -20.0  # nats, of a symbol that the model doesn't have


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
