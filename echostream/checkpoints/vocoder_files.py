"""Files of unit vocoders: ``config.json`` beside ``vocoder.pt``, or beside ``g_*`` as published ones have it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from echostream.vocoders.interface import UnitVocoder, VocoderError
from echostream.vocoders.registry import build_vocoder

CONFIG_NAME = "config.json"


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a vocoder's JSON configuration.

    Raises:
        VocoderError: if there is none, or if it is no JSON object.
    """
    try:
        config = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise VocoderError(f"cannot read the vocoder config {path}: {error}") from error
    if not isinstance(config, dict):
        raise VocoderError(f"the vocoder config {path} is not a JSON object")
    return config


def find_checkpoint(directory: Path) -> Path:
    """The weights in a vocoder's directory: ``vocoder.pt``, else the ``g_*`` with the most steps.

    Raises:
        VocoderError: if there is neither.
    """
    if (directory / "vocoder.pt").is_file():
        return directory / "vocoder.pt"
    generators = [path for path in directory.glob("g_*") if re.fullmatch(r"g_\d+", path.name)]
    if not generators:
        raise VocoderError(f"no vocoder.pt and no g_* checkpoint in {directory}")
    return max(generators, key=lambda path: int(path.name[2:]))


def load_vocoder(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> UnitVocoder:
    """Load a vocoder for inference.

    Args:
        path: a directory with ``config.json`` and ``vocoder.pt`` or ``g_*``, or that checkpoint file itself with
            ``config.json`` beside it.
        device: where to put it.

    Raises:
        VocoderError: if a file is missing or damaged, or if weights and configuration disagree.
    """
    path = Path(path)
    if not path.exists():
        raise VocoderError(f"no vocoder at {path}")
    directory = path if path.is_dir() else path.parent
    vocoder = build_vocoder(read_config(directory / CONFIG_NAME))
    checkpoint = find_checkpoint(path) if path.is_dir() else path
    weights = vocoder.from_checkpoint(_read_weights(checkpoint))
    expected = {name: tuple(value.shape) for name, value in vocoder.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    if differing := sorted(name for name in expected | found if expected.get(name) != found.get(name)):
        name = differing[0]
        raise VocoderError(
            f"{checkpoint} does not fit {CONFIG_NAME} beside it: {len(differing)} tensors differ, the first {name}: "
            f"checkpoint {found.get(name, 'absent')}, config {expected.get(name, 'absent')}"
        )
    vocoder.load_state_dict(weights)
    return vocoder.to(device).eval().requires_grad_(False)


def _read_weights(checkpoint: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # the loader raises whatever the damage makes it stumble over
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise VocoderError(f"cannot read the vocoder checkpoint {checkpoint}: {reason}") from error
    weights = content.get("generator") if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise VocoderError(f"{checkpoint} is no vocoder checkpoint: no weights under 'generator'")
    return weights


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
    write_atomically(path, {"generator": vocoder.to_checkpoint(weights)})
    temporary = directory / f"{CONFIG_NAME}.tmp"
    temporary.write_text(json.dumps(vocoder.config, indent=2) + "\n", encoding="utf-8")
    temporary.replace(directory / CONFIG_NAME)
    return path


def write_atomically(path: Path, content: object) -> None:
    """``torch.save`` that leaves either the old file or the new one, whatever happens in between."""
    temporary = path.with_name(f"{path.name}.tmp")
    torch.save(content, temporary)
    temporary.replace(path)
