"""Loading a trained model without fairseq's trainer, its user-dir or any absolute path."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from echostream.models.config import EchoStreamConfig
from echostream.models.echostream import EchoStreamModel


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged or of another kind."""


@dataclass(frozen=True)
class LoadedModel:
    """A model for inference and the dictionaries it was trained with."""

    model: EchoStreamModel
    source_symbols: list[str]
    target_symbols: list[str]


def load_model(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> LoadedModel:
    """Load an EchoStream checkpoint written by fairseq.

    The checkpoint is self-contained: it holds the configuration, the weights, the feature normalisation and, in
    fairseq's task state, the dictionaries. It is read with torch's safe loader, which runs no code from the file.

    Raises:
        CheckpointError: a missing, damaged or foreign file; the message names it and the remedy.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}: give the path of a checkpoint_*.pt of scripts/train.sh")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the loader raises whatever the damage makes it stumble over
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"cannot read the checkpoint {path}, it is damaged or unsafe: {reason}") from error
    try:
        options = dict(content["cfg"]["model"])
        weights = content["model"]
        task = content["task_state"]
        source, target, num_units = task["source_symbols"], task["target_symbols"], task["num_units"]
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is not an EchoStream checkpoint: it has no {error}") from error
    known = {field.name for field in dataclasses.fields(EchoStreamConfig)}
    name = str(options.get("_name") or options.get("arch"))
    if not name.startswith("echostream"):
        raise CheckpointError(f"{path} holds a model '{name}', not an echostream one")
    missing = sorted(key for key in known if key not in options and not key.startswith("_"))
    if missing:
        raise CheckpointError(f"{path} lacks the model option {missing[0]}: it was written by another version")
    cfg = EchoStreamConfig(**{key: value for key, value in options.items() if key in known})
    model = EchoStreamModel(cfg, len(source), len(target), int(num_units))
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise CheckpointError(f"the weights in {path} don't fit its configuration: {reason}") from error
    return LoadedModel(model.to(device).eval().requires_grad_(False), list(source), list(target))
