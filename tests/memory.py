"""How much memory a test takes: of this process at its peak, and of the programs that it runs.

What harms a program by its size is refused before it is made; a test that only looks at the message would not see one
that is refused after it took eleven gigabytes.
"""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

# Measured: at most 150 MB of one test, with what it is the first to import. What attacks took once begins at 300 MB.
MAX_GROWN_MB = 250
MAX_PROGRAM_MB = 2_500  # of a whole program with fairseq, torch and a tiny model; measured: 980 MB


def memory_mb(line: str, pid: int | str = "self") -> float:
    """A line of what Linux says of a process's memory, such as ``VmRSS``, or ``VmHWM`` for the peak."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(re.search(rf"{line}:\s+(\d+)", status)[1]) / 1000


@contextmanager
def bounded(pid: int | str = "self", max_mb: float = MAX_GROWN_MB) -> Iterator[None]:
    """A stretch of time in which the memory of a process grows by less than ``max_mb`` at its peak."""
    with suppress(OSError):  # where the peak can't be set back, it is that of all times, and may hide a smaller one
        Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")
    before_mb, peak_before_mb = memory_mb("VmRSS", pid), memory_mb("VmHWM", pid)
    yield
    peak_mb = memory_mb("VmHWM", pid)
    grown_mb = peak_mb - (before_mb if peak_before_mb < before_mb + 1 else peak_before_mb)
    assert grown_mb < max_mb, f"{grown_mb:.0f} MB more than the {before_mb:.0f} MB before"


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """Every test of a file that imports this stays within bounds, and so do the programs that it starts."""
    programs_mb = _programs_mb()
    with bounded():
        yield
    after_mb = _programs_mb()
    # Linux counts a program's memory from before its start, when it still is a copy of this process.
    max_mb = max(MAX_PROGRAM_MB, memory_mb("VmHWM") + 1)
    assert after_mb == programs_mb or after_mb < max_mb, f"a program took {after_mb:.0f} MB"


def _programs_mb() -> float:
    """The peak of the largest one that has ended so far."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000
