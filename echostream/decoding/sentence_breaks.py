"""Where one sentence of the source ends and the next begins, by what is said and by the pauses.

A hidden-event language model (Stolcke and Shriberg, *Automatic linguistic segmentation of conversational speech*, ICSLP
1996): between two words, the n-gram model of sentences says how much likelier it is that one ends and another begins
than that one goes on, and a pause speaks for it. It looks one word ahead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from echostream.constants import FRAME_MS
from echostream.decoding.ngram import NGramModel
from echostream.decoding.word_boundary import SourceWord
from echostream.modules.state import State

# Chosen on 120 dev sentences, each alone and ten on end (docs/results.md, Long speech).
LEAST_NATS = 10.0  # for a break, of both kinds of evidence
NATS_PER_S = 15.0  # of a pause
LONGEST_PAUSE_S = 1.0  # that is more evidence than a shorter one


@dataclass
class SentenceBreakState(State):
    """What comes before the next word."""

    context: tuple[int, ...]  # of the language model
    last_frame: int | None = None  # of the last word


class SentenceBreakDetector:
    """Finds sentence breaks between recognised words.

    Args:
        language_model: of texts with one sentence a line, over the subwords that the words consist of.
        frame_ms: duration of an encoder frame.

    Attributes:
        least_nats: evidence that makes a break; ``math.inf`` finds none.
    """

    def __init__(self, language_model: NGramModel, frame_ms: int = FRAME_MS) -> None:
        self.language_model, self.frame_ms = language_model, frame_ms
        self.least_nats = LEAST_NATS

    def init_state(self) -> SentenceBreakState:
        return SentenceBreakState(self.language_model.start)

    def find(self, words: Sequence[SourceWord], state: SentenceBreakState) -> tuple[list[int], SentenceBreakState]:
        """The breaks before new ``words``, as frames (the middle of each pause), and the next state."""
        breaks = []
        last_context, last_frame = state.context, state.last_frame
        for word in words:
            start, end = word.frames(self.frame_ms)
            goes_on, context = self._score(last_context, word.symbols)
            if last_frame is not None and not word.joined:
                begins, fresh_context = self._score(self.language_model.start, word.symbols)
                ends = self.language_model.score(last_context, self.language_model.end)
                pause_s = min((start - last_frame - 1) * self.frame_ms / 1000, LONGEST_PAUSE_S)
                if ends + begins - goes_on + NATS_PER_S * pause_s >= self.least_nats:
                    breaks.append((last_frame + start + 1) // 2)
                    context = fresh_context
            last_context, last_frame = context, end
        return breaks, SentenceBreakState(last_context, last_frame)

    def _score(self, context: tuple[int, ...], symbols: Sequence[int]) -> tuple[float, tuple[int, ...]]:
        """Nats of ``symbols`` after ``context``, and the context after them."""
        nats = 0.0
        for symbol in symbols:
            nats += self.language_model.score(context, symbol)
            context = self.language_model.after(context, symbol)
        return nats, context
