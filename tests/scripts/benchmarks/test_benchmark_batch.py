"""The benchmark of batched steps at miniature size."""

import json
import sys

import pytest
import torch

from scripts.benchmarks import benchmark_batch

SMALL = ["--arch", "echostream_tiny", "--threads", "1", "--steps", "4"]


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def run(monkeypatch, *options):
    monkeypatch.setattr(sys, "argv", ["benchmark_batch.py", *map(str, options)])
    benchmark_batch.main()


def test_steps_are_timed_both_ways_and_by_stage(tmp_path, monkeypatch, capsys):
    output = tmp_path / "batch.json"
    run(monkeypatch, *SMALL, "--sessions", 1, 3, "--json", output)
    trials = json.loads(output.read_text(encoding="utf-8"))["trials"]
    assert [trial["sessions"] for trial in trials] == [1, 3]
    for trial in trials:
        for way in ("single", "batched"):
            assert 0 < sum(trial[f"{way}_stages_ms"].values()) < trial[f"{way}_ms"]
    printed = capsys.readouterr().out
    assert "| sessions, 320 ms segments | one by one (ms) | batched (ms) | ratio |" in printed
    assert "| decide and write |" in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--segment-ms", "50"], "positive multiple of 40"),
        (["--sessions", "0"], "must be positive"),
        ([*SMALL, "--audio", "nowhere"], "no wav or flac files in nowhere"),
        (["--model", "nowhere"], "nowhere"),
    ],
)
def test_bad_options_are_named(options, message, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, *options)
    assert message in capsys.readouterr().err + str(stopped.value)


def test_other_words_in_a_batch_end_the_benchmark(monkeypatch):
    step_batch = benchmark_batch.StreamingTranslator.step_batch

    def forgetful(self, samples, states, is_last):
        outputs = step_batch(self, samples, states, is_last)
        return [outputs[0] for _ in outputs]

    monkeypatch.setattr(benchmark_batch.StreamingTranslator, "step_batch", forgetful)
    with pytest.raises(SystemExit, match="other words in a batch than alone"):
        run(monkeypatch, *SMALL, "--steps", 20, "--sessions", 3)
