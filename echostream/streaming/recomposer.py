"""Words back to continuous speech: where each word lies in the output, where sentences end, what goes between."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from echostream.modules.state import State
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
        joined: it goes on from the word before, without a space.
    """

    text: str
    source_time_s: float
    start_s: float = 0.0
    end_s: float = 0.0
    joined: bool = False


@dataclass
class _Waiting(State):
    """A word some of whose units have no duration yet."""

    text: str
    source_time_s: float
    joined: bool
    units_left: int
    start_frame: int | None = None


@dataclass
class RecomposerState(State):
    """Positions in the output, which count on over sentences."""

    waiting: deque[_Waiting] = field(default_factory=deque)
    frames: int = 0  # unit frames scheduled
    pause_samples: int = 0  # silence put between sentences so far
    pause_due: bool = False


class SentenceRecomposer:
    """Places words in the output audio.

    Args:
        sample_rate: of the output in Hz.
        hop_samples: samples of a unit frame.
        sentence_pause_ms: silence between the speech of two sentences.
        end_silence_ms: source silence that ends a sentence.
    """

    def __init__(
        self, sample_rate: int, hop_samples: int, sentence_pause_ms: int = 200, end_silence_ms: int = 1000
    ) -> None:
        if sentence_pause_ms < 0 or end_silence_ms <= 0:
            raise ValueError("sentence_pause_ms must not be negative and end_silence_ms must be positive")
        self.sample_rate, self.hop_samples = sample_rate, hop_samples
        self.pause_samples = sample_rate * sentence_pause_ms // 1000
        self.end_silence_ms = end_silence_ms

    def init_state(self) -> RecomposerState:
        return RecomposerState()

    def ends_sentence(self, silence_ms: float, last_word: str) -> bool:
        """Whether a sentence ends: a long enough pause of the source, or final punctuation in the translation."""
        return silence_ms >= self.end_silence_ms or last_word.endswith(SENTENCE_MARKS)

    def add_words(self, words: list[TargetWord], source_time_s: float, state: RecomposerState) -> None:
        """Queue committed words in the order of their units."""
        for word in words:
            state.waiting.append(_Waiting(word.text, source_time_s, word.joined, len(word.units)))

    def place(
        self, durations: list[int], samples: np.ndarray, state: RecomposerState
    ) -> tuple[list[OutputWord], np.ndarray]:
        """Give the next units their durations.

        Args:
            durations: unit frames of the units that follow those before.
            samples: speech ``(m,)`` made in this step.

        Returns:
            the words that are now placed, and the samples with a pause in front if a sentence begins.
        """
        if durations and state.pause_due:
            samples = np.concatenate([np.zeros(self.pause_samples, dtype=np.float32), samples])
            state.pause_due = False
            state.pause_samples += self.pause_samples
        placed: list[OutputWord] = []
        self._release(placed, state)
        for duration in durations:
            word = state.waiting[0]
            if word.start_frame is None:
                word.start_frame = state.frames
            state.frames += duration
            word.units_left -= 1
            self._release(placed, state)
        return placed, samples

    def end_sentence(self, state: RecomposerState) -> None:
        """The next speech begins a sentence."""
        state.pause_due = state.frames > 0

    def _release(self, placed: list[OutputWord], state: RecomposerState) -> None:
        while state.waiting and state.waiting[0].units_left == 0:
            word = state.waiting.popleft()
            start = state.frames if word.start_frame is None else word.start_frame
            if word.text:
                placed.append(
                    OutputWord(
                        word.text,
                        word.source_time_s,
                        self._seconds(start, state),
                        self._seconds(state.frames, state),
                        word.joined,
                    )
                )

    def _seconds(self, frames: int, state: RecomposerState) -> float:
        return (frames * self.hop_samples + state.pause_samples) / self.sample_rate
