"""SimulEval states of an utterance: new source samples, and the state of the translator."""

from __future__ import annotations

from typing import Any

import numpy as np
from simuleval.agents.states import AgentStates
from simuleval.data.segments import EmptySegment, Segment, SpeechSegment

from echostream.streaming.state import check_samples


class StreamStates(AgentStates):
    """AgentStates that keeps only samples that the translator has not processed yet.

    SimulEval's own class appends every sample of the utterance to a list of Python floats. Here :meth:`take_new`
    returns new samples once and then drops them.

    Args:
        sample_rate: sample rate that the translator expects, in Hz.

    Attributes:
        stream: state of the translator; None before the first step of an utterance.
        view: live display of the translation; None before the first step of an utterance.
        arrived_samples: number of samples of the utterance received so far.
    """

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        super().__init__()

    def reset(self) -> None:
        """Start a new utterance."""
        super().reset()
        self.stream: Any = None
        self.view: Any = None
        self.arrived_samples = 0
        self._new: list[np.ndarray] = []
        self._pushed = False

    @property
    def has_new_input(self) -> bool:
        """Whether a segment, possibly an empty one, was pushed since the last :meth:`take_new`."""
        return self._pushed

    def update_source(self, segment: Segment) -> None:
        """Add a speech segment or an empty segment.

        Raises:
            ValueError: the segment is text, has another sample rate or several channels, or its samples can't be
                used.
        """
        self._pushed = True
        self.source_finished = segment.finished
        if isinstance(segment, EmptySegment):
            return
        if not isinstance(segment, SpeechSegment):
            raise ValueError(f"the source has to be speech, not {segment.data_type or type(segment).__name__}")
        self.tgt_lang = segment.tgt_lang
        self.source_sample_rate = segment.sample_rate
        if segment.sample_rate != self.sample_rate:
            raise ValueError(
                f"the source has {segment.sample_rate} Hz, the model needs {self.sample_rate} Hz: resample it"
            )
        samples = np.asarray(segment.content, dtype=np.float64)
        if samples.ndim != 1:
            raise ValueError(f"the source has {samples.shape[-1]} channels, the model needs one: mix it down first")
        samples = check_samples(samples)
        self._new.append(samples)
        self.arrived_samples += len(samples)

    def take_new(self) -> np.ndarray:
        """Return the samples pushed since the last call, float32 ``(n,)``."""
        samples = np.concatenate(self._new) if self._new else np.zeros(0, dtype=np.float32)
        self._new.clear()
        self._pushed = False
        return samples
