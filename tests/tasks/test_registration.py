"""fairseq finds the task and the criterion, and all their options have help texts."""

import dataclasses
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fairseq.criterions import CRITERION_DATACLASS_REGISTRY, CRITERION_REGISTRY
from fairseq.data import Dictionary
from fairseq.models import ARCH_CONFIG_REGISTRY, ARCH_MODEL_REGISTRY
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


def test_the_speech_encoder_serves_in_a_model_of_fairseq():
    """fairseq's own speech-to-text Transformer is built with it by name, learns, and hears what the encoder hears."""
    dictionary = Dictionary()
    for symbol in "abcdef":
        dictionary.add_symbol(symbol)
    args = Namespace(echostream_arch="echostream_tiny", echostream_segment=4, dropout=0.0, decoder_layers=1)
    ARCH_CONFIG_REGISTRY["echostream_s2t_transformer"](args)
    model_class = ARCH_MODEL_REGISTRY["echostream_s2t_transformer"]
    model = model_class.build_model(args, SimpleNamespace(target_dictionary=dictionary))
    features, lengths = torch.randn(2, 120, 80), torch.tensor([120, 70])
    logits, _ = model(features, lengths, torch.tensor([[2, 4, 5], [2, 6, 1]]))
    assert logits.shape == (2, 3, len(dictionary))
    logits.square().sum().backward()
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for p in model.encoder.encoder.emformer.layers.parameters()
    )
    model.eval()
    out = model.encoder(features, lengths)
    frames, frame_lengths, _ = model.encoder.encoder(features, lengths, segment=4)
    torch.testing.assert_close(out["encoder_out"][0].transpose(0, 1), frames)
    assert out["encoder_padding_mask"][0].logical_not().sum(1).tolist() == frame_lengths.tolist()


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
