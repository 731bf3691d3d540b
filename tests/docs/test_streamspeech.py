"""The commands of the guide for those who come from StreamSpeech, on data that lies as StreamSpeech leaves it."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from streamspeech_corpus import SIZES, UNITS, Corpus, write_corpus

REPOSITORY = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```bash\n(.*?)^```", re.DOTALL | re.MULTILINE)
# fairseq itself starts a process for each GPU; on CPUs somebody else has to. Beyond that its defaults are not touched.
TWO_RANKS = """\
#!/bin/bash
exec {python} -m torch.distributed.run --standalone --nproc-per-node 2 --no-python bash -c 'exec "$@" --cpu \\
  --distributed-backend gloo --distributed-world-size 2 --distributed-init-method env:// --distributed-no-spawn \\
  --distributed-rank "$RANK" --device-id "$LOCAL_RANK"' bash {python} -m fairseq_cli.train "$@"
"""


def run(block: str, environment: dict[str, str]) -> str:
    """What a block of the page prints."""
    done = subprocess.run(
        ["bash", "-euc", block], capture_output=True, text=True, check=False, env=environment, cwd=REPOSITORY
    )
    assert done.returncode == 0, block + done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def environment_of(folder: Path, corpus: Corpus) -> dict[str, str]:
    """The variables of the page, with a tiny model in a few updates."""
    (folder / "bin").mkdir()
    train = folder / "bin/fairseq-train"
    train.write_text(TWO_RANKS.format(python=sys.executable), encoding="utf-8")
    train.chmod(0o755)
    variables = {"DATA": corpus.data, "LISTS": corpus.lists, "VOCODER": corpus.vocoder, "OUTPUT": folder}
    variables |= {"MODEL": folder / "model", "ARCH": "echostream_tiny", "UNITS": UNITS, "DEVICE": "cpu"}
    variables |= {"UPDATES": 2, "TOKENS": 2000, "WORKERS": 1, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": 1}
    path = f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return os.environ | {name: str(value) for name, value in variables.items()} | {
        "PATH": path, "PYTHONPATH": str(REPOSITORY),
    }  # fmt: skip


def values(log: str, name: str) -> list[float]:
    """What fairseq's log says of something, in JSON."""
    return [float(value) for value in re.findall(rf'"{name}": "([^"]+)"', log)]


@pytest.mark.integration
def test_a_miniature_cvss_c_is_trained_decoded_and_streamed(tmp_path):
    corpus = write_corpus(tmp_path / "data")
    environment = environment_of(tmp_path, corpus)
    page = (REPOSITORY / "docs/guides/streamspeech.md").read_text(encoding="utf-8")
    train, generate, speak, simulate = BLOCK.findall(page)
    assert [block.split()[0] for block in (train, generate, speak, simulate)] == [
        "fairseq-train", "fairseq-generate", "python", "simuleval",
    ]  # fmt: skip
    assert "--ddp-backend" not in train and "--required-batch-size-multiple" not in train

    log = run(train, environment)
    assert log.count("| distributed init (rank") == 2 and "no_c10d" not in log
    assert "'required_batch_size_multiple': 8" in log and "'ddp_backend': 'pytorch_ddp'" in log
    assert values(log, "dev_num_updates") and all(math.isfinite(loss) for loss in values(log, "dev_loss"))
    # An epoch of two updates, two batches of each process in the first; no utterance is left out.
    assert values(log, "train_bsz") == [SIZES["train"] / 2]
    first = torch.load(tmp_path / "model/checkpoint_last.pt", weights_only=True)["model"]
    again = run(train, environment | {"UPDATES": "3"})  # the same command goes on
    assert "@ 2 updates)" in again
    last = torch.load(tmp_path / "model/checkpoint_last.pt", weights_only=True)["model"]
    assert all(torch.isfinite(value).all() for value in last.values())
    assert any(not torch.equal(last[name], value) for name, value in first.items())

    run(generate, environment)
    lines = (tmp_path / "offline/generate-test.txt").read_text(encoding="utf-8")
    assert len(re.findall("^D-", lines, re.MULTILINE)) == SIZES["test"]
    assert "Generate test with beam=1: BLEU = " in lines
    units = (tmp_path / "offline/generate-test.unit").read_text().splitlines()
    assert len(units) == SIZES["test"] and all(int(unit) < UNITS for line in units for unit in line.split())

    run(speak, environment)
    for number, line in enumerate(units):
        samples, rate = soundfile.read(tmp_path / f"offline/pred_wav/{number}_pred.wav")
        assert rate == 16_000 and np.isfinite(samples).all() and (len(samples) >= 320 * len(line.split()))

    said = run(simulate, environment)
    assert "--dur-prediction: not needed" in said and "--data-bin, " in said
    logs = [json.loads(line) for line in (tmp_path / "simul-s2st/instances.log").read_text().splitlines()]
    assert tuple(log["reference"] for log in logs) == corpus.targets
    for log in logs:
        assert log["source_length"] == pytest.approx(1000 * soundfile.info(log["source"]).duration, abs=1)
    scores = (tmp_path / "simul-s2st/scores.tsv").read_text().splitlines()
    names, row = scores[0].split(), scores[1].split()
    assert {"ECHO_BLEU", "AL", "AL_CA", "NumChunks", "ECHO_EndOffset", "ECHO_RTF"} <= set(names)
    assert len(row) == len(names)
