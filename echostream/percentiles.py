"""Percentiles of measured times."""

from __future__ import annotations

import math
from collections.abc import Sequence


def percentile(values: Sequence[float], percent: float, interpolated: bool = False) -> float:
    """The value that ``percent`` % of all values do not exceed.

    Args:
        values: in any order.
        percent: 0 to 100.
        interpolated: False is the nearest rank, the smallest of the values such that at least ``percent`` % do not
            exceed it: it is a time that was measured. The ``ECHO_StepP50`` and ``ECHO_StepP95`` of the evaluation and
            the figures of the demo are nearest ranks. True interpolates linearly between the two ranks around it
            (Hyndman & Fan 1996, type 7, NumPy's default), as all figures of ``scripts/benchmarks`` do.

    Raises:
        ValueError: there are no values.
    """
    if len(values) == 0:
        raise ValueError("no percentile of nothing")
    ordered = sorted(values)
    if not interpolated:
        return ordered[max(1, math.ceil(percent * len(ordered) / 100)) - 1]
    position = percent / 100 * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return float(ordered[below] + (position - below) * (ordered[above] - ordered[below]))
