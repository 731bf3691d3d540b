"""Latency, continuity and compute metrics for SimulEval's ``--latency-metrics``, from ``steps.jsonl``.

Names start with ``ECHO_``, so that they don't replace SimulEval's own. Those with the suffix ``_CA`` use the
computation-aware clock of :mod:`echostream.evaluation.timeline`. The scores of the utterances are also written to
SimulEval's ``metrics.tsv``.
"""

from __future__ import annotations

import logging
import math
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from statistics import mean, median
from typing import Any

from simuleval.evaluator import SentenceLevelEvaluator
from simuleval.evaluator.scorers.latency_scorer import (
    LATENCY_SCORERS_DICT,
    ATDScorer,
    LatencyScorer,
    register_latency_scorer,
)

from echostream.evaluation.instances import AnyInstance, find_records
from echostream.evaluation.latency import (
    average_lagging,
    average_token_delay,
    lag_drift,
    speech_writes,
    text_writes,
)
from echostream.evaluation.record import UtteranceRecord
from echostream.evaluation.timeline import Timeline, discontinuities
from echostream.percentiles import percentile
from echostream.text import text_lines

logger = logging.getLogger("echostream.evaluation.scorers")


class TakesOptions:
    """A scorer that is told by :func:`install` which evaluation it belongs to.

    Attributes:
        output: SimulEval's output folder, for instances that were read from its log.
    """

    output: str | None = None

    def take_options(self, args: Namespace) -> None:
        """Options of the evaluation that this scorer belongs to."""
        self.output = args.output


class RecordScorer(TakesOptions, LatencyScorer):
    """Base class of metrics that are computed from the records of the agents.

    SimulEval builds the additional scorers of ``--computation-aware`` without its options. Therefore :func:`install`
    has every evaluator give its options to its scorers, with :meth:`take_options`.
    """

    metric = ""

    @classmethod
    def from_args(cls, args: Namespace) -> RecordScorer:
        """Build the metric; SimulEval itself adds the ``_CA`` variant of ``--computation-aware``."""
        scorer = cls(use_ref_len=not args.no_use_ref_len)
        scorer.take_options(args)
        return scorer

    @property
    def metric_name(self) -> str:
        """Column of ``metrics.tsv``."""
        aware = self.computation_aware and not self.metric.endswith("_CA")
        return self.metric + ("_CA" if aware else "")

    def reduce(self, scores: list[float]) -> float:
        """Corpus score from the scores of the utterances: their mean, or NaN if there are none."""
        return mean(scores) if scores else math.nan

    def score(self, record: UtteranceRecord, instance: AnyInstance) -> float | None:
        """Score of one utterance; None if it is undefined, such as the latency of an empty output."""
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
                "%s leaves out %d of %d utterances that it is not defined for (no output, or no source)",
                self.metric_name,
                len(instances) - len(scores),
                len(instances),
            )
        return self.reduce(scores)


def is_speech(instance: AnyInstance) -> bool:
    """Whether the output is speech: only then SimulEval's instance has ``durations``."""
    return hasattr(instance, "durations")


def start_offset(timeline: Timeline, reference_words: int) -> float | None:
    """Time from the start of the source to the start of the output (for text, the first word), in ms."""
    return timeline.start_ms


def end_offset(timeline: Timeline, reference_words: int) -> float | None:
    """Time from the end of the source to the end of the output, in ms."""
    return None if timeline.end_ms is None else timeline.end_ms - timeline.source_ms


def token_delay(timeline: Timeline, reference_words: int) -> float | None:
    """Average Token Delay (Kano et al. 2023) in ms; unlike SimulEval's own it distinguishes speech and text output."""
    if timeline.chunks:
        return average_token_delay(speech_writes(timeline.chunk_arrived_ms, timeline.chunks))
    if timeline.word_ms:
        return average_token_delay(text_writes(timeline.word_arrived_ms, timeline.word_ms))
    return None


def lagging(timeline: Timeline, reference_words: int) -> float | None:
    """Average Lagging (Ma et al. 2019) of words in ms; the time of a spoken word is that of its end."""
    return _lagging(timeline, reference_words or len(timeline.word_ms))


def length_adaptive_lagging(timeline: Timeline, reference_words: int) -> float | None:
    """Length-Adaptive Average Lagging (Papi et al. 2022) of words in ms."""
    return _lagging(timeline, max(reference_words, len(timeline.word_ms)))


def _lagging(timeline: Timeline, target_length: int) -> float | None:
    if not timeline.word_ms or timeline.source_ms <= 0:
        return None
    return average_lagging(timeline.word_ms, timeline.source_ms, target_length)


def discontinuity_count(timeline: Timeline, reference_words: int) -> float | None:
    """Number of pauses of playback, where the next piece of audio was not ready, per utterance."""
    return float(len(discontinuities(timeline.chunks)))


def discontinuity_sum(timeline: Timeline, reference_words: int) -> float | None:
    """Total length of the pauses of playback, in ms per utterance."""
    return sum(discontinuities(timeline.chunks))


def spoken_lag(timeline: Timeline, reference_words: int) -> float | None:
    """The most that the end of a word was heard (text: shown) after the source for it had arrived, in ms."""
    lags = [heard - arrived for heard, arrived in zip(timeline.word_ms, timeline.word_arrived_ms, strict=True)]
    return max(lags, default=None)


def spoken_lag_drift(timeline: Timeline, reference_words: int) -> float | None:
    """How fast that lag grows, in ms a minute, see :func:`echostream.evaluation.latency.lag_drift`."""
    return lag_drift(timeline.word_ms, timeline.word_arrived_ms)


TIMELINE_METRICS: dict[str, Callable[[Timeline, int], float | None]] = {
    "ECHO_StartOffset": start_offset,
    "ECHO_EndOffset": end_offset,
    "ECHO_ATD": token_delay,
    "ECHO_AL": lagging,
    "ECHO_LAAL": length_adaptive_lagging,
    "ECHO_DiscontinuityNum": discontinuity_count,
    "ECHO_DiscontinuitySum": discontinuity_sum,
    "ECHO_SpokenLag": spoken_lag,
    "ECHO_SpokenLagDrift": spoken_lag_drift,
}


class TimelineScorer(RecordScorer):
    """A metric computed from the timeline of each utterance and averaged over utterances."""

    measure: Callable[[Timeline, int], float | None]

    def score(self, record: UtteranceRecord, instance: AnyInstance) -> float | None:
        timeline = Timeline.of(record, is_speech(instance), self.computation_aware)
        reference_words = len((instance.reference or "").split()) if self.use_ref_len else 0
        return type(self).measure(timeline, reference_words)


class ComputationAwareScorer(TimelineScorer):
    """A timeline metric on the computation-aware clock, with or without ``--computation-aware``."""

    def __init__(self, computation_aware: bool = True, use_ref_len: bool = True) -> None:
        super().__init__(computation_aware=True, use_ref_len=use_ref_len)


def _register(name: str, measure: Callable, base: type[TimelineScorer]) -> None:
    members = {"metric": name, "measure": staticmethod(measure), "__doc__": measure.__doc__}
    register_latency_scorer(name)(type(name, (base,), members))


for _name, _measure in TIMELINE_METRICS.items():
    _register(_name, _measure, TimelineScorer)
    _register(f"{_name}_CA", _measure, ComputationAwareScorer)


@register_latency_scorer("ATD")
class SimulEvalTokenDelay(TakesOptions, ATDScorer):
    """SimulEval's own Average Token Delay, and ``ECHO_ATD_CA`` where it counts computation.

    SimulEval counts the computation of a piece of speech as if it began when the piece before had been played.
    """

    @classmethod
    def from_args(cls, args: Namespace) -> LatencyScorer:
        """Build the metric on the ideal clock."""
        scorer = super().from_args(args)
        scorer.take_options(args)
        return scorer

    def __call__(self, instances: Mapping[int, AnyInstance]) -> float:
        if not self.computation_aware:
            return super().__call__(instances)
        scorer = LATENCY_SCORERS_DICT["ECHO_ATD_CA"]()
        scorer.output = self.output
        return scorer(instances)


@register_latency_scorer("ECHO_StartOffset_FirstWord")
class FirstWordScorer(RecordScorer):
    """Median time from the end of the first source word to the start of the output, in ms.

    A word-level policy can't start before this word has ended, and the time until then depends only on the speaker. The
    ends of the words are read from a list, because with times from the model itself its errors would affect its score.
    """

    metric = "ECHO_StartOffset_FirstWord"
    list_name: str | None = None

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Option for the list of word ends."""
        parser.add_argument(
            "--first-word-ends", metavar="FILE", help="end of the first word of each source, seconds, one a line"
        )

    @classmethod
    def from_args(cls, args: Namespace) -> RecordScorer:
        """Build the metric after a check of the list.

        Raises:
            SystemExit: as :func:`read_word_ends`.
        """
        read_word_ends(args.first_word_ends)
        return super().from_args(args)

    def take_options(self, args: Namespace) -> None:
        super().take_options(args)
        self.list_name = args.first_word_ends

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
    """:class:`FirstWordScorer` on the computation-aware clock."""

    metric = "ECHO_StartOffset_FirstWord_CA"

    def __init__(self, computation_aware: bool = True, use_ref_len: bool = True) -> None:
        super().__init__(computation_aware=True, use_ref_len=use_ref_len)


def read_word_ends(path: str | None) -> list[float]:
    """Read a list of times in seconds, one per line, as ms.

    Raises:
        SystemExit: the list can't be read or contains anything but numbers.
    """
    try:
        return [1000 * float(line) for line in text_lines(path or "")]
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: ECHO_StartOffset_FirstWord cannot read --first-word-ends: {error}") from error


@register_latency_scorer("ECHO_RTF")
class RealTimeFactorScorer(RecordScorer):
    """Real-time factor: total compute time over total source time of the test set; below 1 is faster than real time."""

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
    """A percentile of the compute time per step over all steps of the test set, in ms."""

    percent = 50.0

    def score(self, record: UtteranceRecord, instance: AnyInstance) -> float | None:
        return percentile([step.compute_ms for step in record.steps], self.percent)

    def __call__(self, instances: Mapping[int, AnyInstance]) -> float:
        super().__call__(instances)
        steps = [step.compute_ms for record in find_records(instances, self.output).values() for step in record.steps]
        return percentile(steps, self.percent) if steps else math.nan


@register_latency_scorer("ECHO_StepP50")
class StepMedianScorer(StepPercentileScorer):
    """Median compute time per step in ms."""

    metric = "ECHO_StepP50"


@register_latency_scorer("ECHO_StepP95")
class StepP95Scorer(StepPercentileScorer):
    """95th percentile of the compute time per step in ms; above the segment size the output falls behind."""

    metric = "ECHO_StepP95"
    percent = 95.0


MARK = "_gives_options_to_scorers"


def install() -> None:
    """Have SimulEval's evaluators give their options to our scorers. Further calls have no effect."""
    if hasattr(SentenceLevelEvaluator, MARK):
        return
    setattr(SentenceLevelEvaluator, MARK, True)
    original = SentenceLevelEvaluator.__init__

    def init(self: SentenceLevelEvaluator, *arguments: Any, **named: Any) -> None:
        original(self, *arguments, **named)
        for scorer in self.latency_scorers.values():
            if isinstance(scorer, TakesOptions):
                scorer.take_options(self.args)

    SentenceLevelEvaluator.__init__ = init
