"""Both benchmarks from the command line at miniature size, and the arithmetic behind their tables."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from echostream.models.config import architecture_config
from echostream.models.speech_encoder import EchoStreamSpeechEncoder
from scripts.benchmarks.encoder_systems import ReencodingConformer

SCRIPTS = Path(__file__).parents[3] / "scripts"
TINY = ["--arch", "echostream_tiny", "--threads", "1", "--repetitions", "1"]
ENCODER = [*TINY, "--reencoding-arch", "echostream_tiny", "--vocab", "50", "--training-batch", "2", "--training-s", "1"]


def start(script, *options):
    return subprocess.Popen(
        [sys.executable, str(SCRIPTS / script), *map(str, options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def run(script, *options):
    process = start(script, *options)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return output


def test_encoders_of_equal_size_are_of_equal_size():
    """The one of conformer size against the Conformer of the published dimensions."""
    with torch.device("meta"):
        ours = EchoStreamSpeechEncoder(architecture_config("echostream_conformer_size"))
        theirs = ReencodingConformer(architecture_config("echostream"), 10).encoder
    ours_size, theirs_size = (sum(weight.numel() for weight in part.parameters()) for part in (ours, theirs))
    assert ours_size == pytest.approx(theirs_size, rel=0.002)


def test_encoder_benchmark(tmp_path):
    pytest.importorskip("matplotlib")
    report, picture = tmp_path / "encoder.json", tmp_path / "encoder.png"
    output = run(
        "benchmarks/benchmark_encoder.py",
        *ENCODER,
        *("--lengths-s", 1, 2, "--segments-ms", 160, 320, "--validate-s", 1),
        *("--json", report, "--plot", picture),
    )
    content = json.loads(report.read_text())
    rows = content["rows"]
    assert [(row["segment_ms"], row["length_s"]) for row in rows] == [(160, 1), (160, 2), (320, 1), (320, 2)]
    for row in rows:
        assert row["ratio"] == pytest.approx(row["theirs"]["compute_s"] / row["ours"]["compute_s"])
        assert row["ours"]["rtf"] > 0
        assert row["ours"]["p95_ms"] >= row["ours"]["p50_ms"] > 0
    sizes = [row["ours"]["state_bytes"] for row in rows]
    assert max(sizes) < 1.1 * min(sizes)  # but for what waits for the rest of its segment it is of one size
    trained = {(r["system"], r["segment"]) for r in content["records"] if r["kind"] == "training"}
    assert trained == {("ours", 8), ("ours", 32), ("ours", 0), ("theirs", 0)}
    assert "summed from measured re-encodes at" in output
    assert "re-encoded for real" in output
    assert picture.read_bytes().startswith(b"\x89PNG")


def worker(monkeypatch, capsys, *options):
    """Measure in this process; what is printed, and the records in it."""
    from scripts.benchmarks import benchmark_encoder

    monkeypatch.setattr(
        sys, "argv", ["benchmarks/benchmark_encoder.py", *map(str, [*ENCODER, *options, "--worker", 1])]
    )
    benchmark_encoder.main()
    output = capsys.readouterr().out
    return output, [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def test_flatness(monkeypatch, capsys):
    from scripts.benchmarks.encoder_report import flatness

    _, records = worker(monkeypatch, capsys, "--flatness-hours", 0.04)
    assert [record["minute"] for record in records] == [1, 2]
    assert records[0]["state_bytes"] == records[1]["state_bytes"]
    assert f"| 2 | {1000 * records[1]['compute_per_audio_s']:.3g} |" in flatness(records, 1)


def test_profile(monkeypatch, capsys):
    output, (record,) = worker(monkeypatch, capsys, "--profile", "--segments-ms", 320)
    assert "Weights read a step" in output
    assert "| aten::addmm |" in output
    assert sum(record["shares"].values()) == pytest.approx(1)


def test_interrupted_benchmark_keeps_what_it_measured(tmp_path):
    report = tmp_path / "encoder.json"
    process = start(
        "benchmarks/benchmark_encoder.py",
        *ENCODER,
        *("--lengths-s", 1, 3600, "--segments-ms", 320, "--max-stream-s", 3600, "--max-steps", 0, "--json", report),
    )
    for line in process.stderr:  # progress comes every two seconds
        if "of 3600 s of audio" in line and not line.split("ms: ")[1].startswith("0."):
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "interrupted" in errors
    assert [row["length_s"] for row in json.loads(report.read_text())["rows"]] == [1]


def test_wrong_options_are_refused(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        worker(monkeypatch, capsys, "--segments-ms", 100)
    assert "multiple of 40 ms" in capsys.readouterr().err


def test_translation_benchmark(tmp_path):
    report = tmp_path / "translate.json"
    output = run("benchmarks/benchmark_translate.py", *TINY, "--lengths-s", 2, 4, "--validate-s", 2, "--json", report)
    rows = json.loads(report.read_text())["rows"]
    assert [row["length_s"] for row in rows] == [2, 4]
    for row in rows:
        ours, theirs = row["ours"], row["theirs"]
        assert row["ratio"] == pytest.approx(theirs["compute_s"] / ours["compute_s"])
        assert sum(theirs["stages"].values()) == pytest.approx(theirs["compute_s"])
        assert 0 < sum(ours["stages"].values()) <= ours["compute_s"]
        assert ours["first_sample_p95_ms"] >= ours["first_sample_p50_ms"] > 0
    assert 13 < rows[-1]["ours"]["units_per_s"] < 17
    assert 3 < rows[-1]["ours"]["speech_s"] < 4
    assert "recomputed for real" in output


def test_stepped_encoder_reads_what_the_whole_forward_reads():
    from echostream.models.config import architecture_config
    from scripts.benchmarks.benchmarking import Noise
    from scripts.benchmarks.encoder_systems import build_streaming

    system = build_streaming(architecture_config("echostream_tiny"), 50)
    samples = Noise().read(30_000)
    with torch.inference_mode():
        features, _ = system.fbank(torch.from_numpy(samples))
        whole, _, _ = system(features[None], torch.tensor([len(features)]), 8)
    state, read, position = system.init_state(), [], 0
    while position + (needed := system.next_samples(state)) <= len(samples):
        read += system.step(samples[position : position + needed], state)[0]
        position += needed
    read += system.step(samples[position:], state, is_last=True)[0]
    assert read == whole.argmax(-1)[0].tolist()


def test_stage_clock_charges_a_stage_its_own_part_only(monkeypatch):
    from scripts.benchmarks import translation_systems
    from scripts.benchmarks.translation_systems import StageClock

    ticks = iter([0.0, 1.0, 3.0, 10.0])  # outer begins, inner begins, inner ends, outer ends
    monkeypatch.setattr(translation_systems.time, "perf_counter", lambda: next(ticks))
    clock = StageClock()
    clock.charge("MT", lambda: clock.charge("encoder", lambda: None))
    assert clock.seconds["encoder"] == 2
    assert clock.seconds["MT"] == 8


def test_arithmetic():
    from scripts.benchmarks.benchmarking import prefix_grid
    from scripts.benchmarks.figures import chunk_schedule, growth_exponent, interpolate, markdown_table

    assert growth_exponent([1, 10, 100], [3, 300, 30000]) == pytest.approx(2)
    assert growth_exponent([5], [1]) is None
    assert chunk_schedule(1, 320).tolist() == [0.32, 0.64, 0.96, 1.0]
    assert chunk_schedule(0.64, 320).tolist() == [0.32, 0.64]
    grid = {1.0: 2.0, 4.0: 32.0}  # 2 t²
    assert interpolate(grid, np.array([0.5, 2.0, 4.0])) == pytest.approx([2.0, 8.0, 32.0])
    with pytest.raises(ValueError, match="no measurement reaches"):
        interpolate(grid, np.array([5.0]))
    assert prefix_grid([5, 15], 10) == [0.1, 0.3, 1, 2, 5, 10]
    assert markdown_table(["a", "b"], [[1.23456, None]]).splitlines()[-1] == "| 1.23 | – |"


def test_word_delays_count_audio_and_compute():
    from types import SimpleNamespace

    from scripts.benchmarks import benchmark_translate

    delays = benchmark_translate.WordDelays()

    def push(heard_s, frames, num_samples, words=()):
        output = SimpleNamespace(samples=np.zeros(num_samples), words=words)
        delays.push(0.05, heard_s, output, SimpleNamespace(frames=frames))

    word = SimpleNamespace(source_time_s=0.32, start_s=0.0)
    late = SimpleNamespace(source_time_s=0.64, start_s=0.2)
    push(0.375, 8, 1600)  # the first word's beginning is given at once, its end and the report later
    push(0.695, 16, 1600, [word])
    push(1.015, 24, 1600, [late])
    assert delays.delays_ms == pytest.approx([50, 370])


def test_training_benchmark(tmp_path):
    report = tmp_path / "train.json"
    options = ["--arch", "echostream_tiny", "--threads", 1, "--repetitions", 1, "--batch-s", 4, "--utterances-s", 4]
    output = run("benchmarks/benchmark_train.py", *options, "--segments-ms", 40, 320, 0, "--json", report)
    rows = json.loads(report.read_text())["rows"]
    assert [row["segment_ms"] for row in rows] == [40, 320, 0]
    for row in rows:
        assert row["audio_s_per_s"] == pytest.approx(4 / (row["forward_s"] + row["backward_s"]))
        assert 0 < row["attention"] < 1
    # One frame of right context for each frame, one for eight, none; 100 frames are padded to 128.
    assert [row["positions"] for row in rows] == pytest.approx([2 * 1.28, 1.125 * 1.28, 1])
    assert rows[-1]["cost"] == 1
    assert "an encoder of" in output and "| whole" in output


def test_training_benchmark_on_a_data_set(tmp_path):
    rows = []
    for number, seconds in enumerate((1.0, 1.5, 2.0)):
        samples = np.random.default_rng(number).normal(0, 0.1, round(seconds * 16_000))
        soundfile.write(tmp_path / f"{number}.wav", samples, 16_000)
        rows.append(f"{number}\t{number}.wav\t{round(100 * seconds)}")
    (tmp_path / "train.tsv").write_text("\n".join(["id\tsrc_audio\tsrc_n_frames", *rows]) + "\n")
    (tmp_path / "config.yaml").write_text("audio_root: .\nsample_rate: 16000\ninput_feat_per_channel: 80\n")
    options = ["--arch", "echostream_tiny", "--threads", 1, "--repetitions", 1, "--batch-s", 1, "--utterances-s", 1]
    options += ["--segments-ms", 0, "--data", tmp_path, "--config", "config.yaml"]
    # A batch of the two shorter ones, of which 50 frames are padding, and one of the longest.
    assert "padding: 10.0 % of the batches" in run("benchmarks/benchmark_train.py", *options, "--max-tokens", 300)


def test_training_benchmark_refuses_segments_between_frames():
    process = start("benchmarks/benchmark_train.py", "--segments-ms", 50)
    assert "segments of 50 ms: echostream has frames of 40 ms" in process.communicate(timeout=60)[1]
    assert process.returncode == 2
