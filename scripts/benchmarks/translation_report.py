"""Tables and plot of the translation benchmark, from its records."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from echostream.percentiles import percentile
from scripts.benchmarks.benchmarking import SAMPLE_RATE, Record
from scripts.benchmarks.figures import (
    Curve,
    chunk_schedule,
    growth_exponent,
    interpolate,
    markdown_table,
    plot,
)
from scripts.benchmarks.translation_systems import STAGES, TOKEN_MS


def is_write(there_s: np.ndarray, segment_ms: int) -> np.ndarray:
    """Which chunks complete a further subword; all do if a chunk is at least as long as one."""
    tokens = np.floor(there_s * 1000 / TOKEN_MS + 1e-9)
    return np.diff(tokens, prepend=0) > 0


def summarise(records: list[Record], args: argparse.Namespace) -> list[Record]:
    """A row for each number of threads and each length, with either way's figures as far as there are any."""
    rows = []
    for threads in args.threads:
        mine = [record for record in records if record["threads"] == threads]
        marks = {r["length_s"]: r for r in mine if r["kind"] == "stream"}
        prefixes = {r["prefix_s"]: r for r in mine if r["kind"] == "prefix"}
        for length_s in sorted(args.lengths_s):
            row: Record = {"threads": threads, "segment_ms": args.segment_ms, "length_s": length_s}
            if mark := marks.get(length_s):
                row["ours"] = {**mark, "rtf": mark["compute_s"] / length_s}
            if length_s in prefixes:
                row["theirs"] = summed(prefixes, length_s, args.segment_ms)
            if "ours" in row and "theirs" in row:
                row["ratio"] = row["theirs"]["compute_s"] / row["ours"]["compute_s"]
            if len(row) > 3:
                rows.append(row)
    return rows


def summed(prefixes: dict[float, Record], length_s: float, segment_ms: int) -> Record:
    """Figures of a stream from writes measured at several prefix lengths."""
    schedule = chunk_schedule(length_s, segment_ms)
    writes = is_write(schedule, segment_ms)
    stages = {}
    for stage in STAGES:
        times = interpolate({at: record["stages"][stage] for at, record in prefixes.items()}, schedule)
        stages[stage] = times if stage == "encoder" else times * writes
    times = sum(stages.values())
    return {
        "compute_s": float(times.sum()),
        "rtf": float(times.sum()) / length_s,
        "p50_ms": 1000 * percentile(times, 50, interpolated=True),
        "p95_ms": 1000 * percentile(times, 95, interpolated=True),
        "last_step_ms": 1000 * sum(prefixes[length_s]["stages"].values()),
        "stages": {stage: float(values.sum()) for stage, values in stages.items()},
        "state_bytes": round(length_s * SAMPLE_RATE) * 4,  # the audio itself
        "peak_bytes": prefixes[length_s]["peak_bytes"],
        "measured_prefixes": len(prefixes),
    }


def report(records: list[Record], rows: list[Record], args: argparse.Namespace) -> str:
    """All tables, in Markdown."""
    if not rows:
        return "nothing was measured"
    size = next((record for record in records if record["kind"] == "size"), {"model": 0, "vocoder": 0})
    prefixes = max((row["theirs"]["measured_prefixes"] for row in rows if "theirs" in row), default=0)
    last = max((row["ours"] for row in rows if "ours" in row), key=lambda mark: mark["length_s"], default=None)
    pace = ""
    if last:
        pace = (
            f" Pace of ours: {last['units_per_s']:.1f} units a second, "
            f"{last['speech_s']:.1f} s of speech out in {last['length_s']:g} s."
        )
    return "\n\n".join(
        [
            f"### Speech to speech, segments of {args.segment_ms} ms, a subword each {TOKEN_MS} ms",
            f"Model {size['model'] / 1e6:.1f} M parameters, vocoder {size['vocoder'] / 1e6:.1f} M, random weights, "
            f"biased to a steady pace.{pace} Ours ran the stream. Theirs, marked *, recomputes every stage over the "
            f"whole prefix at each write: summed from writes measured at {prefixes} prefix lengths. RTF: compute time "
            "/ audio time. First sample: from the push that allows a word to its first sample, audio to wait for "
            "included; theirs: the write at that point. Memory: peak above the loaded model.",
            streaming_table(rows),
            "### Milliseconds of compute a second of audio, by stage\n\nEncoder: with features and CTC heads.",
            stage_table(rows),
            "### Growth with stream length\n\nExponents on log-log axes: 0 is flat, 1 linear, 2 quadratic.",
            growth_table(rows),
            *[check(record, records) for record in records if record["kind"] == "executed"],
        ]
    )


def streaming_table(rows: list[Record]) -> str:
    header = ["threads", "stream s", "ours: RTF", "step p50 ms", "p95 ms", "last ms", "first sample p50 ms", "p95 ms"]
    header += ["memory MB", "state kB", "theirs*: RTF", "step p50 ms", "p95 ms", "last ms = first sample"]
    lines = []
    for row in rows:
        line = [row["threads"], row["length_s"]]
        keys = ["rtf", "p50_ms", "p95_ms", "last_step_ms"]
        if ours := row.get("ours"):
            line += [ours[key] for key in [*keys, "first_sample_p50_ms", "first_sample_p95_ms"]]
            line += [ours["peak_bytes"] / 1e6, ours["state_bytes"] / 1e3]
        else:
            line += [None] * 8
        if theirs := row.get("theirs"):
            line += [*(theirs[key] for key in keys), theirs["peak_bytes"] / 1e6, theirs["state_bytes"] / 1e3]
        else:
            line += [None] * 6
        lines.append([*line, row.get("ratio")])
    return markdown_table([*header, "memory MB", "state kB", "theirs* / ours"], lines)


def stage_table(rows: list[Record]) -> str:
    header = ["threads", "stream s", *(f"ours: {stage}" for stage in STAGES), "rest"]
    lines = []
    for row in rows:
        line = [row["threads"], row["length_s"]]
        if ours := row.get("ours"):
            spent = [1000 * ours["stages"][stage] / row["length_s"] for stage in STAGES]
            line += [*spent, 1000 * ours["compute_s"] / row["length_s"] - sum(spent)]
        else:
            line += [None] * (len(STAGES) + 1)
        theirs = row.get("theirs")
        line += [1000 * theirs["stages"][stage] / row["length_s"] if theirs else None for stage in STAGES]
        lines.append(line)
    return markdown_table([*header, *(f"theirs*: {stage}" for stage in STAGES)], lines)


def growth_table(rows: list[Record]) -> str:
    lines = []
    for threads in sorted({row["threads"] for row in rows}):
        for name, label in (("ours", "ours"), ("theirs", "theirs*")):
            sides = [(row["length_s"], row[name]) for row in rows if row["threads"] == threads and name in row]
            lengths = [length for length, _ in sides]
            exponents = [
                growth_exponent(lengths, [side[figure] for _, side in sides]) if sides else None
                for figure in ("compute_s", "last_step_ms", "state_bytes")
            ]
            by_stage = [
                growth_exponent(lengths, [side["stages"][stage] for _, side in sides]) if sides else None
                for stage in STAGES
            ]
            lines.append([threads, label, *exponents, *by_stage])
    header = ["threads", "", "total time", "last steps", "state", *(f"{stage}: total" for stage in STAGES)]
    return markdown_table(header, lines)


def check(record: Record, records: list[Record]) -> str:
    """The really executed stream against its sum."""
    prefixes = {r["prefix_s"]: r for r in records if r["kind"] == "prefix" and r["threads"] == record["threads"]}
    text = f"Check with {record['threads']} threads: {record['stream_s']:g} s recomputed for real"
    if record["stream_s"] not in prefixes:
        return f"{text}: {record['seconds']:.2f} s (no sum to compare with)"
    sum_s = summed(prefixes, record["stream_s"], record["segment_ms"])["compute_s"]
    return f"{text}: {record['seconds']:.2f} s; summed: {sum_s:.2f} s ({100 * (sum_s / record['seconds'] - 1):+.0f} %)"


def draw(path: Path, rows: list[Record]) -> None:
    """Real-time factor and step time over stream length, both ways, for each number of threads."""
    totals, steps = [], []
    for group, threads in enumerate(sorted({row["threads"] for row in rows})):
        for name, label in (("ours", "state carried"), ("theirs", "recomputed*")):
            sides = [(row["length_s"], row[name]) for row in rows if row["threads"] == threads and name in row]
            if sides:
                lengths = [length for length, _ in sides]
                for curves, figure in ((totals, "rtf"), (steps, "last_step_ms")):
                    values = [side[figure] for _, side in sides]
                    curves.append(Curve(f"{label}, {threads} thread(s)", lengths, values, group, name == "theirs"))
    segment_ms = rows[0]["segment_ms"]
    plot(
        path,
        f"Speech-to-speech translation, segments of {segment_ms} ms; *summed from measured writes",
        [
            ("stream length (s)", "real-time factor of the stream", totals, 1.0),
            ("stream length (s)", "time of a step at that point (ms)", steps, float(segment_ms)),
        ],
    )
