"""Released models: equal to the checkpoint, readable by later versions, and rejected in one line if invalid."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from model_files import save_model

import echostream
from echostream.checkpoints.errors import CheckpointError
from echostream.checkpoints.model_files import ModelContent, load_model, read_model, save_released
from echostream.checkpoints.vocoder_files import load_vocoder, read_vocoder_weights, save_released_vocoder
from echostream.models.config import EchoStreamConfig
from echostream.streaming import StreamingTranslator
from echostream.vocoders.interface import VocoderError


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder as training leaves it: checkpoint.pt and voice/."""
    return save_model(StreamingTranslator.random("echostream_tiny", seed=5), tmp_path_factory.mktemp("trained"), "")


@pytest.fixture
def released(trained, tmp_path) -> Path:
    """The same model as a release."""
    save_released(read_model(trained / "checkpoint.pt"), tmp_path, echostream.__version__)
    (weights,) = [path for path in (trained / "voice").iterdir() if path.suffix != ".json"]
    save_released_vocoder(read_vocoder_weights(weights), trained / "voice" / "config.json", tmp_path / "vocoder")
    (tmp_path / "model.yaml").write_text("checkpoint: model.safetensors\nvocoder: vocoder\n", encoding="utf-8")
    return tmp_path


def test_released_model_translates_exactly_as_the_checkpoint(trained, released):
    sound = np.random.default_rng(0).normal(0, 0.1, 48_000).astype(np.float32)
    outputs = []
    for folder in (trained, released):
        translator = StreamingTranslator.from_checkpoint(folder, policy="fixed-rate")
        outputs.append(translator.step(sound, translator.init_state(), is_last=True))
    assert outputs[0].words == outputs[1].words and outputs[0].words
    np.testing.assert_array_equal(outputs[0].samples, outputs[1].samples)
    assert not list(released.rglob("*.tmp"))


def describe(folder: Path, **changes: object) -> Path:
    """Change the description in the folder of the weights."""
    file = folder / "model.json"
    description = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(description | changes), encoding="utf-8")
    return folder / "model.safetensors"


def test_option_newer_than_the_file_has_its_default(released, trained):
    """Otherwise a new option would make all older models unreadable."""
    options = json.loads((released / "model.json").read_text(encoding="utf-8"))["options"]
    del options["dropout"], options["encoder_layer_drop"]
    loaded = load_model(describe(released, options=options))
    assert loaded.model.cfg.encoder_layer_drop == EchoStreamConfig().encoder_layer_drop
    content = torch.load(trained / "checkpoint.pt", weights_only=True)
    del content["cfg"]["model"]["encoder_layer_drop"]
    torch.save(content, released / "older.pt")
    assert load_model(released / "older.pt").model.cfg == load_model(trained / "checkpoint.pt").model.cfg


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 4}, "is of format version 4, this EchoStream reads up to 3: install a newer one"),
        ({"format_version": "1"}, "format_version must be a whole number from 1, not '1'"),
        ({"format": "other"}, "does not describe an EchoStream model"),
        ({"options": {"encoder_layrs": 3}}, "encoder_layrs'?, which is not known .is it encoder_layers"),
        ({"options": []}, "it has no 'options'"),
        ({"num_units": 0}, "it has no num_units"),
        ({"source_symbols": "abc"}, "it has no source_symbols"),
        ({"target_symbols": ["a"]}, "its target dictionary has 1 symbols, its weights have"),
    ],
)
def test_invalid_description_is_rejected_in_one_line(released, changes, message):
    with pytest.raises(CheckpointError, match=message) as refused:
        load_model(describe(released, **changes))
    assert "\n" not in str(refused.value)


def test_damaged_description_is_rejected_in_one_line(released):
    path = released / "model.safetensors"
    for text, message in (
        ("{", "is damaged"),
        ("[" * 5_000 + "]" * 5_000, "is damaged: maximum recursion"),
        ("[1]", "is not a JSON object"),
    ):
        (released / "model.json").write_text(text, encoding="utf-8")
        with pytest.raises(CheckpointError, match=message):
            load_model(path)
    (released / "model.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no model\.json beside it"):
        load_model(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: value.to(torch.complex64), "is complex64"),
        (lambda value: value.to(torch.int32), "is int32"),
        (lambda value: value > 0, "is bool"),
        (lambda value: value * torch.inf, "hold NaN or infinity, the first in"),
        (lambda value: value[:1].clone(), "tensors differ|weights have"),
    ],
)
def test_invalid_weights_are_rejected_in_one_line(released, change, message):
    path = released / "model.safetensors"
    weights = safetensors.torch.load_file(path)
    name = "asr_head.output.weight"
    safetensors.torch.save_file({**weights, name: change(weights[name])}, path)
    with pytest.raises(CheckpointError, match=message) as refused:
        load_model(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("keep", [0, 7, 100, 100_000])
def test_truncated_weights_are_rejected(released, keep):
    path = released / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        load_model(path)


def test_tensor_larger_than_its_storage_is_not_allocated(trained, tmp_path):
    """With a stride of 0, four bytes are a tensor of terabytes, which any computation would allocate."""
    content = torch.load(trained / "checkpoint.pt", weights_only=True)
    content["model"]["asr_head.output.weight"] = torch.zeros(1).expand(10**6, 10**6)
    torch.save(content, tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="claims more numbers than the file holds"):
        load_model(tmp_path / "checkpoint.pt")


def test_vocoder_with_nan_is_rejected(released):
    path = released / "vocoder" / "vocoder.safetensors"
    weights = safetensors.torch.load_file(path)
    name = next(name for name, value in weights.items() if value.dim() > 1)
    safetensors.torch.save_file({**weights, name: weights[name] * torch.nan}, path)
    with pytest.raises(VocoderError, match="hold NaN or infinity"):
        load_vocoder(path.parent)


def test_written_content_equals_read_content(released):
    content = read_model(released / "model.safetensors")
    assert isinstance(content, ModelContent)
    again = released / "again"
    again.mkdir()
    save_released(content, again, echostream.__version__)
    assert (again / "model.safetensors").read_bytes() == (released / "model.safetensors").read_bytes()
