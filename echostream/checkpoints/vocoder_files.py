"""Files of unit vocoders: ``config.json`` beside ``vocoder.safetensors``, ``vocoder.pt``, or ``g_*`` as published."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from echostream.checkpoints.errors import UnsafeFileError
from echostream.checkpoints.safe_loading import BoundedMemory, check_tensors, load_safely, load_tensors
from echostream.checkpoints.text_files import read_json
from echostream.checkpoints.writing import write_checkpoint, write_file
from echostream.vocoders.interface import UnitVocoder, VocoderError
from echostream.vocoders.registry import build_vocoder

CONFIG_NAME, RELEASED_NAME = "config.json", "vocoder.safetensors"
MAX_CONFIG_BYTES = 65_536
# The largest settings there are: a sample rate in Hz; in lists, rates, kernel sizes and dilations of convolutions.
LARGEST_SETTING, LARGEST_IN_LIST = 768_000, 4_096


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a vocoder's JSON configuration.

    Raises:
        VocoderError: if there is none, if it is no JSON object, or if it has settings that no vocoder has.
    """
    try:
        config = read_json(path, MAX_CONFIG_BYTES)
    except UnsafeFileError as error:
        raise VocoderError(f"cannot read the vocoder config {path}: {error}") from error
    except OSError as error:
        raise VocoderError(f"cannot read the vocoder config {path}: {error.strerror or error}") from error
    for name, number, largest in _numbers(config):
        if abs(number) > largest:
            raise VocoderError(f"the vocoder config {path} makes no sense: {name} is {number}, more than {largest}")
    return config


def _numbers(config: Mapping[str, Any]) -> Iterator[tuple[str, float, int]]:
    """The numbers in a configuration, each with its name and the largest that it may be."""
    waiting = [(str(name)[:80], value, LARGEST_SETTING) for name, value in config.items()]
    while waiting:
        name, value, largest = waiting.pop()
        if isinstance(value, dict):
            waiting += [(f"{name}.{inner}"[:80], found, largest) for inner, found in value.items()]
        elif isinstance(value, list):
            waiting += [(name, found, LARGEST_IN_LIST) for found in value]
        elif isinstance(value, int | float):
            yield name, value, largest


def find_checkpoint(directory: Path) -> Path:
    """The weights in a vocoder's directory: ``vocoder.safetensors``, ``vocoder.pt``, or the ``g_*`` of most steps.

    Raises:
        VocoderError: if there is neither.
    """
    for name in (RELEASED_NAME, "vocoder.pt"):
        if (directory / name).is_file():
            return directory / name
    generators = [path for path in directory.glob("g_*") if re.fullmatch(r"g_\d+", path.name)]
    if not generators:
        raise VocoderError(f"no {RELEASED_NAME}, no vocoder.pt and no g_* checkpoint in {directory}")
    return max(generators, key=lambda path: int(path.name[2:]))


def load_vocoder(
    path: str | os.PathLike[str],
    device: str | torch.device = "cpu",
    config: str | os.PathLike[str] | None = None,
) -> UnitVocoder:
    """Load a vocoder for inference.

    Args:
        path: a directory with ``config.json`` and ``vocoder.safetensors``, ``vocoder.pt`` or ``g_*``, or one of these
            files with ``config.json`` beside it.
        device: where to put it.
        config: its ``config.json``, if that lies elsewhere.

    Raises:
        VocoderError: if a file is missing or damaged, or if weights and configuration disagree.
    """
    path = Path(path)
    if not path.exists():
        raise VocoderError(f"no vocoder at {path}")
    directory = path if path.is_dir() else path.parent
    settings = read_config(config or directory / CONFIG_NAME)
    checkpoint = find_checkpoint(path) if path.is_dir() else path
    stored = read_vocoder_weights(checkpoint)
    try:
        with BoundedMemory.for_weights(stored):
            vocoder = build_vocoder(settings)
        weights = vocoder.from_checkpoint(stored)
        check_tensors(weights)  # a weight norm of zeros becomes NaN
    except (MemoryError, UnsafeFileError) as error:
        raise VocoderError(f"{checkpoint} does not fit {CONFIG_NAME} beside it: {error}") from error
    _compare(checkpoint, vocoder, weights)
    vocoder.load_state_dict(weights)
    return vocoder.to(device).eval().requires_grad_(False)


def _compare(checkpoint: Path, vocoder: UnitVocoder, weights: Mapping[str, Tensor]) -> None:
    """Refuse weights of other sizes than the configuration's.

    Raises:
        VocoderError: with the first that differs.
    """
    expected = {name: tuple(value.shape) for name, value in vocoder.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    if differing := sorted(name for name in expected | found if expected.get(name) != found.get(name)):
        name = differing[0]
        raise VocoderError(
            f"{checkpoint} does not fit {CONFIG_NAME} beside it: {len(differing)} tensors differ, the first {name}: "
            f"checkpoint {found.get(name, 'absent')}, config {expected.get(name, 'absent')}"
        )


def read_vocoder_weights(checkpoint: Path) -> dict[str, Tensor]:
    """The tensors of a vocoder's file in float32, by their names in it.

    Raises:
        VocoderError: damaged, unsafe, or no vocoder.
    """
    try:
        if checkpoint.suffix == ".safetensors":
            return {name: value.float() for name, value in load_tensors(checkpoint).items()}
        content = load_safely(checkpoint)
        weights = content.get("generator") if isinstance(content, dict) else None
        if not isinstance(weights, dict):
            raise VocoderError(f"{checkpoint} is no vocoder checkpoint: no weights under 'generator'")
        check_tensors(weights)
    except UnsafeFileError as error:
        raise VocoderError(f"cannot read the vocoder checkpoint {checkpoint}: {error}") from error
    except OSError as error:
        raise VocoderError(f"cannot read the vocoder checkpoint {checkpoint}: {error.strerror or error}") from error
    return {name: value.detach().float() for name, value in weights.items()}


def save_released_vocoder(weights: Mapping[str, Tensor], config: Path, directory: Path) -> Path:
    """Write a vocoder's tensors, by their names in its training files, and a copy of its configuration."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / RELEASED_NAME
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}
    write_file(path, safetensors.torch.save(tensors))
    write_file(directory / CONFIG_NAME, config.read_bytes())
    return path


def save_vocoder(vocoder: UnitVocoder, directory: str | os.PathLike[str], step: int = 0) -> Path:
    """Write ``config.json`` and the weights in the format that :func:`load_vocoder` reads.

    A CodeHiFiGAN is written as the published ones are: ``g_`` and the step in eight digits, weight norm split up,
    so that fairseq loads it as well.

    Args:
        vocoder: the model.
        directory: made if it does not exist.
        step: training steps so far.

    Returns:
        Path of the checkpoint.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().cpu().contiguous() for name, value in vocoder.state_dict().items()}
    path = directory / vocoder.checkpoint_name(step)
    write_checkpoint(path, {"generator": vocoder.to_checkpoint(weights)})
    write_file(directory / CONFIG_NAME, (json.dumps(vocoder.config, indent=2) + "\n").encode())
    return path
