"""The benchmark of the server at miniature size: real server, real clients, real time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
COMMAND = [sys.executable, "scripts/benchmarks/benchmark_serve.py", "--arch", "echostream_tiny", "--threads", "1"]


def run(*options: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*COMMAND, *options], cwd=REPOSITORY, capture_output=True, text=True, env=environment, check=False
    )


@pytest.mark.integration
def test_sessions_are_counted_and_reported(tmp_path):
    output = tmp_path / "serve.json"
    small = ["--seconds", "4", "--max-sessions", "1", "--limit-ms", "4000", "--modes", "batched"]
    done = run(*small, "--json", str(output))
    assert done.returncode == 0, done.stderr
    (trial,) = json.loads(output.read_text(encoding="utf-8"))["trials"]
    assert trial["sessions"] == 1 and trial["holds"] and not trial["lost"]
    assert 0 < trial["p50_ms"] <= trial["p95_ms"] < 4000 and trial["mean_batch"] == 1
    assert "| batched | 1 |" in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--segment-ms", "50"], "positive multiple of 40"),
        (["--seconds", "1"], "--seconds must be at least 4"),
        (["--audio", "nowhere"], "no wav or flac files in nowhere"),
    ],
)
def test_bad_options_are_named(options, message, monkeypatch, capsys):
    from scripts.benchmarks import benchmark_serve

    monkeypatch.setattr(sys, "argv", ["benchmark_serve.py", *options])
    with pytest.raises(SystemExit) as stopped:
        benchmark_serve.main()
    assert message in capsys.readouterr().err + str(stopped.value)
