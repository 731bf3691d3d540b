"""Source text from the ASR CTC by prefix beam search with a language model, as the stream goes on.

Prefix beam search is of Graves and Jaitly (2014) and Hannun et al. (2014): a reading's score is
``log P_ctc + weight log P_lm + bonus |symbols|``. A word is given out when all readings that come near the best
agree on it and on the beginning of the next, when a pause follows, or when it has been open for long; what is given out
stays, and readings without it are dropped. So the state is bounded, and the cost of a frame too.

The policy doesn't wait for this: it counts greedy words, as in training (:class:`WordBoundaryDetector`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import nlargest

from torch import Tensor

from echostream.constants import FRAME_S
from echostream.decoding.ngram import NGramModel
from echostream.decoding.word_boundary import SourceWord
from echostream.decoding.words import PAUSE_FRAMES
from echostream.modules.ctc import BLANK
from echostream.modules.state import State
from echostream.text import WORD_MARK, pieces_to_text

CANDIDATES = 12  # symbols tried at a frame
LEAST_LOG_PROB = -9.0  # of a symbol that is tried
OPEN_FRAMES = 50  # 2 s, after which readings need not agree any more
OPEN_SYMBOLS = 64
DOUBT = 3.0  # nats below the best, from which on a reading isn't asked any more
LM_WEIGHT, LM_BONUS = 0.8, 2.0
SENTENCE_PAUSE_FRAMES = 25  # 1 s
NEVER = -math.inf


@dataclass(slots=True)
class Reading:
    """A hypothesis about what was said since the last word that was given out.

    Attributes:
        symbols: subwords.
        frames: where each was first heard, counted from the stream's start.
        blank, symbol: log-probability of its paths that end in a blank, and of those that end in its last symbol.
        prior: what language model and bonus add.
        context: of the language model.
    """

    symbols: tuple[int, ...]
    frames: tuple[int, ...]
    blank: float
    symbol: float
    prior: float
    context: tuple[int, ...]

    @property
    def score(self) -> float:
        return add_logs(self.blank, self.symbol) + self.prior


@dataclass
class TranscriberState(State):
    """Readings, the best first, and what they have in common."""

    readings: list[Reading] = field(default_factory=list)
    frame: int = 0
    last: int = BLANK  # the last symbol that was given out
    last_frame: int = 0  # where it was heard
    bare: bool = False  # it was a mark alone, whose letters may follow


class SourceTranscriber:
    """Reads the ASR CTC's log-probabilities as words.

    Args:
        symbols: the source dictionary.
        language_model: over the same.
        weight: of the language model.
        bonus: nats for each symbol, against the language model's liking for few.
        beam: readings kept.
    """

    def __init__(
        self,
        symbols: Sequence[str],
        language_model: NGramModel,
        weight: float = LM_WEIGHT,
        bonus: float = LM_BONUS,
        beam: int = 16,
    ) -> None:
        self.symbols = list(symbols)
        self.begins = [symbol.startswith(WORD_MARK) for symbol in self.symbols]
        self.language_model, self.weight, self.bonus, self.beam = language_model, weight, bonus, beam

    def init_state(self) -> TranscriberState:
        return TranscriberState([Reading((), (), 0.0, NEVER, 0.0, self.language_model.start)])

    def read(self, log_probs: Tensor, state: TranscriberState, is_last: bool = False) -> list[SourceWord]:
        """Words that new frames ``(T, classes)`` settle; all there are when the source ends. Changes ``state``."""
        words: list[SourceWord] = []
        best = log_probs.topk(min(CANDIDATES, log_probs.size(-1)))
        blanks = log_probs[:, BLANK].tolist()
        for blank, values, classes in zip(blanks, best.values.tolist(), best.indices.tolist(), strict=True):
            candidates = {label: value for label, value in zip(classes, values, strict=True) if value > LEAST_LOG_PROB}
            self._advance(blank, candidates, state)
            state.frame += 1
            words += self._settle(state)
        if is_last:
            lm = self.language_model
            for reading in state.readings:
                reading.prior += self.weight * lm.score(reading.context, lm.end)
            state.readings.sort(key=lambda reading: -reading.score)
            words += self._give_out(len(state.readings[0].symbols), state)
        return words

    def _advance(self, blank: float, candidates: dict[int, float], state: TranscriberState) -> None:
        """One frame: every reading stays as it is, or goes on with one of the candidates."""
        found: dict[tuple[int, ...], Reading] = {}
        for reading in state.readings:
            total = add_logs(reading.blank, reading.symbol)
            last = reading.symbols[-1] if reading.symbols else state.last
            repeated = reading.symbol + candidates.get(last, NEVER)
            _add(found, reading.symbols, reading.frames, total + blank, repeated, reading.prior, reading.context)
            for label, value in candidates.items():
                # A repeated class is one symbol, but for a blank between.
                before = reading.blank if label == last else total
                if label == BLANK or before == NEVER:
                    continue
                symbols = (*reading.symbols, label)
                known = found.get(symbols)
                if known is not None:
                    known.symbol = add_logs(known.symbol, before + value)
                    continue
                lm = self.language_model
                prior = reading.prior + self.weight * lm.score(reading.context, label) + self.bonus
                frames = (*reading.frames, state.frame)
                found[symbols] = Reading(
                    symbols, frames, NEVER, before + value, prior, lm.after(reading.context, label)
                )
        state.readings = nlargest(self.beam, found.values(), key=lambda reading: reading.score)

    def _settle(self, state: TranscriberState) -> list[SourceWord]:
        """Give out what need not wait."""
        best = state.readings[0]
        if not best.symbols:
            if state.frame - state.last_frame == SENTENCE_PAUSE_FRAMES:  # what comes next begins a sentence
                best.context = self.language_model.start
            return []
        if state.frame - best.frames[-1] > PAUSE_FRAMES or len(best.symbols) > OPEN_SYMBOLS:
            return self._give_out(len(best.symbols), state)
        starts = [place for place, symbol in enumerate(best.symbols) if place and self.begins[symbol]]
        if state.frame - best.frames[0] <= OPEN_FRAMES:
            least = best.score - DOUBT
            others = [reading for reading in state.readings[1:] if reading.score > least]
            starts = [
                start
                for start in starts
                if all(reading.symbols[: start + 1] == best.symbols[: start + 1] for reading in others)
            ]
        return self._give_out(starts[-1], state) if starts else []

    def _give_out(self, count: int, state: TranscriberState) -> list[SourceWord]:
        """The first ``count`` symbols of the best reading as words, which all others must have too."""
        best = state.readings[0]
        given, frames, score, prior = best.symbols[:count], best.frames[:count], best.score, best.prior
        if not given:
            return []
        state.readings = [reading for reading in state.readings if reading.symbols[:count] == given]
        for reading in state.readings:
            reading.symbols, reading.frames = reading.symbols[count:], reading.frames[count:]
            # Only differences matter, and sums that grow for an hour would lose them.
            reading.blank -= score - prior
            reading.symbol -= score - prior
            reading.prior -= prior
        state.last, state.last_frame = given[-1], frames[-1]
        starts = [place for place in range(count) if not place or self.begins[given[place]]]
        words = []
        for start, end in zip(starts, [*starts[1:], count], strict=True):
            text = pieces_to_text([self.symbols[symbol] for symbol in given[start:end]]).strip()
            joined = not self.begins[given[start]] and not state.bare
            state.bare = not text
            if text:
                words.append(SourceWord(text, frames[start] * FRAME_S, (frames[end - 1] + 1) * FRAME_S, joined))
        return words


def _add(
    found: dict[tuple[int, ...], Reading],
    symbols: tuple[int, ...],
    frames: tuple[int, ...],
    blank: float,
    symbol: float,
    prior: float,
    context: tuple[int, ...],
) -> None:
    """Paths of the same symbols are one reading."""
    known = found.get(symbols)
    if known is None:
        found[symbols] = Reading(symbols, frames, blank, symbol, prior, context)
    else:
        known.blank, known.symbol = add_logs(known.blank, blank), add_logs(known.symbol, symbol)
        known.frames = frames


def add_logs(first: float, second: float) -> float:
    """``log(exp(first) + exp(second))``."""
    if first < second:
        first, second = second, first
    return first + math.log1p(math.exp(second - first)) if second > NEVER else first
