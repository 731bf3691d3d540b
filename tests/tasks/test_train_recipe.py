"""scripts/train.sh with several processes, and the configs to be copied to data folders."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from echostream.tasks.data_config import load_multitask_config, load_speech_config

REPOSITORY = Path(__file__).resolve().parents[2]


def train(*arguments: object) -> subprocess.CompletedProcess:
    command = ["bash", str(REPOSITORY / "scripts" / "train.sh"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.integration
def test_training_with_two_processes_and_torchrun(corpus, tmp_path):
    """On a CPU in bfloat16: an update has one batch of each process, there is one checkpoint, and a run can resume."""
    options = ["--data", corpus.folder, "--save-dir", tmp_path, "--max-tokens", 300, "--save-every", 2]
    options += ["--device", "cpu", "--launcher", "torchrun", "--num-gpus", 2, "--precision", "bf16", "--tensorboard"]
    options += ["--python", sys.executable]
    rest = ["--", "--log-interval", 1, "--encoder-layers", 1]
    result = train(*options, "--max-update", 2, *rest)
    assert result.returncode == 0, result.stderr + result.stdout
    assert "on cpu (bf16, 2 processes)" in result.stdout
    assert "update 2/2  loss" in result.stdout
    log = (tmp_path / "train.log").read_text(encoding="utf-8")
    assert "initialized host" in log
    assert "bsz=6" in log  # three utterances from each process
    assert list((tmp_path / "tensorboard" / "train_inner").iterdir())
    model = torch.load(tmp_path / "checkpoint_last.pt", weights_only=True)["model"]
    assert model["fbank.cmvn_std"].dtype == torch.float32
    weight = model["mt_decoder.embedding.weight"]  # fairseq stores bfloat16 as float32
    assert torch.equal(weight, weight.bfloat16().float())
    resumed = train(*options, "--max-update", 3, *rest)
    assert resumed.returncode == 0, resumed.stderr + resumed.stdout
    assert "@ 2 updates)" in resumed.stdout and "update 3/3  loss" in resumed.stdout


@pytest.mark.parametrize("pair", ["fr-en", "es-en", "de-en"])
def test_configs_of_each_pair_fit_streamspeech_data(pair, corpus):
    """Copied to a data folder with StreamSpeech's file names, the configs load; they contain no absolute paths."""
    source = pair.split("-")[0]
    configs = REPOSITORY / "configs"
    for path in (configs / "config_gcmvn.yaml", configs / pair / "config_multitask.yaml"):
        assert not re.search(r":\s*[/~]", path.read_text(encoding="utf-8"))
        shutil.copy(path, corpus.folder)
    for side, name in (("src", "source"), ("tgt", "target")):
        folder = corpus.folder / f"{side}_unigram6000"
        (corpus.folder / name).rename(folder)
        (corpus.folder / f"{name}.txt").rename(folder / f"spm_unigram_{source}.txt")
    speech = load_speech_config(corpus.folder / "config_gcmvn.yaml")
    assert speech.audio_root == corpus.folder
    texts = load_multitask_config(corpus.folder / "config_multitask.yaml")
    assert [text.loss_weight for text in texts.values()] == [4.0, 4.0, 8.0]
