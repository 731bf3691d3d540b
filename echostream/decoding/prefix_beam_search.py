"""Source text from the ASR CTC by prefix beam search with a language model, while the stream goes on.

Prefix beam search is that of Graves and Jaitly (2014) and Hannun et al. (2014): the score of a hypothesis is
``log P_ctc + weight * log P_lm + bonus * number of symbols``. A word is finalised when all hypotheses that come near
the best one agree on it and on the beginning of the next word, when a pause follows, or when it has stayed open for
long. A finalised word is never changed: hypotheses without it are dropped. So the state is bounded, and with it the
cost of a frame.

The policy does not wait for this search: it counts the words of the greedy path, as in training
(:class:`echostream.decoding.word_boundary.WordBoundaryDetector`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from heapq import nlargest

from torch import Tensor

from echostream.constants import FRAME_MS, LM_BONUS, LM_WEIGHT
from echostream.decoding.ngram import NGramModel
from echostream.decoding.word_boundary import SourceWord
from echostream.decoding.words import PAUSE_MS
from echostream.modules.ctc import BLANK
from echostream.modules.state import State, StatePart
from echostream.text import WORD_MARK, pieces_to_text

CANDIDATES = 12  # symbols that are tried at each frame
LEAST_LOG_PROB = -9.0  # of a symbol that is tried
OPEN_MS = 2000  # after that, a word is finalised even where hypotheses disagree
OPEN_SYMBOLS = 64
AGREEMENT_NATS = 3.0  # hypotheses that score lower than the best by more than this have no say
SENTENCE_PAUSE_MS = 1000
NEVER = -math.inf

SymbolSpan = tuple[tuple[int, ...], tuple[int, ...]]  # symbols, and the frame at which each was read
FrameCandidates = tuple[float, dict[int, float]]  # log-probability of the blank, and of the symbols that are tried


@dataclass(slots=True)
class CTCHypothesis(StatePart):
    """What may have been said since the last finalised word.

    Attributes:
        symbols: subwords.
        frames: the frame, counted from the stream's start, at which each subword was first read.
        blank, symbol: log-probability of the paths that end in a blank, and of those that end in the last subword.
        prior: what the language model and the bonus add to the score.
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
        """Log-probability of all paths, with the prior."""
        return add_logs(self.blank, self.symbol) + self.prior


@dataclass
class TranscriberState(State):
    """Hypotheses, the best one first, and what they all have in common."""

    hypotheses: list[CTCHypothesis] = field(default_factory=list)
    frame: int = 0
    last_symbol: int = BLANK  # the last symbol that was finalised
    last_frame: int = 0  # the frame at which it was read
    after_mark: bool = False  # the last word was the mark of a word's beginning alone, whose letters may follow

    def copy(self) -> TranscriberState:
        """A state that can be changed without a trace in this one."""
        return replace(self, hypotheses=[replace(hypothesis) for hypothesis in self.hypotheses])


class SourceTranscriber:
    """Turns log-probabilities of the ASR CTC into words.

    Args:
        symbols: the source dictionary.
        language_model: n-gram model over the same symbols.
        weight: of the language model's log-probabilities.
        bonus: nats added for each symbol, since the language model favours short texts.
        beam: hypotheses that are kept.
        frame_ms: duration of an encoder frame.
    """

    def __init__(
        self,
        symbols: Sequence[str],
        language_model: NGramModel,
        weight: float = LM_WEIGHT,
        bonus: float = LM_BONUS,
        beam: int = 16,
        frame_ms: int = FRAME_MS,
    ) -> None:
        self.symbols = list(symbols)
        self.starts_word = [symbol.startswith(WORD_MARK) for symbol in self.symbols]
        self.language_model, self.weight, self.bonus, self.beam = language_model, weight, bonus, beam
        self.frame_ms = frame_ms

    def init_state(self) -> TranscriberState:
        """The state of a fresh stream: one empty hypothesis."""
        return TranscriberState([CTCHypothesis((), (), 0.0, NEVER, 0.0, self.language_model.start)])

    def step(
        self, log_probs: Tensor, state: TranscriberState, is_last: bool = False
    ) -> tuple[list[SourceWord], TranscriberState]:
        """Words that new frames ``(T, classes)`` finalise, and the next state; all words when the source ends."""
        return self.step_batch(log_probs[None], [state], is_last)[0]

    def step_batch(
        self, log_probs: Tensor, states: Sequence[TranscriberState], is_last: bool = False
    ) -> list[tuple[list[SourceWord], TranscriberState]]:
        """:meth:`step` for several streams: ``(B, T, classes)`` and a state for each row."""
        stepped = []
        for frames, before in zip(frame_candidates(log_probs), states, strict=True):
            spans, state = self._search(frames, before, is_last)
            stepped.append(([word for span in spans for word in self._words(span, state)], state))
        return stepped

    def search(
        self, log_probs: Tensor, state: TranscriberState, is_last: bool = False
    ) -> tuple[list[SymbolSpan], TranscriberState]:
        """As :meth:`step`, but the symbols with the frames at which they were read, as they are finalised."""
        return self._search(frame_candidates(log_probs[None])[0], state, is_last)

    def _search(
        self, frames: Sequence[FrameCandidates], state: TranscriberState, is_last: bool
    ) -> tuple[list[SymbolSpan], TranscriberState]:
        state = state.copy()
        spans: list[SymbolSpan] = []
        # Hypotheses share their contexts, and keep them for as long as nothing is added to them.
        priors: dict[tuple[tuple[int, ...], int], float] = {}
        for blank, candidates in frames:
            state.hypotheses = self._extend(blank, candidates, state, priors)
            state.frame += 1
            spans += self._finalise_agreed(state)
        if is_last:
            lm = self.language_model
            for hypothesis in state.hypotheses:
                hypothesis.prior += self.weight * lm.score(hypothesis.context, lm.end)
            state.hypotheses.sort(key=lambda hypothesis: -hypothesis.score)
            spans += self._finalise(len(state.hypotheses[0].symbols), state)
        return spans, state

    def _extend(
        self,
        blank: float,
        candidates: dict[int, float],
        state: TranscriberState,
        priors: dict[tuple[tuple[int, ...], int], float],
    ) -> list[CTCHypothesis]:
        """One frame: every hypothesis stays as it is, or goes on with one of the candidates.

        ``priors`` remembers what a symbol adds to the score in a context.
        """
        found: dict[tuple[int, ...], CTCHypothesis] = {}
        for hypothesis in state.hypotheses:
            total = add_logs(hypothesis.blank, hypothesis.symbol)
            last = hypothesis.symbols[-1] if hypothesis.symbols else state.last_symbol
            repeated = hypothesis.symbol + candidates.get(last, NEVER)
            _merge(found, replace(hypothesis, blank=total + blank, symbol=repeated))
            for label, value in candidates.items():
                # A repeated class is the same symbol unless a blank lies between.
                before = hypothesis.blank if label == last else total
                if label == BLANK or before == NEVER:
                    continue
                symbols = (*hypothesis.symbols, label)
                known = found.get(symbols)
                if known is not None:
                    known.symbol = add_logs(known.symbol, before + value)
                    continue
                place = hypothesis.context, label
                scaled = priors.get(place)
                if scaled is None:
                    scaled = priors[place] = self.weight * self.language_model.score(*place)
                prior = hypothesis.prior + scaled + self.bonus
                frames = (*hypothesis.frames, state.frame)
                context = self.language_model.after(*place)
                found[symbols] = CTCHypothesis(symbols, frames, NEVER, before + value, prior, context)
        return nlargest(self.beam, found.values(), key=lambda hypothesis: hypothesis.score)

    def _finalise_agreed(self, state: TranscriberState) -> list[SymbolSpan]:
        """Finalise what need not wait for more evidence."""
        best = state.hypotheses[0]
        if not best.symbols:
            # What comes next begins a sentence. A word that was less likely than silence before it is given up: it
            # would otherwise wait for minutes, until one comes that goes well with it.
            pause = SENTENCE_PAUSE_MS // self.frame_ms
            if state.frame - state.last_frame == pause:
                best.context = self.language_model.start
            state.hypotheses = [
                one for one in state.hypotheses if not one.symbols or state.frame - one.frames[0] <= pause
            ]
            return []
        if state.frame - best.frames[-1] > PAUSE_MS // self.frame_ms or len(best.symbols) > OPEN_SYMBOLS:
            return self._finalise(len(best.symbols), state)
        starts = [place for place, symbol in enumerate(best.symbols) if place and self.starts_word[symbol]]
        if state.frame - best.frames[0] <= OPEN_MS // self.frame_ms:
            least = best.score - AGREEMENT_NATS
            others = [hypothesis for hypothesis in state.hypotheses[1:] if hypothesis.score > least]
            starts = [
                start
                for start in starts
                if all(hypothesis.symbols[: start + 1] == best.symbols[: start + 1] for hypothesis in others)
            ]
        return self._finalise(starts[-1], state) if starts else []

    def _finalise(self, count: int, state: TranscriberState) -> list[SymbolSpan]:
        """The first ``count`` symbols of the best hypothesis, if any; hypotheses without them are dropped."""
        best = state.hypotheses[0]
        symbols, frames, score, prior = best.symbols[:count], best.frames[:count], best.score, best.prior
        if not symbols:
            return []
        state.hypotheses = [hypothesis for hypothesis in state.hypotheses if hypothesis.symbols[:count] == symbols]
        for hypothesis in state.hypotheses:
            hypothesis.symbols, hypothesis.frames = hypothesis.symbols[count:], hypothesis.frames[count:]
            # Only differences between hypotheses matter, and sums that grow for an hour would lose them.
            hypothesis.blank -= score - prior
            hypothesis.symbol -= score - prior
            hypothesis.prior -= prior
        state.last_symbol, state.last_frame = symbols[-1], frames[-1]
        return [(symbols, frames)]

    def _words(self, span: SymbolSpan, state: TranscriberState) -> list[SourceWord]:
        """Symbols that were finalised together, as words."""
        symbols, frames = span
        starts = [place for place in range(len(symbols)) if not place or self.starts_word[symbols[place]]]
        words = []
        for start, end in zip(starts, [*starts[1:], len(symbols)], strict=True):
            text = pieces_to_text([self.symbols[symbol] for symbol in symbols[start:end]]).strip()
            joined = not self.starts_word[symbols[start]] and not state.after_mark
            state.after_mark = not text
            if text:
                start_s, end_s = (frame * self.frame_ms / 1000 for frame in (frames[start], frames[end - 1] + 1))
                words.append(SourceWord(text, start_s, end_s, joined))
        return words


def frame_candidates(log_probs: Tensor) -> list[list[FrameCandidates]]:
    """What is tried in each frame of ``(B, T, classes)``, row by row."""
    best = log_probs.topk(min(CANDIDATES, log_probs.size(-1)))
    rows = zip(log_probs[..., BLANK].tolist(), best.values.tolist(), best.indices.tolist(), strict=True)
    return [
        [
            (blank, {label: value for label, value in zip(labels, values, strict=True) if value > LEAST_LOG_PROB})
            for blank, values, labels in zip(*row, strict=True)
        ]
        for row in rows
    ]


def _merge(found: dict[tuple[int, ...], CTCHypothesis], hypothesis: CTCHypothesis) -> None:
    """Add a hypothesis to those found; paths of the same symbols are one hypothesis."""
    known = found.get(hypothesis.symbols)
    if known is None:
        found[hypothesis.symbols] = hypothesis
    else:
        known.blank = add_logs(known.blank, hypothesis.blank)
        known.symbol = add_logs(known.symbol, hypothesis.symbol)
        known.frames = hypothesis.frames


def add_logs(first: float, second: float) -> float:
    """``log(exp(first) + exp(second))``."""
    if first < second:
        first, second = second, first
    return first + math.log1p(math.exp(second - first)) if second > NEVER else first
