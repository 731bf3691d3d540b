"""The training recipe: options, progress lines and checkpoint averaging."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from scripts.training.average_checkpoints import average, last_checkpoints
from scripts.training.train_progress import minutes, summarise

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"


def run(*arguments: object) -> subprocess.CompletedProcess:
    command = ["bash", str(SCRIPTS / "train.sh"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


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
        (["--data", "/", "--save-dir", "x", "--max-update", "5", "--precision", "fp8"], "--precision fp8"),
        (["--data", "/", "--save-dir", "x", "--max-update", "5", "--launcher", "mpi"], "--launcher mpi"),
        (["--data", "/", "--save-dir", "x", "--max-update", "5", "--nodes", "2"], "needs --launcher torchrun or slurm"),
        (
            ["--data", "/", "--save-dir", "x", "--max-update", "5", "--nodes", "2", "--launcher", "torchrun"],
            "--rendezvous HOST:PORT",
        ),
        (["--data", "/", "--save-dir", "x", "--max-update", "5", "--launcher", "slurm"], "needs --partition"),
        (["--data", "/", "--save-dir", "x", "--max-minutes", "5", "--launcher", "slurm"], "needs --max-update"),
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


@pytest.mark.parametrize(("status", "how"), [(-9, "was ended by SIGKILL"), (1, "ended with status 1")])
def test_progress_says_which_process_ended_and_not_where_torchrun_noticed(status, how):
    log = [
        "E1130 06:18:21.336000 9740 torch/distributed/elastic/multiprocessing/api.py:986] "
        f"failed (exitcode: {status}) local_rank: 1 (pid: 9821) of binary: bash\n",
        "Traceback (most recent call last):\n",
        '  File "run.py", line 994, in <module>\n',
    ]
    (line,) = summarise(log, max_update=0, max_minutes=0)
    assert line.startswith(f"process 1 {how}, and the others with it: the same command goes on")


def test_minutes_are_rounded():
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


def test_a_part_can_be_the_last_ones_own(tmp_path):
    paths = []
    for value in (1.0, 3.0):
        path = tmp_path / f"{value}.pt"
        model = {"head.weight": torch.full((2,), value), "header.weight": torch.full((2,), value)}
        torch.save({"model": model, "cfg": {}, "task_state": {}}, path)
        paths.append(path)
    model = average(paths, ["head"])["model"]
    assert model["head.weight"].tolist() == [3, 3] and model["header.weight"].tolist() == [2, 2]
    with pytest.raises(ValueError, match=r"3\.0\.pt has no part 'tail': it has head, header"):
        average(paths, ["tail"])


def test_one_checkpoint_can_count_more_than_another(tmp_path):
    paths = [checkpoint(tmp_path / f"{n}.pt", float(n)) for n in (1, 3, 5)]
    assert average(paths, weights=[3, 0, 1])["model"]["weight"].tolist() == [2.0, 2.0]
    with pytest.raises(ValueError, match="2 weights for 3 checkpoints: give one for each"):
        average(paths, weights=[0.5, 0.5])
    for weights in ([1, -1, 1], [0, 0, 0], [1, float("nan"), 1]):
        with pytest.raises(ValueError, match="none may be negative, nor all 0"):
            average(paths, weights=weights)


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
    command = [
        sys.executable,
        str(SCRIPTS / "training/average_checkpoints.py"),
        "--save-dir",
        str(tmp_path),
        "--last",
        "2",
        "--weights",
        "1",
        "4",
    ]
    subprocess.run(command, check=True, capture_output=True)
    state = torch.load(tmp_path / "checkpoint_average.pt", weights_only=True)
    torch.testing.assert_close(state["model"]["weight"], torch.tensor([2.6, 2.6]))


def test_requirements_are_calculated_from_a_measured_step(tmp_path):
    report = tmp_path / "requirements.json"
    command = [
        sys.executable, SCRIPTS / "training/train_requirements.py", "--arch", "echostream_tiny",
        "--segment-sizes", "8,0", "--batch-frames", "460", "--repetitions", "1", "--vocabulary", "50",
        "--units", "20", "--device", "cpu",
        "--hours", "1", "--updates", "100", "--update-frames", "4600", "--devices", "2", "--json", report,
    ]  # fmt: skip
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    content = json.loads(report.read_text(encoding="utf-8"))
    steps = [record for record in content["records"] if record["kind"] == "step"]
    assert [step["segment"] for step in steps] == [8, 0]
    assert all(step["peak_bytes"] > 12 * content["records"][0]["parameters"] for step in steps)  # weights and Adam's
    (row,) = content["requirements"]
    assert row["update_s"] == pytest.approx(10 / 2 * sum(step["seconds"] for step in steps) / 2)
    assert row["hours"] == pytest.approx(100 * row["update_s"] / 3600)
    assert row["epochs"] == pytest.approx(100 * 46 / 3600)
    assert "| 100 | 1 |" in result.stdout
    assert "| 320ms |" in result.stdout


def test_trainings_are_compared_from_their_logs(tmp_path):
    line = "2026-01-01 00:00:00 | INFO | {} {}, num_updates={}, lr=0.001\n"
    for name, factor in (("a", 1.0), ("b", 2.0)):
        log = "".join(line.format("train_inner | epoch 001: 1 / 9", f"loss=9, asr={factor * 4 / u}", u) for u in (1, 2))
        log += line.format("train_inner | epoch 001: 1 / 9", f"loss=9, asr={factor}", 2)  # a resumed run's
        log += f"x | dev | valid on 'dev' subset | loss 8 | asr {factor} | asr_wer_40ms 12.5 | num_updates 2\n"
        (tmp_path / f"{name}.log").write_text(log)
    runs = [f"{name}={tmp_path / name}.log" for name in "ab"]
    script = [sys.executable, SCRIPTS / "training/compare_runs.py"]
    options = ["--losses", "asr", "--scores", "asr_wer_40ms", "--plot", tmp_path / "curves.png"]
    output = subprocess.run([*script, *runs, *options], capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[2:] == ["| a | 2 | 1 | 12.5 |", "| b | 2 | 2 | 12.5 |"]
    assert (tmp_path / "curves.png").stat().st_size > 5000
    missing = subprocess.run([*script, "c=nowhere.log"], capture_output=True, text=True, check=False)
    assert missing.returncode == 2 and "nowhere.log" in missing.stderr
