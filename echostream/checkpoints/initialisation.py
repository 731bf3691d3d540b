"""Starting a model from the weights of another one: ``--init-encoder-from`` and ``--init-decoders-from``.

The files are fairseq checkpoints, EchoStream's own or those of StreamSpeech (Zhang et al. 2024) and other fairseq
speech models, whose names :mod:`echostream.checkpoints.fairseq_names` translates. A tensor is taken where its shape is
that of the model's. Whatever is left over in a file, and whatever the model got from no file, is in the report.
"""

from __future__ import annotations

import argparse
import collections
import os
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import omegaconf
import torch
from torch import Tensor, nn

from echostream.checkpoints.errors import CheckpointError, UnsafeFileError
from echostream.checkpoints.fairseq_names import Candidate, neutral, translate
from echostream.checkpoints.model_files import read_model
from echostream.checkpoints.older_weights import current_weights
from echostream.checkpoints.safe_loading import check_tensors, load_safely

PARTS = {"encoder": ("encoder.",), "decoders": ("asr_head.", "st_head.", "mt_decoder.", "unit_decoder.")}
VOCABULARY = {
    "asr_head.output.": "source_symbols",
    "st_head.output.": "target_symbols",
    "mt_decoder.embedding.": "target_symbols",
}
EMBEDDING = "mt_decoder.embedding.weight"
# What fairseq has written beside tensors: command lines, configurations, numbers of older NumPy releases.
CHECKPOINT_TYPES: list[Any] = [
    argparse.Namespace,
    omegaconf.DictConfig,
    omegaconf.ListConfig,
    omegaconf.AnyNode,
    omegaconf.base.ContainerMetadata,
    omegaconf.base.Metadata,
    collections.defaultdict,
    typing.Any,
    dict,
    list,
    int,
    np.dtype,
    type(np.dtype(np.float64)),
    type(np.dtype(np.float32)),
    type(np.dtype(np.int64)),
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),  # type: ignore[attr-defined]
    (np._core.multiarray.scalar, "numpy._core.multiarray.scalar"),  # type: ignore[attr-defined]
]


class PretrainedError(ValueError):
    """A file that a model cannot start from; the message names it."""


@dataclass
class Source:
    """Tensors of a checkpoint and, where it is EchoStream's, the task state with its dictionaries."""

    path: Path
    tensors: dict[str, Tensor]
    task_state: Mapping[str, Any] | None

    @property
    def is_own(self) -> bool:
        return any(name.startswith(("encoder.emformer.", "mt_decoder.stack.")) for name in self.tensors)


def read_source(path: str | os.PathLike[str]) -> Source:
    """Read a fairseq checkpoint with torch's safe loader, which runs no code from the file.

    Raises:
        PretrainedError: missing, damaged, unsafe, or no fairseq checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise PretrainedError(f"{path}: no such checkpoint")
    try:
        if path.suffix == ".safetensors":
            return _released(path)
        content = load_safely(path, CHECKPOINT_TYPES)
        weights = content.get("model") if isinstance(content, dict) else None
        if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
            raise PretrainedError(f"{path}: not a fairseq checkpoint, it has no 'model' with tensors")
        check_tensors(weights, integers=True)
    except UnsafeFileError as error:
        raise PretrainedError(f"{path}: can't be loaded as a checkpoint: {error}") from error
    except OSError as error:
        raise PretrainedError(f"{path}: can't be read: {error.strerror or error}") from error
    task_state = content.get("task_state")
    return Source(path, current_weights(weights), task_state if isinstance(task_state, Mapping) else None)


def _released(path: Path) -> Source:
    """A released model of ours, without the subwords that were added after its training."""
    try:
        content = read_model(path)
    except CheckpointError as error:
        raise PretrainedError(str(error)) from error
    tensors, trained = dict(content.weights), len(content.target_symbols)
    further = content.options.get("mt_further_tokens")
    if type(further) is int and 0 < further < trained and EMBEDDING in tensors:
        trained -= further
        tensors[EMBEDDING] = tensors[EMBEDDING][:trained]
    symbols = {"source_symbols": content.source_symbols, "target_symbols": content.target_symbols[:trained]}
    return Source(path, tensors, symbols)


@dataclass
class Transfer:
    """What one file gave to the model.

    Attributes:
        path: the file.
        parts: ``encoder``, ``decoders`` or both.
        filled: names of parameters that were set; a note where to a constant that the file's model implies.
        left: names of the file's tensors that were not used, with the reason.
        num_tensors: tensors in the file.
    """

    path: Path
    parts: tuple[str, ...]
    num_tensors: int
    filled: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """The report on this file, for a log."""
        taken = sum(why == "" for why in self.filled.values())
        lines = [
            f"{self.path}: {self.num_tensors - len(self.left)} of {self.num_tensors} tensors taken for {taken} tensors "
            f"of the model ({' and '.join(self.parts)})"
        ]
        lines += [f"  taken: {group}" for group in grouped(self.filled)]
        return lines + [f"  left over: {group}" for group in grouped(self.left)]


def grouped(reasons: Mapping[str, str]) -> list[str]:
    """Names that differ only in layer numbers and ``weight``/``bias`` in one line each, with their number and reason.

    >>> grouped({"a.0.w.bias": "", "a.1.w.bias": "", "a.0.w.weight": "", "a.1.w.weight": ""})
    ['a.0-1.w.bias,weight (4)']
    """
    groups: dict[tuple[str, str], list[tuple[int, ...]]] = {}
    leaves: dict[tuple[str, str], list[str]] = {}
    for name, reason in reasons.items():
        stem, _, leaf = name.rpartition(".")
        key = (re.sub(r"(?<=\.)\d+(?=\.|$)", "#", stem), reason)
        groups.setdefault(key, []).append(tuple(map(int, re.findall(r"(?<=\.)\d+(?=\.|$)", stem))))
        leaves.setdefault(key, []).append(leaf)
    lines = []
    for (pattern, reason), numbers in groups.items():
        leaf = ",".join(dict.fromkeys(leaves[pattern, reason]))
        for column in zip(*numbers, strict=True):
            pattern_range = _span(sorted(set(column)))
            pattern = pattern.replace("#", pattern_range, 1)
        lines.append(f"{pattern}.{leaf} ({len(numbers)}){f': {reason}' if reason else ''}".lstrip("."))
    return lines


def _span(numbers: Sequence[int]) -> str:
    if len(numbers) > 1 and list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]}-{numbers[-1]}"
    return ",".join(map(str, numbers))


def initialise(
    model: nn.Module, requests: Mapping[str, str | os.PathLike[str]], task_state: Mapping[str, Any]
) -> tuple[list[Transfer], list[str]]:
    """Copy weights into ``model`` and say what was copied.

    Args:
        model: an EchoStream model.
        requests: checkpoint by part, ``encoder`` or ``decoders``; both may name one file.
        task_state: ``source_symbols`` and ``target_symbols`` that ``model`` was built for.

    Returns:
        one report a file, and the names of the parameters that no file filled.

    Raises:
        PretrainedError: a file that can't be read or of which nothing fits.
    """
    by_file: dict[Path, list[str]] = {}
    for part, path in requests.items():
        by_file.setdefault(Path(path), []).append(part)
    transfers = [_transfer(model, read_source(path), tuple(parts), task_state) for path, parts in by_file.items()]
    filled = {name for transfer in transfers for name in transfer.filled}
    return transfers, [name for name, _ in model.named_parameters() if name not in filled]


def _transfer(model: nn.Module, source: Source, parts: tuple[str, ...], task_state: Mapping[str, Any]) -> Transfer:
    targets = dict(model.named_parameters())
    if source.is_own:
        candidates = {name: Candidate(tensor, (name,)) for name, tensor in source.tensors.items()}
    else:
        candidates = translate(source.tensors, len(targets["unit_decoder.output.bias"]))
    result = Transfer(source.path, parts, len(source.tensors))
    result.left = dict.fromkeys(source.tensors, "the model has nothing like it")
    prefixes = tuple(prefix for part in parts for prefix in PARTS[part])
    for name, candidate in candidates.items():
        reason = _obstacle(name, candidate, targets, source, prefixes, task_state)
        if reason:
            result.left |= {used: reason for used in candidate.sources if used in result.left}
        else:
            with torch.no_grad():
                targets[name].copy_(candidate.tensor)
            result.filled[name] = ""
            for used in candidate.sources:
                result.left.pop(used, None)
    if not result.filled:
        raise PretrainedError(
            f"{source.path}: nothing in it fits the {' or the '.join(parts)} of the model. Left over: "
            f"{'; '.join(grouped(result.left)[:3])} ..."
        )
    if not source.is_own:
        for name, (constant, note) in neutral(result.filled, targets).items():
            with torch.no_grad():
                targets[name].copy_(constant)
            result.filled[name] = note
    return result


def _obstacle(
    name: str,
    candidate: Candidate,
    targets: Mapping[str, Tensor],
    source: Source,
    prefixes: tuple[str, ...],
    task_state: Mapping[str, Any],
) -> str:
    """Why ``candidate`` doesn't become the model's ``name``; empty if it does."""
    if not name.startswith(prefixes):
        return "not asked for"
    if name not in targets:
        return "the model has nothing like it"
    if source.is_own and _other_symbols(name, source, task_state):
        return "the dictionary is another one"
    if candidate.tensor.shape != targets[name].shape:
        return f"the model's shape is {tuple(targets[name].shape)}, not {tuple(candidate.tensor.shape)}"
    return ""


def _other_symbols(name: str, source: Source, task_state: Mapping[str, Any]) -> bool:
    """Whether ``name`` has a row for each symbol of a dictionary that isn't the model's."""
    for prefix, key in VOCABULARY.items():
        if name.startswith(prefix):
            return source.task_state is None or list(source.task_state.get(key, ())) != list(task_state[key])
    return False


def report(transfers: Iterable[Transfer], missing: Sequence[str]) -> tuple[list[str], list[str]]:
    """What :func:`initialise` did as lines to log as information, and those to log as warnings."""
    notes = [line for transfer in transfers for line in transfer.lines()]
    warnings = [f"  as initialised: {group}" for group in grouped(dict.fromkeys(missing, ""))]
    if warnings:
        warnings.insert(0, f"{len(missing)} parameters of the model come from no file:")
    return notes, warnings
