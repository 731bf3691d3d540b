"""A model class of one's own, registered in a user-dir: it trains, and ``--user-dir`` plays its checkpoint."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from test_training import train

import echostream
from echostream.checkpoints.errors import CheckpointError
from echostream.checkpoints.model_files import load_model, read_model, save_released
from echostream.plugins import import_user_dir
from echostream.streaming import StreamingTranslator

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCE = '''
"""EchoStream whose encoder's output is scaled by a number that is learned."""

from dataclasses import dataclass, field

import torch
from fairseq.models import register_model
from torch import nn

from echostream.models import EchoStreamSpeechEncoder
from echostream.tasks.fairseq_models import EchoStreamFairseqModel, EchoStreamTinyFairseqConfig


class ScaledEncoder(EchoStreamSpeechEncoder):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.scale = nn.Parameter(torch.tensor(cfg.scale))

    def forward(self, *args, **options):
        frames, lengths, state = super().forward(*args, **options)
        return frames * self.scale, lengths, state


@dataclass
class ScaledConfig(EchoStreamTinyFairseqConfig):
    scale: float = field(default=1.0, metadata={"help": "of the encoder's output, before training"})


@register_model("scaled_echostream", dataclass=ScaledConfig)
class ScaledModel(EchoStreamFairseqModel):
    def __init__(self, cfg, *sizes):
        super().__init__(cfg, *sizes)
        self.encoder = ScaledEncoder(cfg)
'''


def echostream_command(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "echostream.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


@pytest.fixture
def user_dir(tmp_path_factory) -> Path:
    """The same folder name each time, imported once: fairseq's registry takes a name once."""
    known = sys.modules.get("scaled_models")
    if known is not None:
        return Path(known.__path__[0])
    folder = tmp_path_factory.mktemp("own") / "scaled_models"
    folder.mkdir()
    (folder / "__init__.py").write_text(SOURCE, encoding="utf-8")
    import_user_dir(folder)
    return folder


def test_a_model_of_ones_own_is_loaded_for_inference(corpus, user_dir, tmp_path):
    _, weights, _ = train(corpus.folder, tmp_path, 2, "--arch", "scaled_echostream", "--scale", "0.5")
    path = tmp_path / "checkpoint_last.pt"
    model = load_model(path).model
    assert type(model).__name__ == "ScaledModel" and model.cfg.scale == 0.5
    assert torch.equal(model.encoder.scale, weights["encoder.scale"]) and model.encoder.scale != 0.5
    translator = StreamingTranslator.from_checkpoint(path, task="s2tt", policy="fixed-rate")
    samples = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    text = translator.step(samples, translator.init_state(), is_last=True).text
    # the released format says of which class it is
    _, description = save_released(read_model(path), tmp_path, echostream.__version__)
    assert json.loads(description.read_text(encoding="utf-8"))["model"] == "scaled_echostream"
    released = StreamingTranslator.from_checkpoint(tmp_path / "model.safetensors", task="s2tt", policy="fixed-rate")
    assert released.step(samples, released.init_state(), is_last=True).text == text and text


def test_a_registered_model_of_another_kind_is_refused(corpus, tmp_path):
    train(corpus.folder, tmp_path, 1)
    content = torch.load(tmp_path / "checkpoint_last.pt", weights_only=True)
    content["cfg"]["model"]["_name"] = "wav2vec2"
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="holds a model 'wav2vec2', not an echostream one; its class would have"):
        load_model(tmp_path / "other.pt")


@pytest.mark.integration
def test_the_command_line_plays_it_with_its_user_dir(corpus, user_dir, tmp_path):
    train(corpus.folder, tmp_path, 1, "--arch", "scaled_echostream")
    soundfile.write(tmp_path / "talk.wav", np.random.default_rng(0).normal(0, 0.1, 8000), 16000)
    options = [tmp_path / "talk.wav", "--model", tmp_path / "checkpoint_last.pt", "--policy", "fixed-rate", "--text"]
    played = echostream_command("translate", *options, "--user-dir", user_dir)
    assert played.returncode == 0 and played.stdout.strip(), played.stderr
    refused = echostream_command("translate", *options)
    assert refused.returncode == 1 and refused.stdout == ""
    (line,) = refused.stderr.strip().splitlines()
    assert line.startswith("error: ") and "'scaled_echostream', not an echostream one" in line and "--user-dir" in line
