"""The bound on memory that tests of attacks stay within is one that can be broken."""

import subprocess
import sys
from pathlib import Path

import pytest
from memory import bounded

# A program of its own: where the peak can't be set back, that of other tests would hide the one looked for.
PEAK = """
from memory import bounded

with bounded(max_mb=40):
    assert len(b"1" * 4_000_000) == 4_000_000
with bounded(max_mb=40):
    assert len(b"1" * 80_000_000) == 80_000_000
"""


def test_a_peak_is_seen_also_when_it_is_over():
    ran = subprocess.run([sys.executable, "-c", PEAK], cwd=Path(__file__).parent, capture_output=True, text=True)
    assert ran.returncode == 1
    assert "line 6" in ran.stderr
    assert "MB more than" in ran.stderr.splitlines()[-1]


def test_another_process_is_watched():
    command = [sys.executable, "-c", "input(); held = b'1' * 80_000_000; print(len(held), flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        with pytest.raises(AssertionError, match=r"\d+ MB more than"), bounded(other.pid, max_mb=40):
            other.stdin.write("\n")
            other.stdin.flush()
            assert other.stdout.readline() == "80000000\n"
        other.kill()
