"""Tables and plot of the encoder benchmark, from its records."""

from __future__ import annotations

import argparse
from pathlib import Path

from echostream.constants import DEFAULT_SEGMENT_MS
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

FLATNESS_SEGMENT_MS = DEFAULT_SEGMENT_MS


def summarise(records: list[Record], args: argparse.Namespace) -> list[Record]:
    """A row for each number of threads, segment and length, with either system's figures as far as there are any."""
    rows = []
    for threads in args.threads:
        mine = [record for record in records if record["threads"] == threads]
        marks = {(r["segment_ms"], r["length_s"]): r for r in mine if r["kind"] == "stream"}
        grid = {r["prefix_s"]: r["seconds"] for r in mine if r["kind"] == "prefix"}
        peaks = {r["prefix_s"]: r["peak_bytes"] for r in mine if r["kind"] == "prefix"}
        for segment_ms in sorted(args.segments_ms):
            for length_s in sorted(args.lengths_s):
                row: Record = {"threads": threads, "segment_ms": segment_ms, "length_s": length_s}
                if mark := marks.get((segment_ms, length_s)):
                    row["ours"] = {**mark, "rtf": mark["compute_s"] / length_s}
                if grid and length_s <= max(grid):
                    row["theirs"] = summed(grid, length_s, segment_ms) | {"peak_bytes": peaks[length_s]}
                if "ours" in row and "theirs" in row:
                    row["ratio"] = row["theirs"]["compute_s"] / row["ours"]["compute_s"]
                if len(row) > 3:
                    rows.append(row)
    return rows


def summed(grid: dict[float, float], length_s: float, segment_ms: int) -> Record:
    """Figures of a stream from re-encodes measured at the prefix lengths of ``grid``."""
    times = interpolate(grid, chunk_schedule(length_s, segment_ms))
    return {
        "compute_s": float(times.sum()),
        "rtf": float(times.sum()) / length_s,
        "p50_ms": 1000 * percentile(times, 50, interpolated=True),
        "p95_ms": 1000 * percentile(times, 95, interpolated=True),
        "last_step_ms": 1000 * float(times[-1]),
        "state_bytes": round(length_s * SAMPLE_RATE) * 4,  # the audio itself
        "measured_prefixes": len(grid),
    }


def report(records: list[Record], rows: list[Record]) -> str:
    """All tables, in Markdown."""
    parts = []
    sizes = {r["system"]: r["parameters"] / 1e6 for r in records if r["kind"] == "size"}
    if rows:
        text = ", ".join(f"{name} {size:.1f} M" for name, size in sizes.items())
        prefixes = max((row["theirs"]["measured_prefixes"] for row in rows if "theirs" in row), default=0)
        parts.append(
            "### Streaming\n\nOurs carries state and ran each stream. Theirs, marked *, is fairseq's Conformer "
            f"re-encoding the whole prefix at every chunk: summed from measured re-encodes at {prefixes} prefix "
            f"lengths. Parameters: {text}. RTF: compute time / audio time. Memory: peak above the loaded model."
        )
        parts.append(streaming_table(rows))
        parts.append("### Growth with stream length\n\nExponents on log-log axes: 0 is flat, 1 linear, 2 quadratic.")
        parts.append(growth_table(rows))
    parts += [check(record, records) for record in records if record["kind"] == "executed"]
    training = [r for r in records if r["kind"] == "training"]
    if training:
        parts.append("### Training\n\nMilliseconds a second of audio, one batch, both CTC losses.")
        parts.append(training_table(training))
    minutes = [r for r in records if r["kind"] == "minute"]
    for threads in sorted({r["threads"] for r in minutes}):
        parts.append(flatness([r for r in minutes if r["threads"] == threads], threads))
    for record in records:
        if record["kind"] == "profile":
            parts.append(
                f"{record['segment_ms']} ms step with {record['threads']} threads: {record['p50_ms']:.2f} ms, of it "
                + ", ".join(f"{name} {100 * share:.0f} %" for name, share in record["shares"].items())
            )
    return "\n\n".join(parts) or "nothing was measured"


def streaming_table(rows: list[Record]) -> str:
    header = ["threads", "segment ms", "stream s"]
    for name in ("ours", "theirs*"):
        header += [f"{name}: RTF", "step p50 ms", "p95 ms", "last ms", "memory MB", "state kB"]
    lines = []
    for row in rows:
        line = [row["threads"], row["segment_ms"], row["length_s"]]
        for name in ("ours", "theirs"):
            if side := row.get(name):
                line += [side["rtf"], side["p50_ms"], side["p95_ms"], side["last_step_ms"]]
                line += [side["peak_bytes"] / 1e6, side["state_bytes"] / 1e3]
            else:
                line += [None] * 6
        lines.append([*line, row.get("ratio")])
    return markdown_table([*header, "theirs* / ours"], lines)


def growth_table(rows: list[Record]) -> str:
    lines = []
    for threads, segment_ms in sorted({(row["threads"], row["segment_ms"]) for row in rows}):
        line = [threads, segment_ms]
        for name in ("ours", "theirs"):
            sides = [
                (row["length_s"], row[name])
                for row in rows
                if (row["threads"], row["segment_ms"]) == (threads, segment_ms) and name in row
            ]
            for figure in ("compute_s", "last_step_ms"):
                line.append(growth_exponent([s for s, _ in sides], [side[figure] for _, side in sides]))
        lines.append(line)
    header = ["threads", "segment ms", "ours: total time", "last steps", "theirs*: total time", "last steps"]
    return markdown_table(header, lines)


def check(record: Record, records: list[Record]) -> str:
    """The really executed stream against its sum."""
    configured = record["stream_s"], record["segment_ms"]
    grid = {r["prefix_s"]: r["seconds"] for r in records if r["kind"] == "prefix" and r["threads"] == record["threads"]}
    text = f"Check with {record['threads']} threads: {configured[0]:g} s at {configured[1]} ms re-encoded for real"
    if not grid or max(grid) < configured[0]:
        return f"{text}: {record['seconds']:.2f} s (no sum to compare with)"
    sum_s = summed(grid, *configured)["compute_s"]
    return f"{text}: {record['seconds']:.2f} s; summed: {sum_s:.2f} s ({100 * (sum_s / record['seconds'] - 1):+.0f} %)"


def training_table(training: list[Record]) -> str:
    lines = []
    for record in training:
        name = "fairseq Conformer" if record["system"] == "theirs" else f"ours, segment {record['segment'] or 'whole'}"
        forward, backward = 1000 * record["forward_per_audio_s"], 1000 * record["backward_per_audio_s"]
        lines.append([record["threads"], name, forward, backward, forward + backward])
    return markdown_table(["threads", "system", "forward", "backward", "both"], lines)


def flatness(minutes: list[Record], threads: int) -> str:
    second, last = minutes[min(1, len(minutes) - 1)], minutes[-1]
    lines = [
        [r["minute"], 1000 * r["compute_per_audio_s"], r["state_bytes"], r["peak_bytes"] / 1e6] for r in (second, last)
    ]
    header = ["minute", "compute ms / s of audio", "state bytes", "memory MB above the model"]
    return f"### Flatness, {threads} threads, {FLATNESS_SEGMENT_MS} ms\n\n{markdown_table(header, lines)}"


def draw(path: Path, rows: list[Record]) -> None:
    """Real-time factor and step time over stream length, for the smallest number of threads measured."""
    threads = min(row["threads"] for row in rows)
    totals, steps = [], []
    for group, segment_ms in enumerate(sorted({row["segment_ms"] for row in rows})):
        for name, label in (("ours", "ours"), ("theirs", "re-encoding*")):
            sides = [
                (row["length_s"], row[name])
                for row in rows
                if row["threads"] == threads and row["segment_ms"] == segment_ms and name in row
            ]
            if sides:
                lengths = [length for length, _ in sides]
                for curves, figure in ((totals, "rtf"), (steps, "last_step_ms")):
                    values = [side[figure] for _, side in sides]
                    curves.append(Curve(f"{label}, {segment_ms} ms", lengths, values, group, name == "theirs"))
    title = f"Speech encoder and CTC heads, {threads} thread(s); *summed from measured re-encodes"
    plot(
        path,
        title,
        [
            ("stream length (s)", "real-time factor of the stream", totals, 1.0),
            ("stream length (s)", "time of a step at that point (ms)", steps, None),
        ],
    )
