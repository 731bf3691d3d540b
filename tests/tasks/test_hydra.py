"""``fairseq-hydra-train`` with ``configs/hydra``: training, resuming, cluster jobs; options equal the .args files."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from fairseq import options
from fairseq.dataclass.configs import FairseqConfig
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from echostream.checkpoints.model_files import load_model
from echostream.models import EchoStreamConfig, architecture_config
from echostream.tasks.fairseq_models import CONFIGS

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGURATIONS = REPOSITORY / "configs"


def composed(name: str, *overrides: str) -> DictConfig:
    ConfigStore.instance().store(name=name, node=FairseqConfig)  # as fairseq-hydra-train does
    with initialize_config_dir(config_dir=str(CONFIGURATIONS / "hydra"), version_base="1.1"):
        needed = ("common.user_dir=echostream", "task.data=DATA", "checkpoint.save_dir=DIR")
        return compose(name, overrides=[*needed, *overrides], return_hydra_config=True)


def leaves(config: object, prefix: str = "") -> dict[str, object]:
    if not isinstance(config, dict):
        return {prefix[:-1]: config}
    return {key: value for name, part in config.items() for key, value in leaves(part, f"{prefix}{name}.").items()}


@pytest.mark.parametrize("arch", ["echostream", "echostream_tiny"])
def test_hydra_config_and_args_file_have_equal_options(arch):
    """configs/train/ARCH.args and configs/hydra/ARCH.yaml must contain the same options with the same values."""
    words = [
        word
        for line in (CONFIGURATIONS / "train" / f"{arch}.args").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
        for word in line.split()
    ]
    argv = ["DATA", "--task", "echostream", "--criterion", "echostream_multitask", "--arch", arch, *words]
    config = options.parse_args_and_arch(options.get_training_parser(), argv)
    by_args = leaves(OmegaConf.to_container(convert_namespace_to_omegaconf(config), enum_to_str=True))
    own = OmegaConf.to_container(OmegaConf.load(CONFIGURATIONS / "hydra" / f"{arch}.yaml"))
    for key, value in leaves({name: part for name, part in own.items() if name != "defaults"}).items():
        if not key.startswith(("checkpoint.", "optimization.max_update")) and "${" not in str(value):
            assert by_args[key] == pytest.approx(value) if isinstance(value, float) else by_args[key] == value, key
    given = {word.removeprefix("--").replace("-", "_") for word in words if word.startswith("--")}
    named = {
        key.rpartition(".")[2] for key in leaves(OmegaConf.to_container(composed(arch, "optimization.max_update=9")))
    }
    assert given - {"optimizer", "lr_scheduler"} <= named
    assert composed(arch, "optimization.max_update=9").model._name == arch


def test_architectures_have_their_defaults():
    for arch, config in CONFIGS.items():
        assert {**vars(config()), "_name": None} == {**vars(architecture_config(arch)), "_name": None}
        assert issubclass(config, EchoStreamConfig)


def test_slurm_config_is_complete():
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    wanted = ["run=slurm", "hydra.launcher.partition=gpus", "hydra.launcher.nodes=2", "optimization.max_update=5"]
    config = composed("echostream", *wanted, "distributed_training.distributed_world_size=8")
    launcher = config.hydra.launcher
    assert launcher._target_.endswith("SlurmLauncher")
    assert (launcher.partition, launcher.nodes, launcher.tasks_per_node, launcher.gpus_per_node) == ("gpus", 2, 1, 4)
    assert config.common.amp
    assert not config.common.cpu
    assert config.distributed_training.distributed_port > 0  # lets fairseq read SLURM's variables


def hydra_train(corpus, save_dir: Path, *overrides: str, flags: Sequence[str] = ()) -> subprocess.CompletedProcess:
    """Run the command of the README in its own process."""
    command = [
        sys.executable, "-m", "fairseq_cli.hydra_train", *flags, "--config-dir", "configs/hydra", "--config-name",
        "echostream_tiny", "common.user_dir=echostream", f"task.data={corpus.folder}",
        f"checkpoint.save_dir={save_dir}", "dataset.max_tokens=300", "+model.encoder_layers=1", "model.dropout=0.1",
        "common.tensorboard_logdir=${checkpoint.save_dir}/tensorboard", "common.log_interval=1", *overrides,
    ]  # fmt: skip
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


@pytest.mark.integration
def test_hydra_trains_and_resumes(corpus, tmp_path):
    first = hydra_train(corpus, tmp_path / "run", "optimization.max_update=2")
    assert first.returncode == 0, first.stderr[-2000:]
    assert "valid on 'dev' subset" in first.stdout + first.stderr
    path = tmp_path / "run" / "checkpoint_last.pt"
    loaded = load_model(path).model.cfg
    assert (loaded.encoder_dim, loaded.encoder_layers, loaded.dropout) == (144, 1, 0.1)  # defaults and overrides
    second = hydra_train(corpus, tmp_path / "run", "optimization.max_update=3")
    assert second.returncode == 0, second.stderr[-2000:]
    state = torch.load(path, weights_only=True)
    assert state["optimizer_history"][-1]["num_updates"] == 3
    assert tensorboard_scalars(tmp_path / "run" / "tensorboard" / "train_inner") >= {
        "asr",
        "st",
        "mt",
        "unit",
        "asr_inf",
    }
    assert tensorboard_scalars(tmp_path / "run" / "tensorboard" / "dev") >= {"asr_wer_40ms", "st_bleu_full"}


def tensorboard_scalars(folder: Path) -> set[str]:
    """Names of the values in tensorboard's event files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return set(events.Tags()["scalars"])


@pytest.mark.integration
def test_hydra_trains_as_a_job(corpus, tmp_path):
    """Use submitit's launcher for the local machine, which runs jobs as SLURM would."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    job = hydra_train(corpus, tmp_path / "run", "run=local_job", "optimization.max_update=2", flags=["--multirun"])
    assert job.returncode == 0, job.stderr[-2000:]
    assert load_model(tmp_path / "run" / "checkpoint_last.pt").model.cfg.encoder_layers == 1
