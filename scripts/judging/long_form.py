"""Long streams scored as the field does: StreamLAAL and LongYAAL on output that is resegmented.

    python long_form.py score RUN --set SET [--speech]
    python long_form.py table OUTPUT

``score`` reads the log of an evaluation (scripts/evaluate.sh) of a set that scripts/judging/long_set.py has made, and
writes ``long_form.json`` beside it. OmniSTEval (Polák et al. 2025, arXiv:2509.17349) gives each word of a stream to one
of its sentences. On these, BLEU and chrF are computed; StreamLAAL (Papi et al. 2024, *StreamAtt*), the length-adaptive
average lagging of each sentence; and LongYAAL. A word of text counts from when it was shown, a spoken word from when
its end was heard; ``ca_`` marks the clock that counts computation as well.

``table`` joins what scripts/evaluate_long.sh has scored, beside the BLEU of the same sentences alone.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from echostream.evaluation.latency import lag_drift
from echostream.evaluation.quality import bleu, chrf
from echostream.evaluation.record import UtteranceRecord, load_records
from echostream.evaluation.timeline import Timeline
from echostream.text import text_lines
from scripts.benchmarks.figures import markdown_table
from scripts.command_line import require
from scripts.files import write_text
from scripts.judging.evaluation import RUN
from scripts.judging.long_set import ALONE, SEGMENTS, SENTENCES, SOURCE, TARGET
from scripts.judging.long_table import HEADS, LATENCIES, cells

INSTALL_HINT = "pip install -e '.[long-form]'"
SCORES = "long_form.json"
HYPOTHESES = "hypotheses.jsonl"
RESEGMENTED = "resegmented.jsonl"
THEIRS = ("long_laal", "long_yaal")  # OmniSTEval's names of our LATENCIES
CLOCKS = ("", "ca_")


def omnisteval() -> ModuleType:
    """The package, with what its tokenizer needs.

    Raises:
        SystemExit: it isn't there.
    """
    package = require("omnisteval.io", INSTALL_HINT)
    if shutil.which("perl") is None:
        raise SystemExit("error: perl is missing, which OmniSTEval's tokenizer runs: install it (Debian: package perl)")
    return package


def hypothesis(record: UtteranceRecord, source: str, speech: bool) -> dict[str, Any]:
    """A stream as OmniSTEval reads it: words, and when each was shown or heard, in ms.

    Raises:
        ValueError: the log has other words than its text.
    """
    units = record.text.split()
    ideal, aware = (Timeline.of(record, speech, computation_aware) for computation_aware in (False, True))
    if speech and not ideal.chunks:
        units = []  # what was never heard was not said
    if len(units) != len(ideal.word_ms):
        raise ValueError(f"the log of {source} has {len(ideal.word_ms)} words, and its text {len(units)}")
    return {
        "source": source,
        "prediction": " ".join(units),
        "delays": ideal.word_ms,
        "elapsed": aware.word_ms,
        "source_length": record.source_ms,
    }


def resegment(hypotheses: Sequence[dict[str, Any]], test_set: Path, work: Path, language: str | None) -> list[Any]:
    """The streams' words, sentence by sentence: OmniSTEval's instances, in the order of ``segments.json``.

    Args:
        hypotheses: of :func:`hypothesis`.
        test_set: folder of the set.
        work: gets the hypotheses and the resegmented output.
        language: for Moses' tokenizer; None: words are what lies between spaces.
    """
    reader = omnisteval()
    pipeline = require("omnisteval", INSTALL_HINT)
    work.mkdir(parents=True, exist_ok=True)
    write_text(work / HYPOTHESES, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in hypotheses))
    words = reader.load_resegmentation_inputs(
        str(test_set / SEGMENTS), None, str(test_set / SENTENCES), str(work / HYPOTHESES)
    )
    instances, lines = pipeline.resegment(*words, lang=language)
    write_text(work / RESEGMENTED, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return instances


def scores_of(instances: Sequence[Any]) -> dict[str, float | None]:
    """Quality and latency of resegmented sentences; latencies in ms."""
    package = require("omnisteval", INSTALL_HINT)
    found, _, _ = package.evaluate_instances(list(instances), compute_quality=False, is_longform=True)
    texts = [instance.prediction for instance in instances], [instance.reference for instance in instances]
    scores = {"bleu": bleu(*texts), "chrf": chrf(*texts)}
    for clock in CLOCKS:
        scores |= {
            f"{clock}{ours}": found.get(f"{clock}{theirs}", math.nan)
            for ours, theirs in zip(LATENCIES, THEIRS, strict=True)
        }
    return {name: None if math.isnan(value) else value for name, value in scores.items()}


def by_position(instances: Sequence[Any], offsets_s: Sequence[float], minutes: float) -> list[dict[str, Any]]:
    """Scores of the sentences that begin in each stretch of so many minutes, over all streams."""
    parts: dict[int, list[Any]] = {}
    for instance, offset_s in zip(instances, offsets_s, strict=True):
        parts.setdefault(int(offset_s // (60 * minutes)), []).append(instance)
    return [
        {"from_minute": minutes * part, "sentences": len(own), **scores_of(own)} for part, own in sorted(parts.items())
    ]


def spoken_lag(records: Iterable[UtteranceRecord], computation_aware: bool) -> dict[str, float | None]:
    """How far speech stays behind what was written: the most in ms, and how it grows in ms a minute (the mean)."""
    most, drifts = [], []
    for record in records:
        timeline = Timeline.of(record, speech=True, computation_aware=computation_aware)
        most += [heard - arrived for heard, arrived in zip(timeline.word_ms, timeline.word_arrived_ms, strict=True)]
        drift = lag_drift(timeline.word_ms, timeline.word_arrived_ms)
        drifts += [drift] if drift is not None else []
    return {
        "most_ms": max(most) if most else None,
        "drift_ms_a_minute": sum(drifts) / len(drifts) if drifts else None,
    }


def score(run: Path, test_set: Path, speech: bool, language: str | None, minutes: float) -> dict[str, Any]:
    """Everything about one run.

    Raises:
        ValueError: the run is not of this set, or isn't finished.
    """
    records = load_records(run)
    names = [Path(path.strip()).name for path in text_lines(test_set / SOURCE)]
    if sorted(records) != list(range(len(names))):
        raise ValueError(
            f"{run} has the streams {sorted(records)}, not the {len(names)} of {test_set}: finish it first"
        )
    found = [hypothesis(records[index], name, speech) for index, name in enumerate(names)]
    instances = resegment(found, test_set, run / "long_form", language)
    segments = json.loads((test_set / SEGMENTS).read_text(encoding="utf-8"))
    document = {
        "scores": scores_of(instances),
        "by_position": by_position(instances, [segment["offset"] for segment in segments], minutes),
        "sentences_due": len(instances),
        "sentences_said": sum(bool(instance.prediction.strip()) for instance in instances),
        "words_due": sum(len(instance.reference.split()) for instance in instances),
        "words_said": sum(len(instance.prediction.split()) for instance in instances),
        "lines": [segment["line"] for segment in segments],
    }
    if speech:
        document["spoken_lag"] = {f"{clock}lag": spoken_lag(records.values(), bool(clock)) for clock in CLOCKS}
    write_text(run / SCORES, json.dumps(document, indent=1) + "\n")
    return document


def alone(run: Path, test_set: Path, lines: Sequence[int]) -> dict[str, float]:
    """Quality of the sentences each by itself, counted as often as they are in the streams."""
    records, references = load_records(run), text_lines(test_set / TARGET)
    own = {entry["line"]: index for index, entry in enumerate(json.loads((test_set / SEGMENTS).read_text("utf-8")))}
    indices = [own[line] for line in lines]
    if missing := [index for index in indices if index not in records]:
        raise ValueError(f"{run} lacks sentence {missing[0]}: finish it first")
    texts = [records[index].text for index in indices], [references[index].strip() for index in indices]
    return {"bleu": bleu(*texts), "chrf": chrf(*texts)}


def table(output: Path) -> str:
    """``results.json`` of all that evaluate_long.sh has scored in ``output``, and a table of it.

    Raises:
        ValueError: nothing is there.
    """
    runs = sorted(output.glob(f"pause_*/{RUN.format('*')}/{SCORES}"), key=_order)
    if not runs:
        raise ValueError(f"{output} holds no scores: run scripts/evaluate_long.sh")
    results = []
    for path in runs:
        document = json.loads(path.read_text(encoding="utf-8"))
        pause_ms, segment_ms = _order(path)
        single = output / ALONE / path.parent.name
        own = alone(single, output / "sets" / ALONE, document["lines"]) if single.is_dir() else None
        results.append({"pause_ms": pause_ms, "segment_ms": segment_ms, "alone": own, **document})
    write_text(output / "results.json", json.dumps(results, indent=1) + "\n")
    return markdown_table(HEADS, [cells(result) for result in results])


def _order(path: Path) -> tuple[int, int]:
    pause, run = path.parts[-3:-1]
    return int(pause.removeprefix("pause_").removesuffix("ms")), int(run.removeprefix("segment_").removesuffix("ms"))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Score long streams by resegmentation.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="whether everything that scoring needs is installed")
    one = commands.add_parser("score", help="a finished evaluation of a set of long_set.py")
    one.add_argument("run", type=Path, help="its folder, segment_320ms or the like")
    one.add_argument("--set", dest="test_set", type=Path, required=True, help="folder of the set")
    one.add_argument("--speech", action="store_true", help="the output is speech: words count when they are heard")
    one.add_argument("--language", default="en", help="of the output, for the tokenizer (default: %(default)s)")
    one.add_argument("--part-minutes", type=float, default=1.0, help="of quality by position (default: %(default)s)")
    several = commands.add_parser("table", help="all runs of scripts/evaluate_long.sh")
    several.add_argument("output", type=Path)
    args = parser.parse_args(arguments)
    try:
        if args.command == "check":
            omnisteval()
        elif args.command == "score":
            if not args.part_minutes > 0:
                raise ValueError(f"--part-minutes must be above 0, got {args.part_minutes:g}")
            score(args.run, args.test_set, args.speech, args.language, args.part_minutes)
        else:
            print(table(args.output))
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
