"""Playback timeline of an utterance, on which all latency metrics are based.

All times are in milliseconds from the start of the source. On the ideal clock the output of a step is *ready* as soon
as its source audio has arrived. On the computation-aware clock it is ready when the step has finished: a step starts
when its audio has arrived and the previous step has finished, as on a machine that runs while the speaker talks.
(SimulEval instead adds the total compute time so far to the length of the audio, as if the speaker waited.)
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from echostream.constants import SAMPLE_RATE
from echostream.evaluation.record import UtteranceRecord

HALF_SAMPLE_MS = 500 / SAMPLE_RATE  # shorter gaps are rounding errors


@dataclass(frozen=True)
class Chunk:
    """A piece of output audio that is played from ``start`` for ``duration``, both in ms."""

    start: float
    duration: float

    @property
    def end(self) -> float:
        return self.start + self.duration


def ready_times(arrived_ms: Sequence[float], compute_ms: Sequence[float] | None = None) -> list[float]:
    """Time at which the output of each step is ready, in ms.

    Args:
        arrived_ms: length of the source audio received before each step, non-decreasing.
        compute_ms: compute time of each step; None: zero.
    """
    if compute_ms is None:
        return list(arrived_ms)
    ready: list[float] = []
    for arrived, compute in zip(arrived_ms, compute_ms, strict=True):
        ready.append(max(arrived, ready[-1] if ready else 0.0) + compute)
    return ready


def play(ready_ms: Sequence[float], durations_ms: Sequence[float]) -> list[Chunk]:
    """Play pieces of audio in order, each as soon as it is ready and the previous one has ended.

    Pieces without audio are dropped.
    """
    chunks: list[Chunk] = []
    for ready, duration in zip(ready_ms, durations_ms, strict=True):
        if duration > 0:
            start = max(ready, chunks[-1].end) if chunks else ready
            chunks.append(Chunk(start, duration))
    return chunks


def discontinuities(chunks: Sequence[Chunk]) -> list[float]:
    """Lengths in ms of the pauses of playback, in which the next piece of audio was not ready."""
    gaps = [after.start - before.end for before, after in pairwise(chunks)]
    return [gap for gap in gaps if gap > HALF_SAMPLE_MS]


@dataclass(frozen=True)
class Timeline:
    """Output of one utterance over time, in ms.

    Attributes:
        source_ms: length of the source.
        chunks: pieces of output audio; empty for text output.
        chunk_arrived_ms: length of the source audio received when each piece was produced.
        word_ms: time at which each word is shown or, for speech, its end is heard.
        word_arrived_ms: length of the source audio received when each word was produced.
    """

    source_ms: float
    chunks: list[Chunk]
    chunk_arrived_ms: list[float]
    word_ms: list[float]
    word_arrived_ms: list[float]

    @classmethod
    def of(cls, record: UtteranceRecord, speech: bool, computation_aware: bool = False) -> Timeline:
        """The timeline of a record on the ideal or the computation-aware clock."""
        arrived = [step.arrived_ms for step in record.steps]
        ready = ready_times(arrived, [step.compute_ms for step in record.steps] if computation_aware else None)
        word_arrived = [arrived[step] for step, _ in record.words]
        if not speech:
            return cls(record.source_ms, [], [], [ready[step] for step, _ in record.words], word_arrived)
        chunks = play(ready, [step.output_ms for step in record.steps])
        chunk_arrived = [step.arrived_ms for step in record.steps if step.output_ms > 0]
        if not chunks:  # without audio no word is heard
            return cls(record.source_ms, [], [], [], [])
        heard = heard_at(chunks, [word.end_ms for _, word in record.words])
        return cls(record.source_ms, chunks, chunk_arrived, heard, word_arrived)

    @property
    def start_ms(self) -> float | None:
        """Start of the output; None if there is none."""
        if self.chunks:
            return self.chunks[0].start
        return self.word_ms[0] if self.word_ms else None

    @property
    def end_ms(self) -> float | None:
        """End of the output; None if there is none."""
        if self.chunks:
            return self.chunks[-1].end
        return self.word_ms[-1] if self.word_ms else None


def heard_at(chunks: Sequence[Chunk], positions_ms: Sequence[float]) -> list[float]:
    """Playback times of positions in the output audio, both in ms.

    Positions count from the first sample, without the pauses of playback. A position between two pieces is heard at the
    end of the first one. A position after the end, which can result from rounding, is heard at the end.
    """
    ends = list(accumulate(chunk.duration for chunk in chunks))
    times = []
    for position in positions_ms:
        # The tolerance keeps a word end that rounding puts just after its piece from moving to the next piece.
        i = min(bisect_left(ends, position - HALF_SAMPLE_MS), len(ends) - 1)
        times.append(chunks[i].end - max(0.0, ends[i] - position))
    return times
