"""A stream within a step of the translator, and the segments of several that are computed together."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from echostream.decoding.word_boundary import SourceWord
from echostream.streaming.recomposer import NO_SAMPLES, OutputWord
from echostream.streaming.sentence_stage import SentenceStageState
from echostream.streaming.speech_gate import CLOCK_S
from echostream.streaming.state import EchoStreamState, StepOutput


class SteppedStream:
    """A stream within a step: its next state, which becomes the caller's when the whole step has succeeded."""

    def __init__(self, samples: np.ndarray, state: EchoStreamState, is_last: bool) -> None:
        waiting = [*state.samples, samples] if samples.size else list(state.samples)
        self.caller_state = state
        self.state = replace(state, samples=waiting)
        self.is_last = is_last
        self.pieces = [NO_SAMPLES]
        self.words: list[OutputWord] = []
        self.sentence_ends: list[int] = []
        self.source_words: list[SourceWord] = []
        self.evidence = ""

    @property
    def translation(self) -> SentenceStageState:
        """The state of the stage that writes and speaks, which every task but ``asr`` has."""
        assert self.state.translation is not None
        return self.state.translation

    def take(self, num_samples: int) -> np.ndarray:
        """The next samples of the source."""
        waiting = self.state.samples
        # What is left stays a view: copying it for every segment would make one long push quadratic in its length.
        audio = waiting[0] if len(waiting) == 1 else np.concatenate([NO_SAMPLES, *waiting])
        self.state.samples = [audio[num_samples:]] if audio.size > num_samples else []
        return audio[:num_samples]

    def hear(self, words: list[SourceWord]) -> None:
        """Give out recognised words, on the clock of the source."""
        gate = self.state.gate
        if gate is not None:
            words = [
                replace(
                    word, start_s=gate.source_time_s(word.start_s, begins=True), end_s=gate.source_time_s(word.end_s)
                )
                for word in words
            ]
        self.source_words += words

    def commit(self) -> StepOutput:
        """Make the next state the caller's; what the step gives out."""
        if self.state.gate is not None:
            heard_s = self.state.frames * self.state.frame_ms / 1000
            self.state.gate = self.state.gate.since(heard_s - CLOCK_S)
        vars(self.caller_state).update(vars(self.state))
        samples = np.concatenate(self.pieces)
        return StepOutput(samples, self.words, self.source_words, self.evidence, self.sentence_ends)


@dataclass(frozen=True)
class Segment:
    """The next segment of streams that can be computed together.

    Attributes:
        streams: the streams whose next segment it is.
        num_samples: how many samples each of these streams contributes.
        is_last: whether the sources of these streams end with it.
    """

    streams: list[SteppedStream]
    num_samples: int
    is_last: bool
