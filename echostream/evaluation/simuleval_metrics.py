"""SimulEval's own metrics: mended, or refused before the run with the name of the one to take instead.

What is wrong with them in SimulEval 1.1.4:

- With ``--computation-aware`` the plain metric is computed from the elapsed times as well, and in ``metrics.tsv`` both
  have the same column. (Mended.)
- Where nothing was said of any source, latencies end in a ``StatisticsError`` after the whole run. (Mended: NaN.)
- ``WER`` stops, also after the run, where the package editdistance is missing. (Refused there.)
- ``ASR_BLEU`` and ``WHISPER_ASR_BLEU`` answer 0.0 when their recogniser is not there, without an error, and the
  ``SpeechAlign`` metrics need a forced aligner. (Refused.)
- ``EndOffset``, ``RTF`` and ``Discontinuity*`` of speech take no notice of ``--computation-aware``, and
  ``Discontinuity*`` stop at text. (Refused there; for speech they are mended by
  :class:`echostream.evaluation.instances.LoggedSpeech`.)
"""

from __future__ import annotations

import functools
import importlib.util
import math
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from simuleval.evaluator.scorers.latency_scorer import LATENCY_SCORERS_NAME_DICT, ATDScorer, LatencyScorer

SPEECH_QUALITY = ("ASR_BLEU", "WHISPER_ASR_BLEU")
CONTINUITY = {
    "DiscontinuitySum": "ECHO_DiscontinuitySum",
    "DiscontinuityNum": "ECHO_DiscontinuityNum",
    "DiscontinuityAve": "ECHO_DiscontinuitySum and ECHO_DiscontinuityNum",
}
IDEAL_ONLY = {"EndOffset": "ECHO_EndOffset", "RTF": "ECHO_RTF", **CONTINUITY}


def check_metrics(args: Namespace) -> None:
    """Refuse metrics that would be wrong, or stop the run when it is over.

    Raises:
        SystemExit: with one line that names the metric and the one to take instead.
    """
    for name in args.quality_metrics:
        if name in SPEECH_QUALITY:
            raise SystemExit(f"error: SimulEval's {name} answers 0.0 without a recogniser: take ECHO_ASR_BLEU")
        if name == "WER" and importlib.util.find_spec("editdistance") is None:
            raise SystemExit("error: SimulEval's WER needs the package editdistance: take ECHO_WER")
    speech = _is_speech(args)
    for name in args.latency_metrics:
        if "_SpeechAlign_" in name:
            own = f"ECHO_{name.partition('_')[0]}"
            raise SystemExit(f"error: SimulEval's {name} needs a forced aligner: take {own}, which knows the words")
        if name in CONTINUITY and not speech:
            raise SystemExit(f"error: SimulEval's {name} is for speech output: leave it out")
        if name in IDEAL_ONLY and speech and args.computation_aware:
            raise SystemExit(
                f"error: SimulEval's {name} of speech takes no notice of --computation-aware: take {IDEAL_ONLY[name]}"
            )


def _is_speech(args: Namespace) -> bool:
    """Whether the output is speech; a run that only scores doesn't say, but its log does."""
    if getattr(args, "target_type", None):
        return args.target_type == "speech"
    log = Path(args.output or "") / "instances.log"
    if not log.is_file():
        return False
    with log.open(encoding="utf-8") as file:
        return '"durations"' in file.readline()


def _of_something(score: Callable[..., float]) -> Callable[..., float]:
    """Score only what there is: no output has no latency."""

    @functools.wraps(score)
    def scored(self: LatencyScorer, instances: Mapping[int, Any]) -> float:
        said = any(getattr(instance, self.timestamp_type, None) for instance in instances.values())
        return score(self, instances) if said else math.nan

    return scored


def install() -> None:
    """Give the plain metrics the ideal clock and the others a name of their own. Further calls have no effect."""

    def from_args(cls: type[LatencyScorer], args: Namespace) -> LatencyScorer:
        return cls(computation_aware=False, use_ref_len=not args.no_use_ref_len)

    def metric_name(self: LatencyScorer) -> str:
        return LATENCY_SCORERS_NAME_DICT[type(self).__name__] + ("_CA" if self.computation_aware else "")

    for scorer in (LatencyScorer, ATDScorer):
        if not hasattr(scorer.__call__, "__wrapped__"):
            scorer.__call__ = _of_something(scorer.__call__)
    LatencyScorer.from_args = classmethod(from_args)
    LatencyScorer.metric_name = property(metric_name)
