"""The training recipe: options, progress lines and checkpoint averaging."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

from average_checkpoints import average, last_checkpoints  # noqa: E402
from train_progress import minutes, summarise  # noqa: E402


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["bash", str(SCRIPTS / "train.sh"), *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--data and --save-dir are needed"),
        (["--data", "none", "--save-dir", "x"], "--max-minutes or --max-update"),
        (["--data", "none", "--save-dir", "x", "--max-update", "5"], "--data none: no such folder"),
        (["--dta", "x"], "unknown option --dta"),
        (["--data"], "--data needs a value"),
        (["--data", "/", "--save-dir", "x", "--max-update", "five"], "five is not a positive whole number"),
        (["--data", "/", "--save-dir", "x", "--max-update", "0"], "0 is not a positive whole number"),
        (["--data", "/", "--save-dir", "x", "--max-update", "5", "--config", "none"], "--config none: no such"),
        (["--data", "/", "--save-dir", "x", "--max-update", "5", "--device", "tpu"], "--device tpu"),
    ],
)
def test_mistakes_are_named_at_once(arguments, message):
    result = run(*arguments)
    assert result.returncode == 2
    assert message in result.stderr


def test_help_needs_nothing():
    result = run("--help")
    assert result.returncode == 0
    assert "--save-every N" in result.stdout


def test_progress_says_what_matters():
    log = [
        "2026-01-01 00:00:00 | INFO | fairseq.trainer | begin training epoch 1\n",
        "2026-01-01 00:00:01 | INFO | train_inner | epoch 001:     20 / 40 loss=9.5, asr=4.1, st=4.2, mt=3.3, "
        "unit=2.2, asr_inf=0, num_updates=20, lr=0.001, wall=5\n",
        "2026-01-01 00:00:02 | INFO | train_inner | epoch 001:     40 / 40 loss=8, asr=1e-05, num_updates=40\n",
        "2026-01-01 00:00:03 | INFO | dev | epoch 001 | valid on 'dev' subset | loss 7.5 | asr 3\n",
        "echostream: train.tsv: line 3: tgt_audio is empty\n",
    ]
    lines = list(summarise(log, max_update=100, max_minutes=0))
    assert lines[0].startswith("update 20/100  loss 9.5  asr 4.1  st 4.2  mt 3.3  unit 2.2  [")
    assert "left" in lines[1]
    assert "asr 1e-05" in lines[1]
    assert lines[2] == "validation: loss 7.5 | asr 3"
    assert lines[3] == log[-1].strip()
    assert minutes(200) == "3 min 20 s"
    assert minutes(59.4) == "59 s"


def checkpoint(path: Path, value: float, name: str = "weight", symbols: str = "a") -> Path:
    model = {name: torch.full((2,), value), "steps": torch.tensor(int(value))}
    task = {"source_symbols": [symbols]}
    torch.save({"model": model, "cfg": {}, "task_state": task, "last_optimizer_state": {}}, path)
    return path


def test_average_of_checkpoints(tmp_path):
    paths = [checkpoint(tmp_path / f"checkpoint_1_{n}.pt", float(n)) for n in (8, 9, 10, 100)]
    assert last_checkpoints(tmp_path, 3) == paths[1:]
    state = average(paths[:3])
    assert state["model"]["weight"].tolist() == [9.0, 9.0]
    assert state["model"]["steps"] == 10
    assert state["task_state"] == {"source_symbols": ["a"]}
    assert "last_optimizer_state" not in state


def test_checkpoints_that_do_not_belong_together(tmp_path):
    one = checkpoint(tmp_path / "checkpoint_1_1.pt", 1)
    with pytest.raises(ValueError, match="5 are needed"):
        last_checkpoints(tmp_path, 5)
    with pytest.raises(ValueError, match=r"b\.pt is of another model"):
        average([one, checkpoint(tmp_path / "b.pt", 1, name="other")])
    with pytest.raises(ValueError, match=r"c\.pt is of another model, or has other dictionaries"):
        average([one, checkpoint(tmp_path / "c.pt", 1, symbols="b")])
    (tmp_path / "d.pt").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"d\.pt can't be loaded"):
        average([one, tmp_path / "d.pt"])


def test_averaging_is_a_command(tmp_path):
    for n in (1, 3):
        checkpoint(tmp_path / f"checkpoint_1_{n}.pt", float(n))
    command = [sys.executable, str(SCRIPTS / "average_checkpoints.py"), "--save-dir", str(tmp_path), "--last", "2"]
    subprocess.run(command, check=True, capture_output=True)
    state = torch.load(tmp_path / "checkpoint_average.pt", weights_only=True)
    assert state["model"]["weight"].tolist() == [2.0, 2.0]
