"""Checkpoint files of a training: none is spoilt by a full disk or a kill, and one to go on from is looked at first.

fairseq copies a new checkpoint over ``checkpoint_last.pt`` byte by byte, tries three times to write to a full disk, and
stops with a traceback. With :func:`install` a file is there under its name when it is whole, or the old one is.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from fairseq import checkpoint_utils
from fairseq.file_io import PathManager
from torch import Tensor, nn

from echostream.checkpoints.errors import UnsafeFileError
from echostream.checkpoints.safe_loading import load_safely
from echostream.tasks.config import EchoStreamTaskConfig
from echostream.tasks.manifests import ManifestError

RESUME_NAME = "checkpoint_last.pt"  # fairseq's default of --restore-file; that, and only that, is in the save folder
MARK = "_echostream"


def install() -> None:
    """Make fairseq write checkpoints by way of :func:`save` and :func:`copy`. May be called again."""
    if hasattr(checkpoint_utils, MARK):
        return
    setattr(checkpoint_utils, MARK, True)
    plain_save, plain_copy = checkpoint_utils.torch_persistent_save, PathManager.copy
    plain_verify = checkpoint_utils.verify_checkpoint_directory

    def persistent_save(obj: object, filename: str, async_write: bool = False) -> None:
        if async_write or not PathManager.supports_rename(filename):
            plain_save(obj, filename, async_write)
        else:
            save(obj, Path(filename))

    def verify(save_dir: str) -> None:
        try:
            plain_verify(save_dir)
        except OSError as error:
            raise SystemExit(
                f"echostream: cannot write to --save-dir {save_dir}: {error.strerror or error}; choose another"
            ) from error

    def copy_whole(src_path: str, dst_path: str, overwrite: bool = False) -> bool:
        if not PathManager.supports_rename(dst_path):
            return plain_copy(src_path, dst_path, overwrite)
        copy(Path(src_path), Path(dst_path))
        return True

    checkpoint_utils.torch_persistent_save = persistent_save
    checkpoint_utils.verify_checkpoint_directory = verify
    PathManager.copy = staticmethod(copy_whole)


def save(content: object, path: Path) -> None:
    """``torch.save`` that leaves the old file or the whole new one.

    Raises:
        SystemExit: it can't be written, with one line.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        torch.save(content, temporary)
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        raise SystemExit(_cannot_write(path, error)) from error


def copy(source: Path, path: Path) -> None:
    """A copy that leaves the old file or the whole new one.

    Raises:
        SystemExit: it can't be written, with one line.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        shutil.copyfile(source, temporary)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise SystemExit(_cannot_write(path, error)) from error


def _cannot_write(path: Path, error: Exception) -> str:
    reason = getattr(error, "strerror", None)
    if reason is None:  # torch's writer doesn't say why
        reason = "it doesn't fit on the disk, or within a quota or limit"
    last = newest(path.parent)
    kept = f"; {last} is kept, and the same command goes on from there" if last else ""
    return f"echostream: cannot write {path}: {reason}; make room or choose another --save-dir{kept}"


def newest(folder: Path) -> Path | None:
    """The file that a training in this folder goes on from, or could be told to."""
    if (folder / RESUME_NAME).is_file():
        return folder / RESUME_NAME
    return _numbered(folder)


def _numbered(folder: Path) -> Path | None:
    found = {path: re.fullmatch(r"checkpoint_(\d+)_(\d+)\.pt", path.name) for path in folder.glob("checkpoint_*.pt")}
    counted = {path: int(match[2]) for path, match in found.items() if match}
    return max(counted, key=counted.__getitem__, default=None)


def check_resumed(
    cfg: EchoStreamTaskConfig, task_state: Mapping[str, Any], cmvn: Any, model: nn.Module | None = None
) -> Path | None:
    """Look at the checkpoint that the training will go on from, if there is one, before fairseq loads it.

    Args:
        cfg: where it would be.
        task_state: dictionaries and number of units of the data.
        cmvn: mean and standard deviation of the data, ``(80,)`` each, or None.
        model: the model that its weights are for.

    Returns:
        Its path, or None for a training that starts anew.

    Raises:
        ManifestError: it is damaged, unsafe, or of other dictionaries, units, normalisation or sizes.
    """
    if cfg.restore_file.startswith("${"):  # a task outside of a training
        return None
    path = Path(cfg.restore_file)
    if cfg.restore_file == RESUME_NAME:
        path = Path(cfg.save_dir) / path
        if not path.exists():
            return None
    elif not path.is_file():
        raise ManifestError(f"--restore-file {path}: no such checkpoint")
    try:
        content = load_safely(path)
    except UnsafeFileError as error:
        other = _numbered(path.parent)
        remedy = f"; or go on from the one before: cp {other} {path}" if other and other != path else ""
        raise ManifestError(f"cannot go on from {path}: {error}{remedy}") from error
    except OSError as error:
        raise ManifestError(f"cannot go on from {path}: {error.strerror or error}") from error
    state = content.get("task_state") if isinstance(content, Mapping) else None
    weights = content.get("model") if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not isinstance(weights, Mapping):
        raise ManifestError(f"cannot go on from {path}: it is not a checkpoint of EchoStream")
    for key, what in (("source_symbols", "source dictionary"), ("target_symbols", "target dictionary")):
        if state.get(key) != task_state[key]:
            raise ManifestError(
                f"cannot go on from {path}: its {what} is not that of the data ({len(state.get(key) or ())} and "
                f"{len(task_state[key])} symbols); put the old one back, or take another --save-dir"
            )
    if state.get("num_units") != task_state["num_units"]:
        raise ManifestError(
            f"cannot go on from {path}: it was trained with {state.get('num_units')} units, the data has "
            f"{task_state['num_units']} (--num-units)"
        )
    _check_tensors(path, weights, cmvn, model)
    return path


def _check_tensors(path: Path, weights: Mapping[str, Any], cmvn: Any, model: nn.Module | None) -> None:
    for name, value in zip(("mean", "std"), cmvn or (), strict=False):
        kept = weights.get(f"fbank.cmvn_{name}")
        wanted = torch.as_tensor(value, dtype=torch.float32)
        if not isinstance(kept, Tensor) or kept.shape != wanted.shape or not torch.allclose(kept.float(), wanted, 1e-4):
            raise ManifestError(
                f"cannot go on from {path}: it was trained with another global_cmvn ({name}) than that of the data; "
                "put the old statistics back, or take another --save-dir"
            )
    if model is None:
        return
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items() if isinstance(value, Tensor)}
    if differing := sorted(name for name in expected | found if expected.get(name) != found.get(name)):
        name = differing[0]
        raise ManifestError(
            f"cannot go on from {path}: it is of another architecture: {len(differing)} tensors differ, the first "
            f"{name}: checkpoint {found.get(name, 'absent')}, model {expected.get(name, 'absent')}; give the options "
            "that it was trained with, or take another --save-dir"
        )
