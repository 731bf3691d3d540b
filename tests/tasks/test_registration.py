"""fairseq finds the task and the criterion, and all their options have help texts."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from fairseq.criterions import CRITERION_DATACLASS_REGISTRY, CRITERION_REGISTRY
from fairseq.models import ARCH_MODEL_REGISTRY
from fairseq.tasks import TASK_DATACLASS_REGISTRY, TASK_REGISTRY

from echostream.criterions import EchoStreamMultiTaskCriterion, EchoStreamMultiTaskCriterionConfig
from echostream.models import EchoStreamConfig
from echostream.tasks import EchoStreamTask, EchoStreamTaskConfig

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = (
    "_name",
    "seed",
    "train_subset",
    "save_dir",
    "restore_file",
    "finetune_from_model",
    "continue_once",
    "checkpoint_suffix",
    "sentence_avg",
    "gen_subset",
    "results_path",
)  # fairseq's own options, interpolated


def test_registered():
    assert TASK_REGISTRY["echostream"] is EchoStreamTask
    assert TASK_DATACLASS_REGISTRY["echostream"] is EchoStreamTaskConfig
    assert CRITERION_REGISTRY["echostream_multitask"] is EchoStreamMultiTaskCriterion
    assert CRITERION_DATACLASS_REGISTRY["echostream_multitask"] is EchoStreamMultiTaskCriterionConfig
    assert "echostream_tiny" in ARCH_MODEL_REGISTRY


@pytest.mark.parametrize("config", [EchoStreamTaskConfig, EchoStreamMultiTaskCriterionConfig, EchoStreamConfig])
def test_every_option_has_help(config):
    for field in dataclasses.fields(config):
        if field.name not in SHARED:
            assert field.metadata.get("help"), field.name


def test_help_shows_every_option():
    """Run in its own process, as a user does."""
    command = [sys.executable, str(REPOSITORY / "scripts" / "training/train_options.py"), "--arch", "echostream_tiny"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for config in (EchoStreamTaskConfig, EchoStreamMultiTaskCriterionConfig, EchoStreamConfig):
        for field in dataclasses.fields(config):
            if field.name not in (*SHARED, "data"):
                assert f"--{field.name.replace('_', '-')}" in shown, field.name
