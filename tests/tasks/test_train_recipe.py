"""scripts/train.sh with several processes, and the configs to be copied to data folders."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from echostream.tasks.data_config import load_multitask_config, load_speech_config

REPOSITORY = Path(__file__).resolve().parents[2]


PATIENCE_S = 300  # of a machine that does other things too


def ranks_below(ancestor: int) -> dict[str, int]:
    """Process of each rank among the descendants of a process."""
    parents, ranks = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if rank := re.search(rb"(?:^|\0)RANK=(\d+)\0", (folder / "environ").read_bytes()):
                ranks[int(folder.name)] = rank[1].decode()
    found = {}
    for process, rank in ranks.items():
        above = process
        while above in parents and above != ancestor:
            above = parents[above]
        if above == ancestor:
            found[rank] = process
    return found


@pytest.mark.integration
def test_one_of_two_processes_is_killed_and_the_same_command_goes_on(corpus, tmp_path):
    """On a CPU in bfloat16, by torchrun: the other process ends as well; an update has one batch of each, and there is
    one checkpoint, which was whole when the process was killed."""
    command = [REPOSITORY / "scripts" / "train.sh", "--data", corpus.folder, "--save-dir", tmp_path]
    command += ["--max-tokens", 300, "--save-every", 4, "--max-update", 8, "--python", sys.executable]
    command += ["--device", "cpu", "--launcher", "torchrun", "--num-gpus", 2, "--precision", "bf16", "--tensorboard"]
    command = [*map(str, command), "--", "--log-interval", "1", "--encoder-layers", "1"]
    last = tmp_path / "checkpoint_last.pt"
    until_s = time.monotonic() + PATIENCE_S
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as killed:
        while not last.exists() and killed.poll() is None and time.monotonic() < until_s:
            time.sleep(0.02)
        ranks = ranks_below(killed.pid)
        assert ranks.keys() == {"0", "1"}
        os.kill(ranks["1"], signal.SIGKILL)
        printed, said = killed.communicate(timeout=PATIENCE_S)
    assert killed.returncode == 1 and said.startswith("error: training stopped; see the end of "), said
    assert "on cpu (bf16, 2 processes)" in printed and "update 4/8  loss" in printed
    assert "process 1 was ended by SIGKILL" in printed and "Traceback" not in printed + said
    assert "update 8/8" not in printed and not any(Path(f"/proc/{process}").exists() for process in ranks.values())

    resumed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert resumed.returncode == 0, resumed.stderr + resumed.stdout
    assert "@ 4 updates)" in resumed.stdout and "update 8/8  loss" in resumed.stdout
    assert "update 4/8" not in resumed.stdout, "what was done is not done again"
    log = (tmp_path / "train.log").read_text(encoding="utf-8")
    assert "initialized host" in log
    assert "bsz=6" in log  # three utterances from each process
    assert list((tmp_path / "tensorboard" / "train_inner").iterdir())
    model = torch.load(last, weights_only=True)["model"]
    assert model["fbank.cmvn_std"].dtype == torch.float32
    weight = model["mt_decoder.embedding.weight"]  # fairseq stores bfloat16 as float32
    assert torch.equal(weight, weight.bfloat16().float())


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
