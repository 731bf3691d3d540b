"""Loading a trained model without fairseq's trainer, its user-dir or any absolute path."""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from echostream.checkpoints.safe_loading import UnsafeFileError, load_safely
from echostream.models.config import ACTIVATIONS, EchoStreamConfig
from echostream.models.echostream_model import EchoStreamModel

# What building a model from sizes that make no sense may end in.
SENSELESS = (ValueError, TypeError, KeyError, ArithmeticError, RuntimeError, MemoryError)


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
    try:
        if not path.is_file():
            raise CheckpointError(f"no checkpoint at {path}: give the path of a checkpoint_*.pt of scripts/train.sh")
        content = load_safely(path)
    except UnsafeFileError as error:
        raise CheckpointError(f"cannot load the checkpoint {path}: {error}") from error
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error.strerror or error}") from error
    options = _mapping(path, _mapping(path, content, "cfg"), "model", "cfg.model")
    weights, task = _mapping(path, content, "model"), _mapping(path, content, "task_state")
    cfg = _model_config(path, options)
    source, target = (_symbols(path, task, key) for key in ("source_symbols", "target_symbols"))
    num_units = task.get("num_units")
    if type(num_units) is not int or num_units < 1:
        raise CheckpointError(f"{path} is not an EchoStream checkpoint: its task_state has no num_units")
    _check_sizes(path, cfg, (len(source), len(target), num_units), weights)
    try:
        model = EchoStreamModel(cfg, len(source), len(target), num_units)
    except SENSELESS as error:
        raise CheckpointError(f"the model options in {path} make no sense: {_first_line(error)}") from error
    _check_weights(path, model, weights)
    model.load_state_dict(weights)
    return LoadedModel(model.to(device).eval().requires_grad_(False), source, target)


def _mapping(path: Path, content: Any, key: str, name: str | None = None) -> Mapping[str, Any]:
    """``content[key]``, which must be a mapping."""
    found = content.get(key) if isinstance(content, Mapping) else None
    if not isinstance(found, Mapping):
        raise CheckpointError(f"{path} is not an EchoStream checkpoint: it has no {name or key!r}")
    return found


def _symbols(path: Path, task: Mapping[str, Any], key: str) -> list[str]:
    """A dictionary of the task state."""
    symbols = task.get(key)
    if not isinstance(symbols, Sequence) or not symbols or not all(isinstance(symbol, str) for symbol in symbols):
        raise CheckpointError(f"{path} is not an EchoStream checkpoint: its task_state has no {key}")
    return list(symbols)


def _model_config(path: Path, options: Mapping[str, Any]) -> EchoStreamConfig:
    """The configuration, if it is one of this version and its values are of the right types."""
    name = str(options.get("_name") or options.get("arch"))
    if not name.startswith("echostream"):
        raise CheckpointError(f"{path} holds a model '{name}', not an echostream one")
    fields = {field.name: field for field in dataclasses.fields(EchoStreamConfig) if not field.name.startswith("_")}
    for key in options:
        if key not in fields and not str(key).startswith("_") and key != "arch":
            near = difflib.get_close_matches(str(key), fields, n=1)
            hint = f" (is it {near[0]}?)" if near else ""
            raise CheckpointError(
                f"{path} has the model option {key!r}, which is not known{hint}: it was written by another version"
            )
    for key, field in fields.items():
        if key not in options:
            raise CheckpointError(f"{path} lacks the model option {key}: it was written by another version")
        value = options[key]
        if isinstance(field.default, str):
            right = value in list(ACTIVATIONS)
        elif isinstance(field.default, float):
            right = type(value) in (int, float) and 0 <= value <= 1
        else:
            right = type(value) is int and value >= 0
        if not right:
            raise CheckpointError(f"the model options in {path} make no sense: {key} is {value!r}")
    return EchoStreamConfig(**{key: options[key] for key in fields})


def _check_sizes(
    path: Path, cfg: EchoStreamConfig, vocabularies: tuple[int, int, int], weights: Mapping[str, Any]
) -> None:
    """Refuse, before memory is taken for it, a model of which the weights can't be in the file."""
    shapes = {name: tuple(value.shape) for name, value in weights.items() if isinstance(value, Tensor)}
    for (name, what), size in zip(
        (
            ("asr_head.output.weight", "source dictionary has {} symbols"),
            ("mt_decoder.embedding.weight", "target dictionary has {} symbols"),
            ("unit_decoder.output.weight", "unit inventory has {} units"),
        ),
        vocabularies,
        strict=True,
    ):
        wanted = (size + 1) * cfg.unit_frames_per_position if name.startswith("unit") else size
        rows = shapes[name][0] if shapes.get(name) else wanted
        if rows != wanted:
            found = rows // max(cfg.unit_frames_per_position, 1) - 1 if name.startswith("unit") else rows
            raise CheckpointError(
                f"the weights in {path} don't fit its dictionaries: its {what.format(size)}, its weights have {found}"
            )
    longest = max((size for shape in shapes.values() for size in shape), default=0)
    for key, value in dataclasses.asdict(cfg).items():
        limit = len(shapes) if str(key).endswith("_layers") else longest if str(key).endswith("_dim") else None
        if limit is not None and value > limit:
            raise CheckpointError(
                f"the weights in {path} don't fit its configuration: there are none for {key} {value}"
            )


def _check_weights(path: Path, model: EchoStreamModel, weights: Mapping[str, Any]) -> None:
    """Refuse weights of another model, and those of a training that went wrong."""
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items() if isinstance(value, Tensor)}
    if differing := sorted(name for name in expected | found if expected.get(name) != found.get(name)):
        name = differing[0]
        raise CheckpointError(
            f"the weights in {path} don't fit its configuration: {len(differing)} tensors differ, the first {name}: "
            f"checkpoint {found.get(name, 'absent')}, configuration {expected.get(name, 'absent')}"
        )
    for name, value in weights.items():
        if not bool(torch.isfinite(value).all()):
            raise CheckpointError(
                f"the weights in {path} hold NaN or infinity, the first in {name}: the training went wrong, take an "
                "earlier checkpoint"
            )
    if not bool((weights["fbank.cmvn_std"] > 0).all()):
        raise CheckpointError(f"the CMVN in {path} can't be used: a standard deviation in it isn't positive")


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
