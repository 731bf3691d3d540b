"""scripts/evaluate.sh and its result table."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from echostream.evaluation.record import load_records

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="module")
def evaluation():
    spec = importlib.util.spec_from_file_location("evaluation", SCRIPTS / "judging" / "evaluation.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def lists(tmp_path) -> tuple[Path, Path]:
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 8000), 16000)
    (tmp_path / "wavs").write_text(f"{tmp_path / 'a.wav'}\n", encoding="utf-8")
    (tmp_path / "text").write_text("one two\n", encoding="utf-8")
    return tmp_path / "wavs", tmp_path / "text"


def test_valid_lists_are_accepted(evaluation, lists):
    assert evaluation.check_lists(*lists) == 0.5


def test_only_sources_within_the_limit_must_exist(evaluation, lists):
    wavs, text = lists
    wavs.write_text(f"{wavs.read_text(encoding='utf-8')}missing.wav\n", encoding="utf-8")
    text.write_text("one two\nthree\n", encoding="utf-8")
    assert evaluation.check_lists(wavs, text, limit=1) == 0.5


def test_errors_name_invalid_lists(evaluation, lists, tmp_path):
    wavs, text = lists
    with pytest.raises(ValueError, match="no such list"):
        evaluation.check_lists(wavs, tmp_path / "missing")
    text.write_text("one\ntwo\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"1 lines, .* 2"):
        evaluation.check_lists(*lists)
    wavs.write_text(f"{tmp_path / 'a.wav'}\n{tmp_path / 'b.wav'}\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 2: cannot read"):
        evaluation.check_lists(*lists)
    soundfile.write(tmp_path / "b.wav", np.zeros((2000, 2)), 8000)  # is converted as it is read
    assert evaluation.check_lists(*lists) == 0.75


def test_a_finished_run_is_kept_until_its_settings_change(evaluation, tmp_path):
    run, model = tmp_path / "run", tmp_path / "model.pt"
    model.write_bytes(b"one")
    settings = evaluation.describe([f"model={model}", "task=s2st"])
    assert evaluation.begin(run, settings) == evaluation.TO_DO
    (run / "instances.log").write_text("half a line", encoding="utf-8")
    assert evaluation.begin(run, settings) == evaluation.TO_DO  # it contains no results
    (run / "instances.log").write_text("a line\nhalf a", encoding="utf-8")
    assert evaluation.begin(run, settings) == evaluation.BEGUN
    assert (run / "instances.log").read_text(encoding="utf-8") == "a line\n"
    assert evaluation.begin(run, {**settings, "task": "s2tt"}) == evaluation.TO_DO  # another kind of run
    assert not (run / "instances.log").exists()
    assert evaluation.begin(run, settings) == evaluation.TO_DO
    (run / "scores.tsv").write_text("A\n1\n", encoding="utf-8")
    assert evaluation.begin(run, settings) == evaluation.DONE
    assert (run / "scores.tsv").exists()
    model.write_bytes(b"another")
    with pytest.raises(ValueError, match="contents of model"):
        evaluation.begin(run, evaluation.describe([f"model={model}", "task=s2st"]))
    assert evaluation.begin(run, settings, force=True) == evaluation.TO_DO
    assert not (run / "scores.tsv").exists()


def test_a_list_is_the_same_when_it_says_the_same(evaluation, tmp_path):
    sources = tmp_path / "source.txt"
    sources.write_text("a.wav\n", encoding="utf-8")
    before = evaluation.describe([f"source={sources}"])
    os.utime(sources, ns=(1, 1))
    assert evaluation.describe([f"source={sources}"]) == before
    sources.write_text("b.wav\n", encoding="utf-8")
    assert evaluation.describe([f"source={sources}"]) != before


def test_a_folder_is_another_model_when_its_weights_change(evaluation, tmp_path):
    folder = tmp_path / "model"
    (folder / "vocoder").mkdir(parents=True)
    (folder / "vocoder" / "vocoder.pt").write_bytes(b"one")
    before = evaluation.describe([f"model={folder}"])
    (folder / "samples.tsv").write_text("id\n", encoding="utf-8")
    assert evaluation.describe([f"model={folder}"]) == before
    (folder / "vocoder" / "vocoder.pt").write_bytes(b"other")
    assert evaluation.describe([f"model={folder}"]) != before


def test_table(evaluation, tmp_path):
    for segment, row in ((40, "BLEU\tATD\n1.5\t\n"), (320, "BLEU\tATD\n2.25\t100\n")):
        run = tmp_path / f"segment_{segment}ms"
        evaluation.begin(run, {"task": "s2st"})
        (run / "scores.tsv").write_text(row, encoding="utf-8")
        (run / "transcripts.jsonl").write_text('{"key": "x", "model": "M", "text": ""}\n', encoding="utf-8")
    table = evaluation.write_table(tmp_path, [40, 320])
    assert [line.split() for line in table.splitlines()[:3]] == [
        ["segment", "40", "ms", "320", "ms"],
        ["BLEU", "1.50", "2.25"],
        ["ATD", "-", "100.00"],
    ]
    assert table.endswith("read by M")
    assert (tmp_path / "results.tsv").read_text(encoding="utf-8") == (
        "segment_ms\tBLEU\tATD\n40\t1.5\t\n320\t2.25\t100.0\n"
    )
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["results"]
    assert [(r["segment_ms"], r["scores"]) for r in results] == [
        (40, {"BLEU": 1.5, "ATD": None}),
        (320, {"BLEU": 2.25, "ATD": 100.0}),
    ]
    with pytest.raises(ValueError, match="not finished"):
        evaluation.write_table(tmp_path, [80])


def evaluate(*options: str) -> subprocess.CompletedProcess:
    command = [str(SCRIPTS / "evaluate.sh"), *options]
    environment = {"PYTHON": sys.executable, "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": "/nonexistent"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


BASIC = ("--model", "m.pt", "--source", "s", "--target", "t", "--output", "o")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "--model is missing"),
        (("--model", "m.pt"), "--source is missing"),
        (("--model",), "--model needs a value"),
        (("--modle", "m.pt"), "unknown option --modle"),
        ((*BASIC, "--precision"), "--precision needs a value"),
        ((*BASIC, "--segments", "40 x"), "milliseconds, got 'x'"),
        ((*BASIC, "--segments", "100"), "multiples of 40 ms, got 100"),
        ((*BASIC, "--segments", " "), "--segments is empty"),
        ((*BASIC, "--task", "tts"), "not 'tts'"),
        ((*BASIC, "--limit", "few"), "--limit takes a number"),
        ((*BASIC, "--asr-compute", "int4"), "not 'int4'"),
        ((*BASIC, "--source-text", "x"), "no such list: x (--source-text)"),
        ((*BASIC, "--cascade"), "--cascade has a model and a voice of its own"),
        ((*BASIC[2:], "--cascade", "--task", "asr"), "--cascade is for the task s2st"),
        (BASIC, "no such list: s"),
    ],
)
def test_invalid_options_end_with_one_line(options, message):
    result = evaluate(*options)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.integration
def test_the_whole_recipe(lists, tmp_path):
    options = ["--random-arch", "echostream_tiny", "--policy", "fixed-rate", "--task", "s2tt"]
    (tmp_path / "ends").write_text("0.1\n", encoding="utf-8")
    lists[0].write_text(2 * lists[0].read_text(encoding="utf-8"), encoding="utf-8")
    lists[1].write_text("one two\nthree\n", encoding="utf-8")
    options += ["--source", str(lists[0]), "--target", str(lists[1]), "--output", str(tmp_path / "out"), "--limit", "1"]
    options += ["--source-text", str(lists[1]), "--first-word-ends", str(tmp_path / "ends")]
    options += ["--least-language", "0", "--least-confidence", "0", "--precision", "bfloat16"]  # go to the agent
    first = evaluate(*options, "--segments", "40 0")
    assert first.returncode == 0, first.stderr
    for metric in ("ECHO_LAAL_CA", "ECHO_SourceWER", "ECHO_ST_Recall", "ECHO_StartOffset_FirstWord_CA"):
        assert metric in first.stdout
    streamed, offline = (load_records(tmp_path / "out" / f"segment_{size}ms")[0].steps for size in (40, 0))
    assert len(streamed) > 10
    assert [step.arrived_ms for step in offline] == [500]  # the whole recording in one step
    log = tmp_path / "out" / "segment_0ms" / "instances.log"
    assert log.read_text(encoding="utf-8").count("\n") == 1  # of two sources
    (tmp_path / "out" / "segment_0ms" / "scores.tsv").unlink()  # as after an interruption during scoring
    before = log.read_text(encoding="utf-8")
    again = evaluate(*options, "--segments", "40 0")
    assert again.stdout.count("finished before") == 1
    assert "from where it stopped" in again.stdout
    assert log.read_text(encoding="utf-8") == before
    quality = [line for line in first.stdout.splitlines() if line.startswith("ECHO_ST")]
    assert quality == [line for line in again.stdout.splitlines() if line.startswith("ECHO_ST")]
    changed = evaluate(*options, "--segments", "40", "--stride-n", "2")
    assert changed.returncode == 1
    assert "--force" in changed.stderr
    broken = evaluate(*options[2:], "--segments", "40", "--model", "missing.pt", "--force")
    assert broken.returncode == 1
    assert "missing.pt" in broken.stderr
