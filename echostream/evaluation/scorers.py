"""Latency, continuity and compute metrics for SimulEval's ``--latency-metrics``, from ``steps.jsonl``.

Names begin with ``ECHO_`` so that none of SimulEval's own is replaced. Those ending in ``_CA`` run on the
computation-aware clock of :mod:`echostream.evaluation.timeline`. Each also fills SimulEval's ``metrics.tsv``.
"""

from __future__ import annotations

import logging
import math
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import mean, median

from simuleval.evaluator.scorers.latency_scorer import LatencyScorer, register_latency_scorer

from echostream.evaluation.instances import AnyInstance, find_records
from echostream.evaluation.latency import (
    average_lagging,
    average_token_delay,
    percentile,
    speech_writes,
    text_writes,
)
from echostream.evaluation.record import UtteranceRecord
from echostream.evaluation.timeline import Timeline, discontinuities

logger = logging.getLogger("echostream.evaluation.scorers")


class RecordScorer(LatencyScorer):
    """Base of the metrics that need the agents' records: finds the record of each instance."""

    metric = ""
    # SimulEval builds the extra scorers of --computation-aware without its arguments; the plain one of the
    # same class is always built from the arguments right before.
    output: str | None = None

    @classmethod
    def from_args(cls, args: Namespace) -> RecordScorer:
        """Build the metric; SimulEval adds the ``_CA`` twin of ``--computation-aware`` by itself."""
        cls.output = args.output
        return cls(use_ref_len=not args.no_use_ref_len)

    @property
    def metric_name(self) -> str:
        """Column of ``metrics.tsv``."""
        aware = self.computation_aware and not self.metric.endswith("_CA")
        return self.metric + ("_CA" if aware else "")

    def reduce(self, scores: list[float]) -> float:
        """Corpus score from those of the utterances that have one: their mean, NaN if none has."""
        return mean(scores) if scores else math.nan

    def score(self, record: UtteranceRecord, instance: AnyInstance) -> float | None:
        """Score of one utterance, ``None`` if it has none (an empty output has no latency)."""
        raise NotImplementedError

    def __call__(self, instances: Mapping[int, AnyInstance]) -> float:
        scores = []
        for key, record in find_records(instances, self.output).items():
            score = self.score(record, instances[key])
            if score is not None:
                instances[key].metrics[self.metric_name] = score
                scores.append(score)
        if len(scores) < len(instances):
            logger.warning(
                "%s leaves out %d of %d utterances that it has no value for (nothing was put out or said)",
                self.metric_name,
                len(instances) - len(scores),
                len(instances),
            )
        return self.reduce(scores)


def is_speech(instance: AnyInstance) -> bool:
    """Whether the output is speech: only then SimulEval keeps ``durations``."""
    return hasattr(instance, "durations")


def start_offset(timeline: Timeline, reference_words: int) -> float | None:
    """Time from the start of the source to the start of the output, ms (text: the first word)."""
    return timeline.start_ms


def end_offset(timeline: Timeline, reference_words: int) -> float | None:
    """Time from the end of the source to the end of the output, ms."""
    return None if timeline.end_ms is None else timeline.end_ms - timeline.source_ms


def token_delay(timeline: Timeline, reference_words: int) -> float | None:
    """Average Token Delay (Kano et al. 2023), ms; unlike SimulEval's own it knows speech output from text."""
    if timeline.chunks:
        return average_token_delay(speech_writes(timeline.chunk_arrived_ms, timeline.chunks))
    if timeline.word_ms:
        return average_token_delay(text_writes(timeline.word_arrived_ms, timeline.word_ms))
    return None


def lagging(timeline: Timeline, reference_words: int) -> float | None:
    """Average Lagging (Ma et al. 2019) on words, ms; a spoken word counts when its end is heard."""
    return _lagging(timeline, reference_words or len(timeline.word_ms))


def length_adaptive_lagging(timeline: Timeline, reference_words: int) -> float | None:
    """Length-Adaptive Average Lagging (Papi et al. 2022) on words, ms."""
    return _lagging(timeline, max(reference_words, len(timeline.word_ms)))


def _lagging(timeline: Timeline, target_length: int) -> float | None:
    if not timeline.word_ms or timeline.source_ms <= 0:
        return None
    return average_lagging(timeline.word_ms, timeline.source_ms, target_length)


def discontinuity_count(timeline: Timeline, reference_words: int) -> float | None:
    """Pauses in playback because the next piece wasn't there, per utterance."""
    return float(len(discontinuities(timeline.chunks)))


def discontinuity_sum(timeline: Timeline, reference_words: int) -> float | None:
    """Their total length, ms per utterance."""
    return sum(discontinuities(timeline.chunks))


TIMELINE_METRICS: dict[str, Callable[[Timeline, int], float | None]] = {
    "ECHO_StartOffset": start_offset,
    "ECHO_EndOffset": end_offset,
    "ECHO_ATD": token_delay,
    "ECHO_AL": lagging,
    "ECHO_LAAL": length_adaptive_lagging,
    "ECHO_DiscontinuityNum": discontinuity_count,
    "ECHO_DiscontinuitySum": discontinuity_sum,
}


class TimelineScorer(RecordScorer):
    """A metric of the timeline of each utterance, averaged over utterances."""

    measure: Callable[[Timeline, int], float | None]

    def score(self, record: UtteranceRecord, instance: AnyInstance) -> float | None:
        timeline = Timeline.of(record, is_speech(instance), self.computation_aware)
        reference_words = len((instance.reference or "").split()) if self.use_ref_len else 0
        return type(self).measure(timeline, reference_words)


class ComputationAwareScorer(TimelineScorer):
    """The same on the computation-aware clock, whatever ``--computation-aware`` says."""

    def __init__(self, computation_aware: bool = True, use_ref_len: bool = True) -> None:
        super().__init__(computation_aware=True, use_ref_len=use_ref_len)


def _register(name: str, measure: Callable, base: type[TimelineScorer]) -> None:
    members = {"metric": name, "measure": staticmethod(measure), "__doc__": measure.__doc__}
    register_latency_scorer(name)(type(name, (base,), members))


for _name, _measure in TIMELINE_METRICS.items():
    _register(_name, _measure, TimelineScorer)
    _register(f"{_name}_CA", _measure, ComputationAwareScorer)


@register_latency_scorer("ECHO_StartOffset_FirstWord")
class FirstWordScorer(RecordScorer):
    """Median time from the end of the first source word to the start of the output, ms.

    A policy of words can't begin before it; the silence before that word and its length are the speaker's. When it
    ended is read from a list: a model's own opinion of that would be measured with itself.
    """

    metric = "ECHO_StartOffset_FirstWord"
    list_name: str | None = None  # like `output`

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """The list of word ends."""
        parser.add_argument(
            "--first-word-ends", metavar="FILE", help="end of the first word of each source, seconds, one a line"
        )

    @classmethod
    def from_args(cls, args: Namespace) -> RecordScorer:
        """Build the metric, once the list is known to be one."""
        FirstWordScorer.list_name = args.first_word_ends
        read_word_ends(args.first_word_ends)
        return super().from_args(args)

    def reduce(self, scores: list[float]) -> float:
        return median(scores) if scores else math.nan

    def __call__(self, instances: Mapping[int, AnyInstance]) -> float:
        self.word_ends_ms = read_word_ends(self.list_name)
        return super().__call__(instances)

    def score(self, record: UtteranceRecord, instance: AnyInstance) -> float | None:
        if record.index >= len(self.word_ends_ms):
            raise ValueError(f"{self.list_name} has {len(self.word_ends_ms)} lines, too few for the sources")
        start = Timeline.of(record, is_speech(instance), self.computation_aware).start_ms
        return None if start is None else start - self.word_ends_ms[record.index]


@register_latency_scorer("ECHO_StartOffset_FirstWord_CA")
class ComputationAwareFirstWordScorer(FirstWordScorer):
    """The same on the computation-aware clock."""

    metric = "ECHO_StartOffset_FirstWord_CA"

    def __init__(self, computation_aware: bool = True, use_ref_len: bool = True) -> None:
        super().__init__(computation_aware=True, use_ref_len=use_ref_len)


def read_word_ends(path: str | None) -> list[float]:
    """A list of seconds, as ms.

    Raises:
        SystemExit: no list, or something else than numbers in it.
    """
    try:
        return [1000 * float(line) for line in Path(path or "").read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: ECHO_StartOffset_FirstWord cannot read --first-word-ends: {error}") from error


@register_latency_scorer("ECHO_RTF")
class RealTimeFactorScorer(RecordScorer):
    """Compute time over source time of the whole test set; below 1 keeps up with the speaker."""

    metric = "ECHO_RTF"

    def score(self, record: UtteranceRecord, instance: AnyInstance) -> float | None:
        if record.source_ms <= 0:
            return None
        return sum(step.compute_ms for step in record.steps) / record.source_ms

    def __call__(self, instances: Mapping[int, AnyInstance]) -> float:
        super().__call__(instances)
        records = find_records(instances, self.output).values()
        source = sum(record.source_ms for record in records)
        compute = sum(step.compute_ms for record in records for step in record.steps)
        return compute / source if source else math.nan


class StepPercentileScorer(RecordScorer):
    """A percentile of the compute time of a step, ms, over all steps of the test set."""

    percent = 50.0

    def score(self, record: UtteranceRecord, instance: AnyInstance) -> float | None:
        return percentile([step.compute_ms for step in record.steps], self.percent)

    def __call__(self, instances: Mapping[int, AnyInstance]) -> float:
        super().__call__(instances)
        steps = [step.compute_ms for record in find_records(instances, self.output).values() for step in record.steps]
        return percentile(steps, self.percent) if steps else math.nan


@register_latency_scorer("ECHO_StepP50")
class StepMedianScorer(StepPercentileScorer):
    """Median compute time of a step, ms."""

    metric = "ECHO_StepP50"


@register_latency_scorer("ECHO_StepP95")
class StepP95Scorer(StepPercentileScorer):
    """95th percentile of the compute time of a step, ms; above the segment size the output falls behind."""

    metric = "ECHO_StepP95"
    percent = 95.0
