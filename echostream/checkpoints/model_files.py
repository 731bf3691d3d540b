"""Loading a trained model, released or as training left it, without fairseq, its user-dir or any absolute path.

Two formats hold the same content (:class:`ModelContent`):

- **released**: ``model.safetensors`` with the weights, beside ``model.json`` with everything else; the weights of a
  large model are in several files, the others named in ``model.json``;
- **training**: fairseq's ``checkpoint_*.pt``, read with torch's safe loader, which runs no code from the file.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from echostream.checkpoints.errors import CheckpointError, UnsafeFileError, short
from echostream.checkpoints.model_classes import OWN_PREFIX, find_model_class
from echostream.checkpoints.older_weights import current_weights
from echostream.checkpoints.packing import in_files, pack, shorten
from echostream.checkpoints.safe_loading import BoundedMemory, check_tensors, load_safely, load_tensors
from echostream.checkpoints.text_files import read_json
from echostream.checkpoints.writing import write_file
from echostream.models.config import ARCHITECTURES, CHOICES, EchoStreamConfig, parse_heads
from echostream.models.echostream_model import EchoStreamModel
from echostream.models.front_ends import FRONT_ENDS
from echostream.modules.transformer import CausalTransformer

FORMAT, FORMAT_VERSION = "echostream-model", 3
FIRST_VERSION, SECOND_VERSION = 1, 2  # of weights in one file and not packed, which every version reads; of several
WEIGHTS_NAME, DESCRIPTION_NAME = "model.safetensors", "model.json"
MORE_WEIGHTS = "model_{}.safetensors"
MAX_FILE_BYTES = 44_800_000  # of weights; with a file's header and the scales of its last matrix it stays below 45 MB
# What building a model from sizes that make no sense may end in.
# A stream remembers 4 MB in the largest model there is.
MAX_STATE_ELEMENTS, MAX_STATE_TENSORS = 2**26, 10_000
MAX_FILES = 100
LARGEST_OPTION = 100_000  # of windows and contexts, in frames; sizes of weights are compared with the file
SENSELESS = (ValueError, TypeError, KeyError, ArithmeticError, RuntimeError)


@dataclass(frozen=True)
class ModelContent:
    """What a model's file holds.

    Attributes:
        options: of :class:`EchoStreamConfig`; what is missing has its default.
        weights: by their names in :class:`EchoStreamModel`, the feature normalisation among them.
        source_symbols, target_symbols: the dictionaries.
        num_units: size of the unit inventory.
        name: under which the model is registered with fairseq; it says of which class it is.
    """

    options: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    source_symbols: list[str]
    target_symbols: list[str]
    num_units: int
    name: str = OWN_PREFIX


@dataclass(frozen=True)
class LoadedModel:
    """A model for inference and the dictionaries it was trained with."""

    model: EchoStreamModel
    source_symbols: list[str]
    target_symbols: list[str]


def load_model(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> LoadedModel:
    """Load a model; of a class of one's own, if that is registered with fairseq.

    Args:
        path: a ``.safetensors`` file of a released model, or a checkpoint written by fairseq.
        device: where to put it.

    Raises:
        CheckpointError: a missing, damaged or foreign file; the message names it and the remedy.
    """
    path = Path(path)
    content = read_model(path)
    model_class, config_class = find_model_class(path, content.name)
    cfg = _model_config(path, content.options, config_class)
    sizes = (len(content.source_symbols), len(content.target_symbols), content.num_units)
    _check_sizes(path, cfg, sizes, content.weights)
    try:
        with BoundedMemory.for_weights(content.weights):
            model = model_class(cfg, *sizes)
        with BoundedMemory(MAX_STATE_ELEMENTS, MAX_STATE_TENSORS):
            for part in (model.encoder, model.asr_head, model.st_head, model.mt_decoder, model.unit_decoder):
                part.init_state()
            for module in model.modules():
                if isinstance(module, CausalTransformer):
                    module.full_state()
    except MemoryError as error:
        raise CheckpointError(f"the weights in {path} don't fit its configuration: {error}") from error
    except SENSELESS as error:
        raise CheckpointError(f"the model options in {path} make no sense: {_first_line(error)}") from error
    _check_weights(path, model, content.weights)
    model.load_state_dict(content.weights)
    return LoadedModel(model.to(device).eval().requires_grad_(False), content.source_symbols, content.target_symbols)


def read_model(path: Path) -> ModelContent:
    """The content of a model's file, in either format.

    Raises:
        CheckpointError: a missing, damaged or foreign file.
    """
    if not path.is_file():
        raise CheckpointError(
            f"no checkpoint at {path}: give a folder with a released model, or a checkpoint_*.pt of scripts/train.sh"
        )
    try:
        if path.suffix == ".safetensors":
            return _released(path)
        return _trained(path, load_safely(path))
    except UnsafeFileError as error:
        raise CheckpointError(f"cannot load the checkpoint {path}: {error}") from error
    except OSError as error:
        raise CheckpointError(
            f"cannot read the checkpoint {error.filename or path}: {error.strerror or error}"
        ) from error


def save_released(
    content: ModelContent,
    folder: Path,
    echostream_version: str,
    packed: bool = False,
    max_file_bytes: int = MAX_FILE_BYTES,
) -> list[Path]:
    """Write ``model.safetensors`` and ``model.json`` into ``folder``; each file is whole or not there.

    Args:
        content: of the model.
        folder: where they go.
        echostream_version: that wrote them.
        packed: the matrices as bytes, see :mod:`echostream.checkpoints.packing`.
        max_file_bytes: of one file; what is more goes to ``model_2.safetensors`` and so on.

    Returns:
        the paths, the description last.
    """
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in content.weights.items()}
    files = in_files(shorten(pack(tensors)) if packed else tensors, max_file_bytes)
    names = [WEIGHTS_NAME, *(MORE_WEIGHTS.format(number) for number in range(2, len(files) + 1))]
    description = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION if packed else SECOND_VERSION if len(files) > 1 else FIRST_VERSION,
        "echostream_version": echostream_version,
        **({} if content.name in ARCHITECTURES else {"model": content.name}),
        **({"weights": names} if len(files) > 1 else {}),
        "options": dict(content.options),
        "num_units": content.num_units,
        "source_symbols": content.source_symbols,
        "target_symbols": content.target_symbols,
    }
    paths = [*(folder / name for name in names), folder / DESCRIPTION_NAME]
    for path, part in zip(paths, files, strict=False):
        write_file(path, safetensors.torch.save(part, metadata={"format": FORMAT}))
    write_file(paths[-1], (json.dumps(description, ensure_ascii=False, indent=1) + "\n").encode())
    return paths


def known_options(
    options: Mapping[str, Any], config_class: type[EchoStreamConfig] = EchoStreamConfig
) -> dict[str, Any]:
    """The model options among fairseq's configuration of a model, for a class of configurations."""
    names = [field.name for field in dataclasses.fields(config_class) if not field.name.startswith("_")]
    return {name: options[name] for name in names if name in options}


def _released(path: Path) -> ModelContent:
    """Read ``model.safetensors`` with the description beside it."""
    file = path.with_suffix(".json")
    try:
        description = read_json(file)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} has no {file.name} beside it, which says what the weights are of") from error
    except UnsafeFileError as error:
        raise CheckpointError(f"{file}: {error}") from error
    if description.get("format") != FORMAT:
        raise CheckpointError(f"{file} does not describe an EchoStream model: it has no 'format: {FORMAT}'")
    version = description.get("format_version")
    if type(version) is not int or version < 1:
        raise CheckpointError(f"{file}: format_version must be a whole number from 1, not {version!r}")
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{file} is of format version {version}, this EchoStream reads up to {FORMAT_VERSION}: install a newer one"
        )
    name = description.get("model", OWN_PREFIX)
    if not isinstance(name, str):
        raise CheckpointError(f"{file}: model must be a name, not {name!r}")
    options = _mapping(file, description, "options")
    weights = current_weights(_weights_in(path, file, description.get("weights", [path.name])))
    return ModelContent(options, weights, *_vocabularies(file, description), name)


def _weights_in(path: Path, description: Path, names: Any) -> dict[str, Tensor]:
    """The weights of all files of a model, of which ``path`` is the first.

    Raises:
        CheckpointError: names that are none, or weights that two files have.
    """
    is_list = isinstance(names, list) and 1 <= len(names) <= MAX_FILES and len({*map(str, names)}) == len(names)
    if not is_list or not all(isinstance(name, str) and _is_file_name(name) for name in names):
        raise CheckpointError(f"{description}: weights must be names of different files beside it, not {short(names)}")
    if path.name != names[0]:
        raise CheckpointError(f"{description} is of the weights in {names[0]}, not of {path.name}")
    weights: dict[str, Tensor] = {}
    for name in names:
        part = path.with_name(name)
        if not part.is_file():
            raise CheckpointError(f"{description} names {name}, which is not beside it: copy all files of the model")
        try:
            found = load_tensors(part)
        except UnsafeFileError as error:
            raise CheckpointError(f"cannot load the checkpoint {part}: {error}") from error
        if twice := sorted(found.keys() & weights.keys()):
            raise CheckpointError(f"{part} holds {twice[0]}, which another file of the model has as well")
        weights |= found
    return weights


def _is_file_name(name: str) -> bool:
    return name.isprintable() and name not in ("", "..") and Path(name).name == name


def _trained(path: Path, content: Any) -> ModelContent:
    """Take a fairseq checkpoint apart."""
    options = _mapping(path, _mapping(path, content, "cfg"), "model", "cfg.model")
    weights, task = _mapping(path, content, "model"), _mapping(path, content, "task_state")
    name = str(options.get("_name") or options.get("arch"))
    find_model_class(path, name)  # of a foreign checkpoint this says more than what else it lacks
    options = {key: value for key, value in options.items() if not str(key).startswith("_") and key != "arch"}
    vocabularies = _vocabularies(path, task, "its task_state has ")
    check_tensors(weights)
    return ModelContent(options, current_weights(weights), *vocabularies, name)


def _vocabularies(path: Path, content: Mapping[str, Any], where: str = "it has ") -> tuple[list[str], list[str], int]:
    """Both dictionaries and the size of the unit inventory."""
    source, target = (_symbols(path, content, key, where) for key in ("source_symbols", "target_symbols"))
    num_units = content.get("num_units")
    if type(num_units) is not int or not 1 <= num_units <= LARGEST_OPTION:
        raise CheckpointError(f"{path} is not an EchoStream checkpoint: {where}no num_units")
    return source, target, num_units


def _mapping(path: Path, content: Any, key: str, name: str | None = None) -> Mapping[str, Any]:
    """``content[key]``, which must be a mapping."""
    found = content.get(key) if isinstance(content, Mapping) else None
    if not isinstance(found, Mapping):
        raise CheckpointError(f"{path} is not an EchoStream checkpoint: it has no {name or key!r}")
    return found


def _symbols(path: Path, content: Mapping[str, Any], key: str, where: str) -> list[str]:
    """A dictionary."""
    symbols = content.get(key)
    if not isinstance(symbols, list | tuple) or not symbols or not all(isinstance(symbol, str) for symbol in symbols):
        raise CheckpointError(f"{path} is not an EchoStream checkpoint: {where}no {key}")
    return list(symbols)


def _model_config(path: Path, options: Mapping[str, Any], config_class: type[EchoStreamConfig]) -> EchoStreamConfig:
    """The configuration, if it is one of this version and its values are of the right types.

    The values of options that a class of the user's own adds are left for that class to check.
    """
    fields = {field.name: field for field in dataclasses.fields(config_class) if not field.name.startswith("_")}
    ours = {field.name: field for field in dataclasses.fields(EchoStreamConfig)}
    for key in options:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            hint = f" (is it {near[0]}?)" if near else ""
            raise CheckpointError(
                f"{path} has the model option {short(key)}, which is not known{hint}: it was written by another version"
            )
    for key, field in ours.items():
        if key not in options:
            continue  # an option that is younger than the file; its default is what there was before it
        value = options[key]
        if isinstance(field.default, bool):
            right = type(value) is bool
        elif key == "mt_alignment_heads":
            right = isinstance(value, str) and _are_heads(value)
        elif isinstance(field.default, str):
            right = value in list(CHOICES.get(key, FRONT_ENDS))
        elif isinstance(field.default, float):
            right = type(value) in (int, float) and 0 <= value <= 1
        else:
            right = type(value) is int and value >= 0
        if not right:
            raise CheckpointError(f"the model options in {path} make no sense: {key} is {short(value)}")
    return config_class(**options)


def _are_heads(text: str) -> bool:
    try:
        return bool(parse_heads(text)) or not text
    except ValueError:
        return False


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
    for key in (field.name for field in dataclasses.fields(EchoStreamConfig)):
        value = getattr(cfg, key)
        limit = len(shapes) if str(key).endswith("_layers") else longest if str(key).endswith("_dim") else None
        if limit is not None and value > limit:
            raise CheckpointError(
                f"the weights in {path} don't fit its configuration: there are none for {key} {short(value)}"
            )
        if type(value) is int and value > LARGEST_OPTION:
            raise CheckpointError(f"the model options in {path} make no sense: {key} is {short(value)}")


def _check_weights(path: Path, model: EchoStreamModel, weights: Mapping[str, Any]) -> None:
    """Refuse weights of another model, and features that can't be normalised."""
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items() if isinstance(value, Tensor)}
    if differing := sorted(name for name in expected | found if expected.get(name) != found.get(name)):
        name = differing[0]
        raise CheckpointError(
            f"the weights in {path} don't fit its configuration: {len(differing)} tensors differ, the first {name}: "
            f"checkpoint {found.get(name, 'absent')}, configuration {expected.get(name, 'absent')}"
        )
    if "fbank.cmvn_std" in weights and not bool((weights["fbank.cmvn_std"] > 0).all()):
        raise CheckpointError(f"the CMVN in {path} can't be used: a standard deviation in it isn't positive")


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
