"""From measured times to figures: recomputation summed, growth, Markdown tables, JSON, plots."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


def chunk_schedule(length_s: float, segment_ms: int) -> np.ndarray:
    """Seconds of audio that are there whenever a chunk is complete, the ragged end included."""
    ends = np.arange(1, round(length_s * 1000) // segment_ms + 1) * segment_ms / 1000
    return ends if len(ends) and ends[-1] >= length_s else np.append(ends, length_s)


def interpolate(grid: dict[float, float], at: np.ndarray) -> np.ndarray:
    """Times between measured ones, along power laws; below the shortest prefix its time.

    Raises:
        ValueError: a prefix longer than any measured one.
    """
    known = sorted(grid)
    if not known or at.max() > known[-1] * (1 + 1e-9):
        raise ValueError(f"no measurement reaches a prefix of {at.max():g} s")
    logs = np.interp(np.log(at), np.log(known), np.log([grid[key] for key in known]))
    return np.exp(logs)


def growth_exponent(lengths: Sequence[float], values: Sequence[float]) -> float | None:
    """Slope of ``values`` over ``lengths`` on logarithmic axes: 1 is linear, 0 is flat; None below two lengths."""
    if len(set(lengths)) < 2 or min(values) <= 0:
        return None
    return float(np.polyfit(np.log(lengths), np.log(values), 1)[0])


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Rows as Markdown, numbers to three significant digits, None as a dash."""
    lines = [[*header], ["---"] * len(header), *([_cell(value) for value in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


@dataclass
class Curve:
    """A line of a plot; ``computed`` ones, which were not run as such, are dashed."""

    label: str
    x: list[float]
    y: list[float]
    group: int = 0  # curves of a group share a colour
    computed: bool = False


def require_plotting() -> None:
    """Stop before the measurements if they could not be drawn."""
    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # it talks about every font
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise SystemExit(
            f"error: --plot needs matplotlib ({error}); install it with: pip install -e '.[eval]'"
        ) from error


def plot(
    path: Path,
    title: str,
    panels: Sequence[tuple[str, str, list[Curve], float | None]],
    logarithmic: bool = True,
) -> None:
    """Panels side by side, each ``(x label, y label, curves, y of a "real time" line or None)``.

    With ``logarithmic`` both axes are and every point is marked, with a tick of its own; else only y is.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter, LogLocator

    figure, axes = pyplot.subplots(1, len(panels), figsize=(6.5 * len(panels), 5), squeeze=False)
    for axis, (x_label, y_label, curves, real_time) in zip(axes[0], panels, strict=True):
        for curve in curves:
            axis.plot(
                curve.x,
                curve.y,
                marker=("s" if curve.computed else "o") if logarithmic else None,
                linestyle="--" if curve.computed else "-",
                color=f"C{curve.group}",
                label=curve.label,
            )
        if real_time is not None:
            axis.axhline(real_time, color="grey", linewidth=1)
            axis.annotate("real time", (0.01, real_time), xycoords=("axes fraction", "data"), va="bottom", color="grey")
        axis.set_yscale("log")
        if logarithmic:
            axis.set_xscale("log")
            ticks = sorted({value for curve in curves for value in curve.x})
            axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.minorticks_off()
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_xlabel(x_label)
        axis.set_ylabel(y_label)
        axis.grid(True, alpha=0.3)
        axis.legend(fontsize=8)
    figure.suptitle(title)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
