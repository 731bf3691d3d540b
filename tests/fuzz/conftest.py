"""Fuzzing uses the same real server as tests/serve, and writes no files to the checkout."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from budget import DEEP
from hypothesis.configuration import set_hypothesis_home_dir
from memory import MAX_GROWN_MB, bounded

set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "echostream-hypothesis")  # tables of Unicode


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """Over all cases of a test; of a deep run, Hypothesis itself keeps much."""
    with bounded(max_mb=3 * MAX_GROWN_MB if DEEP else MAX_GROWN_MB):
        yield
