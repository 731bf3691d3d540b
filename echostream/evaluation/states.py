"""The state of an utterance in an agent: the samples that no step has seen, and the translator's state."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, TypeVar

import numpy as np
from simuleval.agents.states import AgentStates
from simuleval.data.segments import EmptySegment, Segment, SpeechSegment


class _Joinable(Protocol):
    """A target or source word."""

    @property
    def joined(self) -> bool: ...


Word = TypeVar("Word", bound=_Joinable)


class StreamStates(AgentStates):
    """AgentStates that doesn't pile up the source.

    SimulEval's own appends every sample of the utterance to a list of Python floats. Here what has been
    pushed is handed out once by :meth:`take_new`; ``arrived_samples`` counts it. ``stream`` is the
    translator's state, ``view`` what a person sees of it; both are made anew for each utterance.

    Args:
        sample_rate: what the translator expects, Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        super().__init__()

    def reset(self) -> None:
        """Forget the utterance."""
        super().reset()
        self.stream: Any = None
        self.view: Any = None
        self.arrived_samples = 0
        self._new: list[np.ndarray] = []
        self._pushed = False
        self._has_words = False

    @property
    def has_news(self) -> bool:
        """Whether anything was pushed since the last :meth:`take_new`."""
        return self._pushed

    def update_source(self, segment: Segment) -> None:
        """Take in a speech segment or an empty one.

        Raises:
            ValueError: text instead of speech, another sample rate, more than one channel, NaN or infinity.
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
        samples = np.asarray(segment.content, dtype=np.float32)
        if samples.ndim != 1:
            raise ValueError(f"the source has {samples.shape[-1]} channels, the model needs one: mix it down first")
        if not np.isfinite(samples).all():
            raise ValueError("the source holds samples that are NaN or infinite: repair the file first")
        self._new.append(samples)
        self.arrived_samples += len(samples)

    def take_new(self) -> np.ndarray:
        """Samples pushed since the last call, float32 ``(n,)``."""
        samples = np.concatenate(self._new) if self._new else np.zeros(0, dtype=np.float32)
        self._new.clear()
        self._pushed = False
        return samples

    def begun_words(self, words: Iterable[Word]) -> list[Word]:
        """Those of ``words`` that don't go on from the word before; an utterance's first never does."""
        begun = []
        for word in words:
            if not (word.joined and self._has_words):
                begun.append(word)
            self._has_words = True
        return begun
