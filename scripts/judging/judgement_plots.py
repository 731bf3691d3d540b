"""Quality over latency, from results.json: one plot over the test sets, one over the policies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Results = dict[str, Any]
QUALITY, LATENCY, START = "ECHO_ASR_BLEU", "ECHO_ATD", "ECHO_StartOffset_FirstWord"
X_LABELS = {LATENCY: "average token delay (s)", START: "speech begins after the first source word's end (s, median)"}
Y_LABEL = "ASR-BLEU as played"
MARKERS = "osD^vPX*"


def draw_sets(results: Results, titles: dict[str, str], path: Path, dark: bool) -> None:
    """A curve over the segment sizes for each set, with its cascade as a cross and its ceiling at the edge."""
    ours = results["policies"][0]
    with figure(path, dark, "Quality over latency, segments of 40 ms to whole utterances") as axes:
        for axis, metric in zip(axes, X_LABELS, strict=True):
            for index, (name, title) in enumerate(titles.items()):
                colour = f"C{index}"
                curve(axis, points(results, name, ours, metric), title, colour, MARKERS[index % len(MARKERS)])
                for x, y, _ in points(results, name, "cascade", metric):
                    axis.plot(x, y, "x", color=colour, markersize=9, markeredgewidth=2)
                streaming = points(results, name, "streaming-cascade", metric)
                axis.plot([x for x, _, _ in streaming], [y for _, y, _ in streaming], ":+", color=colour, markersize=9)
                if ceiling := results["ceilings"].get(name, {}).get(results["judges"][0]):
                    axis.axhline(ceiling["BLEU"], xmin=0.97, color=colour, linewidth=2)
            finish(axis, X_LABELS[metric])
        axes[0].annotate(
            "x: Whisper base and Hibari, offline;  +: streaming by local agreement;  bar at the right: the references",
            (0, -0.17),
            xycoords="axes fraction",
            fontsize=8,
        )


def draw_policies(results: Results, titles: dict[str, str], path: Path, dark: bool) -> None:
    """A curve over the segment sizes for each policy, on the sets that were run with several."""
    several = [
        name
        for name in titles
        if len({row["system"] for row in results["rows"] if row["set"] == name} & set(results["policies"])) > 1
    ]
    with figure(path, dark, "Policies: quality over latency") as axes:
        for axis, metric in zip(axes, X_LABELS, strict=True):
            for style, name in zip(("-", "--", ":"), several, strict=False):
                for index, policy in enumerate(results["policies"]):
                    label = f"{policy}: {titles[name]}"
                    found = points(results, name, policy, metric)
                    curve(axis, found, label, f"C{index}", MARKERS[index % len(MARKERS)], style)
            finish(axis, X_LABELS[metric])


def points(results: Results, name: str, system: str, metric: str) -> list[tuple[float, float, str]]:
    """``(seconds, BLEU, segment size)`` of what was measured, by size."""
    found = []
    for row in results["rows"]:
        scores = row["scores"]
        if row["set"] == name and row["system"] == system and None not in (scores.get(metric), scores.get(QUALITY)):
            segment = row["segment_ms"]
            found.append((segment or float("inf"), scores[metric] / 1000, scores[QUALITY], str(segment or "offline")))
    return [(x, y, label) for _, x, y, label in sorted(found)]


def curve(
    axis: Any, found: list[tuple[float, float, str]], label: str, colour: str, marker: str, style: str = "-"
) -> None:
    """A line through the segment sizes, each named."""
    if not found:
        return
    axis.plot([x for x, _, _ in found], [y for _, y, _ in found], style, marker=marker, color=colour, label=label)
    for x, y, text in found:
        axis.annotate(text, (x, y), xytext=(4, 4), textcoords="offset points", fontsize=7, color=colour)


def finish(axis: Any, x_label: str) -> None:
    axis.set_xlabel(x_label)
    axis.set_ylabel(Y_LABEL)
    axis.set_ylim(bottom=0)
    axis.grid(True, alpha=0.3)
    if axis.get_legend_handles_labels()[1]:
        axis.legend(fontsize=8)


@contextmanager
def figure(path: Path, dark: bool, title: str) -> Iterator[Any]:
    """Two panels, saved as a PNG whose background fits a dark or a light page."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with pyplot.style.context("dark_background" if dark else "default"):
        drawing, axes = pyplot.subplots(1, len(X_LABELS), figsize=(13, 5.2))
        if dark:
            for surface in (drawing, *axes):
                (surface.patch if surface is drawing else surface).set_facecolor("#0d1117")
        yield axes
        drawing.suptitle(title)
        drawing.tight_layout()
        path.parent.mkdir(parents=True, exist_ok=True)
        drawing.savefig(path, dpi=110)
        pyplot.close(drawing)
