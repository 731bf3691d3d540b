"""What scripts/judging/judge.py found, as tables: nothing here but results.json in, Markdown out."""

from __future__ import annotations

import argparse
import json
import math
import operator
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echostream.constants import DEFAULT_SEGMENT_MS
from scripts.benchmarks.figures import markdown_table
from scripts.judging.judgement_plots import draw_policies, draw_sets
from scripts.judging.long_table import HEADS, cells

OFFLINE = 0
SEGMENTS = (40, 160, 320, 640)
SUMMARY_MS = DEFAULT_SEGMENT_MS
POLICIES = ("alignment", "stride", "wait-k", "alignatt")
CASCADE, STREAMING_CASCADE = "cascade", "streaming-cascade"
# name: which recipe made it, its folder of lists, what a reader calls it
SETS = {
    "tatoeba": ("everyday", "simuleval_tatoeba", "Tatoeba, unseen sentences"),
    "tatoeba_unseen_voice": ("everyday", "simuleval_tatoeba_unseen_voice", "Tatoeba, unseen sentences and voices"),
    "sentences": ("phrasebook", "simuleval_sentences", "phrasebook, unseen sentences"),
    "templates": ("phrasebook", "simuleval_templates", "phrasebook, unseen templates"),
    "unseen_voice": ("phrasebook", "simuleval_unseen_voice", "phrasebook, unseen voice"),
    "noise": ("phrasebook", "simuleval_noise", "phrasebook, rooms and noise"),
    "multi30k": ("multi30k", "simuleval", "Multi30k test2016, French voice"),
    "asterisk": ("asterisk", "simuleval", "Asterisk, human speech"),
    "armelle": ("everyday", "simuleval_armelle", "Armelle, human speech at 8 kHz"),
}
REACH_SET = "sentences"
Results = dict[str, Any]
Row = dict[str, Any]


@dataclass(frozen=True)
class Aim:
    """What a score should be.

    Attributes:
        test_set: by its name.
        what: the score is, for a reader.
        metric: its name.
        relation: to ``bound``: at least, at most or under.
        bound: in the unit that a reader sees.
        segment_ms: at which it is measured.
        over_ms: what counts is its ratio to the score at this segment size.
        digits: that are shown.
        scale: from the score to what a reader sees.
    """

    test_set: str
    what: str
    metric: str
    relation: str
    bound: float
    segment_ms: int = SUMMARY_MS
    over_ms: int | None = None
    digits: int = 1
    scale: float = 1.0

    def measured(self, results: Results) -> float:
        """NaN where it was not."""
        scores = {row["segment_ms"]: row["scores"].get(self.metric) for row in select(results, self.test_set)}
        values = [scores.get(ms) for ms in (self.segment_ms, self.over_ms) if ms is not None]
        if None in values:
            return math.nan
        return self.scale * (values[0] if self.over_ms is None else ratio(*values))

    def cells(self, results: Results) -> tuple[str | None, str, str]:
        """What was measured, what was aimed at, and whether the one reaches the other."""
        value = self.measured(results)
        met = RELATIONS[self.relation](value, self.bound)
        known = not math.isnan(value)
        text = f"{value:.{self.digits}f}" if known else None
        return text, f"{self.relation} {self.bound:g}", ("yes" if met else "**no**") if known else "–"


RELATIONS = {"at least": operator.ge, "at most": operator.le, "under": operator.lt}
# Of a model that learns the phrasebook,
REACH = (
    Aim(REACH_SET, "ASR-BLEU at 320 ms", "ECHO_ASR_BLEU", "at least", 60),
    Aim(REACH_SET, "the same over its offline value", "ECHO_ASR_BLEU", "at least", 0.9, over_ms=OFFLINE, digits=2),
    Aim(REACH_SET, "ASR-BLEU at 40 ms over the offline value", "ECHO_ASR_BLEU", "at least", 0.8, 40, OFFLINE, 2),
    Aim(REACH_SET, "WER of the recognised source at 320 ms, %", "ECHO_SourceWER", "under", 15),
    Aim(
        REACH_SET, "speech begins after the end of the first source word, median at 320 ms, s",
        "ECHO_StartOffset_FirstWord", "under", 1, digits=2, scale=0.001,
    ),
)  # fmt: skip
# and of one that is to understand people.
AIMS = (
    Aim("asterisk", "text BLEU at 320 ms", "ECHO_BLEU", "at least", 17),
    Aim("asterisk", "WER of the recognised source at 320 ms, %", "ECHO_SourceWER", "at most", 25),
    Aim("asterisk", "text BLEU at 160 ms over that at 320 ms", "ECHO_BLEU", "at least", 0.95, 160, SUMMARY_MS, 2),
    Aim("asterisk", "text BLEU at 40 ms over that at 320 ms", "ECHO_BLEU", "at least", 0.9, 40, SUMMARY_MS, 2),
    Aim("armelle", "WER of the recognised source at 320 ms, %", "ECHO_SourceWER", "at most", 40),
    Aim("tatoeba", "ASR-BLEU at 320 ms", "ECHO_ASR_BLEU", "at least", 35),
    Aim("tatoeba", "the same over its offline value", "ECHO_ASR_BLEU", "at least", 0.92, over_ms=OFFLINE, digits=2),
)


def as_results(
    rows: list[Row],
    ceilings: dict[str, Any],
    args: argparse.Namespace,
    machine: dict[str, Any],
    long: dict[str, list[dict[str, Any]]],
) -> Results:
    """All that the report needs, without a path of this machine."""
    release = args.settings.checkpoint.with_name("release.json")
    facts = json.loads(release.read_text(encoding="utf-8")) if release.is_file() else {}
    kept = ("architecture", "parameters", "precision", "updates", "training_hours", "seed", "corpus")
    return {
        "machine": machine,
        "model": {key: facts[key] for key in kept if key in facts},
        "judges": args.asr_models,
        "judge_compute": args.asr_compute,
        "policies": args.policies,
        "policy_options": {name: getattr(args.settings, name) for name in ("stride_n", "lag_k", "beam")},
        "source_lm": args.settings.source_lm is not None,
        "least_language": args.settings.least_language,
        "jobs": args.jobs,
        "rows": [
            {**row, "scores": {name: None if math.isnan(value) else value for name, value in row["scores"].items()}}
            for row in rows
        ],
        "ceilings": ceilings,
        "long": long,
    }


def title(name: str) -> str:
    return SETS[name][2] if name in SETS else name


def size(segment_ms: int) -> str:
    return f"{segment_ms} ms" if segment_ms else "offline"


def ordered(rows: Iterable[Row]) -> list[Row]:
    """By segment size, offline last; sets keep their order."""
    return sorted(rows, key=lambda row: row["segment_ms"] or math.inf)


def select(results: Results, name: str, system: str | None = None) -> list[Row]:
    """Rows of a set, of our policy unless another ``system`` is named."""
    system = system or results["policies"][0]
    return ordered(row for row in results["rows"] if row["set"] == name and row["system"] == system)


def sets_of(results: Results) -> list[str]:
    return list(dict.fromkeys(row["set"] for row in results["rows"]))


def number(row: Row | None, metric: str, digits: int = 1, scale: float = 1.0) -> str | None:
    """A score as text, None where there is none."""
    value = (row or {}).get("scores", {}).get(metric)
    return None if value is None else f"{scale * value:.{digits}f}"


def seconds(row: Row | None, metric: str) -> str | None:
    return number(row, metric, 2, 0.001)


def quality(results: Results) -> str:
    """What is understood and what is said, over sets and segment sizes."""
    others = results["judges"][1:]
    header = ["test set", "segment", "ASR-BLEU as played", "without pauses"]
    header += [f"{judge}: as played / without" for judge in others]
    header += ["text BLEU", "text chrF", "speech WER", "source WER", "ST-CTC found / right"]
    rows = []
    for name in sets_of(results):
        for row in select(results, name):
            cells = [f"{title(name)} ({row['sentences']})", size(row["segment_ms"])]
            cells += [number(row, "ECHO_ASR_BLEU"), number(row, "ECHO_ASR_BLEU_NoPause")]
            cells += [pair(row, f"ECHO_ASR_BLEU@{judge}", f"ECHO_ASR_BLEU_NoPause@{judge}") for judge in others]
            cells += [number(row, "ECHO_BLEU"), number(row, "ECHO_chrF"), percent(row, "ECHO_ASR_WER_OwnText")]
            cells += [percent(row, "ECHO_SourceWER"), pair(row, "ECHO_ST_Recall", "ECHO_ST_Precision")]
            rows.append(cells)
    return markdown_table(header, blank_repeats(rows))


def summary(results: Results) -> str:
    """A row for each set at segments of 320 ms, beside the offline cascade: what a first page has room for."""
    header = ["test set (sentences)", "BLEU of the text", "of the speech", "speech of an offline cascade"]
    header += ["source WER", "speech begins after the first word (s, median)"]
    rows = []
    for name in sets_of(results):
        cascade = next(iter(select(results, name, CASCADE)), None)
        for row in select(results, name):
            if row["segment_ms"] == SUMMARY_MS:
                cells = [f"{title(name)} ({row['sentences']})", number(row, "ECHO_BLEU"), number(row, "ECHO_ASR_BLEU")]
                cells += [number(cascade, "ECHO_ASR_BLEU"), percent(row, "ECHO_SourceWER")]
                rows.append([*cells, seconds(row, "ECHO_StartOffset_FirstWord")])
    return markdown_table(header, rows)


def latency(results: Results) -> str:
    """How long one waits, over sets and segment sizes; seconds."""
    header = ["test set", "segment", "StartOffset", "after the first word, median", "LAAL", "ATD", "EndOffset"]
    header += ["pauses: number / s", "LAAL, ATD with computation", "real-time factor", "step p95"]
    rows = []
    for name in sets_of(results):
        for row in select(results, name):
            cells = [title(name), size(row["segment_ms"]), seconds(row, "ECHO_StartOffset")]
            first = (seconds(row, f"ECHO_StartOffset_FirstWord{end}") for end in ("", "_CA"))
            cells.append(" / ".join(text or "–" for text in first))
            cells += [seconds(row, f"ECHO_{metric}") for metric in ("LAAL", "ATD", "EndOffset")]
            cells.append(pauses(row))
            cells.append(" / ".join(seconds(row, f"ECHO_{metric}_CA") or "–" for metric in ("LAAL", "ATD")))
            cells += [number(row, "ECHO_RTF", 2), milliseconds(row, "ECHO_StepP95")]
            rows.append(cells)
    return markdown_table(header, blank_repeats(rows))


def several_policies(results: Results) -> list[str]:
    """Sets that were run with other policies beside ours."""
    others = results["policies"][1:]
    return [name for name in sets_of(results) if any(select(results, name, policy) for policy in others)]


def policies(results: Results) -> str:
    """Our policy beside the others."""
    header = ["test set", "policy", "segment", "ASR-BLEU as played", "without pauses", "text BLEU", "StartOffset"]
    header += ["after the first word, median", "LAAL", "ATD", "pauses: number / s"]
    rows = []
    for name in several_policies(results):
        for policy in results["policies"]:
            for row in select(results, name, policy):
                cells = [title(name), policy, size(row["segment_ms"])]
                cells += [number(row, f"ECHO_{metric}") for metric in ("ASR_BLEU", "ASR_BLEU_NoPause", "BLEU")]
                offsets = ("StartOffset", "StartOffset_FirstWord", "LAAL", "ATD")
                cells += [seconds(row, f"ECHO_{metric}") for metric in offsets]
                rows.append([*cells, pauses(row)])
    return markdown_table(header, blank_repeats(rows, 2))


def baselines(results: Results) -> str:
    """Ours, both cascades and the ceiling: ASR-BLEU of the speech and the wait until it begins."""
    header = ["test set", "system", "ASR-BLEU", "text BLEU", "text chrF", "StartOffset", "with computation", "ATD"]
    header += ["with computation", "real-time factor"]
    header[3:3] = results["judges"][1:]
    rows = []
    for name in sets_of(results):
        ours = {row["segment_ms"]: row for row in select(results, name)}
        systems = [(f"ours, {size(ms)}", ours[ms]) for ms in (SUMMARY_MS, OFFLINE) if ms in ours]
        systems += [("cascade: Whisper base, Hibari", row) for row in select(results, name, CASCADE)]
        for row in select(results, name, STREAMING_CASCADE):
            systems.append((f"streaming cascade, every {size(row['segment_ms'])}", row))
        for label, row in systems:
            cells = [title(name), label, number(row, "ECHO_ASR_BLEU")]
            cells += [number(row, f"ECHO_ASR_BLEU@{judge}") for judge in results["judges"][1:]]
            cells += [number(row, "ECHO_BLEU"), number(row, "ECHO_chrF")]
            cells += [seconds(row, f"ECHO_{metric}") for metric in ("StartOffset", "StartOffset_CA", "ATD", "ATD_CA")]
            rows.append([*cells, number(row, "ECHO_RTF", 2)])
        if ceiling := results["ceilings"].get(name):
            read = [f"{ceiling[judge]['BLEU']:.1f}" if judge in ceiling else None for judge in results["judges"]]
            rows.append([title(name), "ceiling: the reference recordings", *read, *[None] * 7])
    return markdown_table(header, blank_repeats(rows))


def long_speech(results: Results) -> str:
    """The sentences of a set on end, resegmented."""
    long = results.get("long", {})
    rows = [[title(name), *cells(result)] for name in long for result in long[name]]
    return markdown_table(["test set", *HEADS], blank_repeats(rows))


def reach(results: Results) -> str:
    """What was aimed at, on unseen phrasebook sentences, and what was reached."""
    cells = [[aim.what, *aim.cells(results)] for aim in REACH]
    return markdown_table([f"{title(REACH_SET)}", "measured", "aim", "reached"], cells)


def aims(results: Results) -> str:
    """What was aimed at, over the test sets that were judged, and what was reached."""
    rows: list[list[str | None]] = []
    for aim in AIMS:
        if select(results, aim.test_set):
            measured, wanted, reached = aim.cells(results)
            rows.append([title(aim.test_set), aim.what, wanted, measured, reached])
    return markdown_table(["test set", "figure", "aim", "measured", "reached"], blank_repeats(rows))


def setup(results: Results) -> str:
    """One paragraph: model, judges, machine."""
    model, machine = results["model"], results["machine"]
    what = "The model"
    if model:
        what = (
            f"{model['architecture']}, {model['parameters'] / 1e6:.1f} M parameters in {model['precision']}, "
            f"{model['updates']} updates in {model['training_hours']:g} h on {model['corpus']['source_hours']:g} h of "
            f"recordings, seed {model['seed']}"
        )
    options = results["policy_options"]
    chosen = {"stride": options["stride_n"], "lag": options["lag_k"]}
    policy = ", ".join(
        [results["policies"][0], *(f"{name} {value}" for name, value in chosen.items() if value is not None)]
    )
    search = "greedy decoding" if options["beam"] == 1 else f"beam of {options['beam']}"
    if results["source_lm"]:
        search += ", source words by prefix beam search with an n-gram model"
    if least := results.get("least_language"):  # results of an earlier version don't have it
        search += f", nothing said of sentences that are less likely than {least:g} in the source language"
    judges = " and ".join(f"Whisper {judge}" for judge in results["judges"])
    return (
        f"{what}. Policy: {policy}; {search}. Output "
        f"speech read by {judges} ({results['judge_compute']}). Times from {results['jobs']} evaluations at a time, "
        f"one thread each, on {machine['cpu']}, {machine['cores']} cores."
    )


def ratio(value: float, base: float) -> float:
    return value / base if base else math.nan


def pair(row: Row, left: str, right: str) -> str | None:
    both = [number(row, name) for name in (left, right)]
    return None if both == [None, None] else " / ".join(text or "–" for text in both)


def percent(row: Row, metric: str) -> str | None:
    text = number(row, metric)
    return None if text is None else f"{text} %"


def pauses(row: Row) -> str | None:
    count = number(row, "ECHO_DiscontinuityNum")
    return None if count is None else f"{count} / {seconds(row, 'ECHO_DiscontinuitySum')}"


def milliseconds(row: Row, metric: str) -> str | None:
    text = number(row, metric, 0)
    return None if text is None else f"{text} ms"


def blank_repeats(rows: list[list[str | None]], columns: int = 1) -> list[list[str | None]]:
    """Leave out what stands in the row above, in the first ``columns``."""
    blanked, above = [], [None] * columns
    for row in rows:
        same = 0
        while same < columns and row[same] == above[same]:
            same += 1
        blanked.append([""] * same + row[same:])
        above = row[:columns]
    return blanked


TABLES = {
    "setup": setup,
    "reach": reach,
    "aims": aims,
    "quality": quality,
    "summary": summary,
    "latency": latency,
    "policies": policies,
    "baselines": baselines,
    "long": long_speech,
}
PLOTS = {"sets": draw_sets, "policies": draw_policies}


def write_report(results: Results, folder: Path) -> dict[str, str]:
    """Write every table as NAME.md and the plots as NAME.png and NAME-dark.png.

    Returns:
        The tables by name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tables = {name: make(results) for name, make in TABLES.items()}
    for name, text in tables.items():
        (folder / f"{name}.md").write_text(f"{text}\n", encoding="utf-8")
    write_plots(results, folder)
    return tables


def write_plots(results: Results, folder: Path) -> list[Path]:
    """The plots, each for a light and a dark page; that of the policies only if there are several."""
    names = {name: title(name) for name in sets_of(results)}
    paths = []
    for name, draw in PLOTS.items():
        if name == "policies" and not several_policies(results):
            continue
        for dark in (False, True):
            path = folder / f"quality_latency_{name}{'-dark' if dark else ''}.png"
            draw(results, names, path, dark)
            paths.append(path)
    return paths
