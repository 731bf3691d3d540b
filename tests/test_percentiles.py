"""Percentiles: nearest rank, and NumPy's interpolation."""

import numpy as np
import pytest

from echostream.percentiles import percentile

VALUES = [5.0, 1.0, 4.0, 2.0, 3.0]


def test_percentile_is_the_nearest_rank():
    assert [percentile(VALUES, p) for p in (0, 20, 50, 95, 100)] == [1, 1, 3, 5, 5]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_an_interpolated_percentile_is_numpys(count):
    for percent in (0, 12.5, 50, 95, 100):
        expected = np.percentile(VALUES[:count], percent)
        assert percentile(VALUES[:count], percent, interpolated=True) == pytest.approx(expected)


@pytest.mark.parametrize("interpolated", [False, True])
def test_there_is_no_percentile_of_nothing(interpolated):
    with pytest.raises(ValueError, match="no percentile of nothing"):
        percentile([], 50, interpolated)
