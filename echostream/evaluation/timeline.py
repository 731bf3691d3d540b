"""When the listener hears or reads what: the playback clock behind every latency metric.

All times are milliseconds since the first source sample was spoken. A step's output is *ready* when its
audio has arrived, or, on the computation-aware clock, when the step is done: a step starts once its audio
has arrived and the previous step is over, as on a machine that runs beside the speaker. (SimulEval adds all
compute so far to the audio's length instead, as if the speaker waited.)
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from echostream.evaluation.record import UtteranceRecord

HALF_SAMPLE_MS = 0.5 / 16  # a gap shorter than this is rounding


@dataclass(frozen=True)
class Chunk:
    """A piece of output audio, played from ``start`` on for ``duration`` (ms)."""

    start: float
    duration: float

    @property
    def end(self) -> float:
        return self.start + self.duration


def ready_times(arrived_ms: Sequence[float], compute_ms: Sequence[float] | None = None) -> list[float]:
    """When each step's output is ready.

    ``arrived_ms``: source audio at hand at each step, non-decreasing. ``compute_ms``: how long each step
    took; ``None`` for an infinitely fast machine.
    """
    if compute_ms is None:
        return list(arrived_ms)
    ready: list[float] = []
    for arrived, compute in zip(arrived_ms, compute_ms, strict=True):
        ready.append(max(arrived, ready[-1] if ready else 0.0) + compute)
    return ready


def play(ready_ms: Sequence[float], durations_ms: Sequence[float]) -> list[Chunk]:
    """Play pieces in order, each once it is ready and the one before is over; empty ones drop out."""
    chunks: list[Chunk] = []
    for ready, duration in zip(ready_ms, durations_ms, strict=True):
        if duration > 0:
            start = max(ready, chunks[-1].end) if chunks else ready
            chunks.append(Chunk(start, duration))
    return chunks


def discontinuities(chunks: Sequence[Chunk]) -> list[float]:
    """Lengths (ms) of the pauses in playback that the speech itself doesn't contain."""
    gaps = [after.start - before.end for before, after in pairwise(chunks)]
    return [gap for gap in gaps if gap > HALF_SAMPLE_MS]


@dataclass(frozen=True)
class Timeline:
    """One utterance on the clock.

    ``chunks``: the pieces of output audio, none for text output. ``word_ms``: when a word is shown, or when
    the end of a spoken word is heard. ``chunk_arrived_ms``, ``word_arrived_ms``: source audio at hand when
    each was made.
    """

    source_ms: float
    chunks: list[Chunk]
    chunk_arrived_ms: list[float]
    word_ms: list[float]
    word_arrived_ms: list[float]

    @classmethod
    def of(cls, record: UtteranceRecord, speech: bool, computation_aware: bool = False) -> Timeline:
        """Lay the record of an utterance on the ideal or the computation-aware clock."""
        arrived = [step.arrived_ms for step in record.steps]
        ready = ready_times(arrived, [step.compute_ms for step in record.steps] if computation_aware else None)
        word_arrived = [arrived[step] for step, _ in record.words]
        if not speech:
            return cls(record.source_ms, [], [], [ready[step] for step, _ in record.words], word_arrived)
        chunks = play(ready, [step.output_ms for step in record.steps])
        chunk_arrived = [step.arrived_ms for step in record.steps if step.output_ms > 0]
        if not chunks:  # words without any audio can't be heard
            return cls(record.source_ms, [], [], [], [])
        heard = heard_at(chunks, [word.end_ms for _, word in record.words])
        return cls(record.source_ms, chunks, chunk_arrived, heard, word_arrived)

    @property
    def start_ms(self) -> float | None:
        """When the output starts; ``None`` if there is none."""
        if self.chunks:
            return self.chunks[0].start
        return self.word_ms[0] if self.word_ms else None

    @property
    def end_ms(self) -> float | None:
        """When the output ends; ``None`` if there is none."""
        if self.chunks:
            return self.chunks[-1].end
        return self.word_ms[-1] if self.word_ms else None


def heard_at(chunks: Sequence[Chunk], positions_ms: Sequence[float]) -> list[float]:
    """When positions of the output audio (ms from its first sample, playback pauses not counted) are heard.

    A position between two pieces belongs to the end of the first; one past the end, by rounding, to the last.
    """
    ends = list(accumulate(chunk.duration for chunk in chunks))
    times = []
    for position in positions_ms:
        # without the tolerance, an end that rounding puts just past its piece would wait for the next piece
        i = min(bisect_left(ends, position - HALF_SAMPLE_MS), len(ends) - 1)
        times.append(chunks[i].end - max(0.0, ends[i] - position))
    return times
