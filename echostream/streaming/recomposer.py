"""Words back to continuous speech: where each word lies in the output, where sentences end, what goes between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from echostream.modules.state import State, StatePart
from echostream.streaming.word_level_translator import TargetWord

SENTENCE_MARKS = (".", "?", "!")
NO_SAMPLES = np.zeros(0, dtype=np.float32)


@dataclass(frozen=True)
class OutputWord:
    """A committed target word.

    Attributes:
        text: the word.
        source_time_s: how much of the source had been heard when it was written, in seconds.
        start_s, end_s: where it lies in the output audio, in seconds from its start; both 0 without speech.
        joined: it continues the word before, without a space.
        confidence: the probability that it belongs there, as far as the model knows; words that differ in nothing else
            are equal, for it depends on rounding.
    """

    text: str
    source_time_s: float
    start_s: float = 0.0
    end_s: float = 0.0
    joined: bool = False
    confidence: float = field(default=1.0, compare=False)


@dataclass(frozen=True)
class WaitingWord(StatePart):
    """A word some of whose units have no duration yet."""

    text: str
    source_time_s: float
    joined: bool
    units_left: int
    start_frame: int | None = None
    confidence: float = field(default=1.0, compare=False)


@dataclass
class RecomposerState(State):
    """Positions in the output, which are counted over all sentences."""

    waiting: tuple[WaitingWord, ...] = ()
    frames: int = 0  # unit frames scheduled
    pause_samples: int = 0  # silence put between sentences so far
    pause_due: bool = False
    heard_s: float = 0.0  # on the source's clock, when all of it has been heard
    tempo: float = 1.0  # of the latest speech

    def lag_s(self, source_time_s: float) -> float:
        """How much of the output is still to be heard."""
        return max(0.0, self.heard_s - source_time_s)


class SentenceRecomposer:
    """Places words in the output audio.

    Args:
        sample_rate: of the output in Hz.
        hop_samples: samples of a unit frame.
        sentence_pause_ms: silence between the speech of two sentences.
        end_silence_ms: source silence that ends a sentence.
    """

    def __init__(
        self, sample_rate: int, hop_samples: int, sentence_pause_ms: int = 200, end_silence_ms: float = 1000
    ) -> None:
        if sentence_pause_ms < 0 or end_silence_ms <= 0:
            raise ValueError("sentence_pause_ms must not be negative and end_silence_ms must be positive")
        self.sample_rate, self.hop_samples = sample_rate, hop_samples
        self.pause_samples = sample_rate * sentence_pause_ms // 1000
        self.end_silence_ms = end_silence_ms

    def init_state(self) -> RecomposerState:
        """The state of a fresh stream."""
        return RecomposerState()

    def ends_sentence(self, silence_ms: float, last_word: str) -> bool:
        """Whether a sentence ends: a long enough pause of the source, or final punctuation in the translation."""
        return silence_ms >= self.end_silence_ms or last_word.endswith(SENTENCE_MARKS)

    def add_word(self, word: TargetWord, source_time_s: float, state: RecomposerState) -> RecomposerState:
        """Queue a committed word behind those before it, in the order of their units."""
        waiting = WaitingWord(word.text, source_time_s, word.joined, len(word.units), confidence=word.confidence)
        return replace(state, waiting=(*state.waiting, waiting))

    def place(
        self, durations: Sequence[int], samples: np.ndarray, state: RecomposerState, pause_share: float = 1.0
    ) -> tuple[list[OutputWord], np.ndarray, RecomposerState]:
        """Give the next units their durations.

        Args:
            durations: unit frames of the units that follow those before.
            samples: speech ``(m,)`` made in this step.
            state: of the words so far.
            pause_share: what is left of the pause between two sentences.

        Returns:
            the words that are now placed, the samples with a pause in front if a sentence begins, and the next state.
        """
        pause_samples, pause_due = state.pause_samples, state.pause_due
        if durations and pause_due:
            pause = round(pause_share * self.pause_samples)
            samples = np.concatenate([np.zeros(pause, dtype=np.float32), samples])
            pause_samples, pause_due = pause_samples + pause, False

        def seconds(frame: int) -> float:
            return (frame * self.hop_samples + pause_samples) / self.sample_rate

        placed: list[OutputWord] = []
        frame, remaining = state.frames, list(durations)
        waiting = list(state.waiting)
        while waiting:
            word = waiting[0]
            start = word.start_frame
            taken, remaining = remaining[: word.units_left], remaining[word.units_left :]
            if taken and start is None:
                start = frame
            frame += sum(taken)
            if len(taken) < word.units_left:
                waiting[0] = replace(word, units_left=word.units_left - len(taken), start_frame=start)
                break
            waiting.pop(0)
            if word.text:
                begin_s = seconds(frame if start is None else start)
                place = (begin_s, seconds(frame), word.joined, word.confidence)
                placed.append(OutputWord(word.text, word.source_time_s, *place))
        following = replace(
            state, waiting=tuple(waiting), frames=frame, pause_samples=pause_samples, pause_due=pause_due
        )
        return placed, samples, following

    def speak(self, samples: int, source_time_s: float, state: RecomposerState) -> RecomposerState:
        """Count samples that are given out at ``source_time_s``: they are heard then, or after those before."""
        return replace(state, heard_s=max(state.heard_s, source_time_s) + samples / self.sample_rate)

    def end_sentence(self, state: RecomposerState) -> RecomposerState:
        """The next speech begins a sentence."""
        return replace(state, pause_due=state.frames > 0)
