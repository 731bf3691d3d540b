"""Checkpoint files of a training: atomic writes, and checks of the checkpoint that a training resumes from.

fairseq copies a new checkpoint over ``checkpoint_last.pt`` byte by byte, tries three times to write to a full disk, and
then stops with a traceback. After :func:`install` a checkpoint is first written under a temporary name and then
renamed, so that a full disk or a kill leaves the old file or the complete new one.
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
from echostream.checkpoints.folder_lock import FolderInUseError, lock_folder
from echostream.checkpoints.older_weights import current_weights
from echostream.checkpoints.safe_loading import check_tensors, load_safely
from echostream.tasks.config import EchoStreamTaskConfig
from echostream.tasks.manifests import ManifestError
from echostream.tasks.older_checkpoints import current_checkpoint

# fairseq's default of --restore-file. fairseq looks for this name in the save folder; any other value is a path.
RESUME_NAME = "checkpoint_last.pt"
MARK = "_echostream"


def install() -> None:
    """Make fairseq write checkpoints with :func:`save` and :func:`copy`, and read those of earlier versions.

    Further calls have no effect.
    """
    if hasattr(checkpoint_utils, MARK):
        return
    setattr(checkpoint_utils, MARK, True)
    fairseq_save, fairseq_copy = checkpoint_utils.torch_persistent_save, PathManager.copy
    fairseq_verify, fairseq_load = checkpoint_utils.verify_checkpoint_directory, checkpoint_utils.load_checkpoint_to_cpu

    def persistent_save(obj: object, filename: str, async_write: bool = False) -> None:
        if async_write or not PathManager.supports_rename(filename):
            fairseq_save(obj, filename, async_write)
        else:
            save(obj, Path(filename))

    def verify(save_dir: str) -> None:
        try:
            fairseq_verify(save_dir)
        except OSError as error:
            raise SystemExit(
                f"echostream: cannot write to --save-dir {save_dir}: {error.strerror or error}; choose another"
            ) from error
        try:
            lock_folder(Path(save_dir))
        except FolderInUseError as error:
            raise SystemExit(f"echostream: another training writes to --save-dir {error}") from error

    def atomic_copy(src_path: str, dst_path: str, overwrite: bool = False) -> bool:
        if not PathManager.supports_rename(dst_path):
            return fairseq_copy(src_path, dst_path, overwrite)
        copy(Path(src_path), Path(dst_path))
        return True

    def load_current(*args: Any, **options: Any) -> dict[str, Any]:
        return current_checkpoint(fairseq_load(*args, **options))

    checkpoint_utils.load_checkpoint_to_cpu = load_current
    checkpoint_utils.torch_persistent_save = persistent_save
    checkpoint_utils.verify_checkpoint_directory = verify
    PathManager.copy = staticmethod(atomic_copy)


def save(content: object, path: Path) -> None:
    """Atomic ``torch.save``: on failure the old file is left as it was.

    Raises:
        SystemExit: with a one-line message, if the file can't be written.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        torch.save(content, temporary)
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        raise SystemExit(_cannot_write(path, error)) from error


def copy(source: Path, path: Path) -> None:
    """Atomic copy: on failure the old file is left as it was.

    Raises:
        SystemExit: with a one-line message, if the file can't be written.
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
    if reason is None:  # torch's writer gives no reason
        reason = "it doesn't fit on the disk, or within a quota or limit"
    last = newest(path.parent)
    kept = f"; {last} is kept, and the same command goes on from there" if last else ""
    return f"echostream: cannot write {path}: {reason}; make room or choose another --save-dir{kept}"


def newest(folder: Path) -> Path | None:
    """The newest checkpoint in ``folder``: ``checkpoint_last.pt``, or else the one with most updates; None if none."""
    if (folder / RESUME_NAME).is_file():
        return folder / RESUME_NAME
    return _newest_by_updates(folder)


def _newest_by_updates(folder: Path) -> Path | None:
    """The file ``checkpoint_{epoch}_{updates}.pt`` with the most updates."""
    found = {path: re.fullmatch(r"checkpoint_(\d+)_(\d+)\.pt", path.name) for path in folder.glob("checkpoint_*.pt")}
    updates = {path: int(match[2]) for path, match in found.items() if match}
    return max(updates, key=updates.__getitem__, default=None)


def check_resumed(
    cfg: EchoStreamTaskConfig, task_state: Mapping[str, Any], cmvn: Any, model: nn.Module | None = None
) -> Path | None:
    """Check the checkpoint that the training will resume from, if there is one, before fairseq loads it.

    Args:
        cfg: names the checkpoint.
        task_state: dictionaries and number of units of the data.
        cmvn: mean and standard deviation of the data, ``(80,)`` each, or None.
        model: the model that the weights will be loaded into; None skips the comparison of tensor shapes.

    Returns:
        Path of the checkpoint, or None for a new training.

    Raises:
        ManifestError: the checkpoint is damaged or unsafe, or differs from the data or the model in its dictionaries,
            units, normalisation or tensor shapes.
    """
    path = _resumed_from(cfg)
    if path is None:
        return None
    try:
        content = load_safely(path)
    except UnsafeFileError as error:
        other = _newest_by_updates(path.parent)
        remedy = f"; or go on from the one before: cp {other} {path}" if other and other != path else ""
        raise ManifestError(f"cannot go on from {path}: {error}{remedy}") from error
    except OSError as error:
        raise ManifestError(f"cannot go on from {path}: {error.strerror or error}") from error
    state = content.get("task_state") if isinstance(content, Mapping) else None
    weights = content.get("model") if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not isinstance(weights, Mapping):
        raise ManifestError(f"cannot go on from {path}: it is not a checkpoint of EchoStream")
    try:
        check_tensors(weights)
    except UnsafeFileError as error:
        raise ManifestError(f"cannot go on from {path}: {error}") from error
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
    _check_tensors(path, current_weights(weights), cmvn, model)
    return path


def _resumed_from(cfg: EchoStreamTaskConfig) -> Path | None:
    """The checkpoint that fairseq will load, by the options that name one; None for a new training.

    Raises:
        ManifestError: it is named, and isn't there.
    """

    def given(value: str | None) -> str:
        # An unresolved reference: the task is used outside of a training.
        return "" if value is None or value.startswith("${") else value

    restored, suffix = given(cfg.restore_file), given(cfg.checkpoint_suffix)
    if not restored:
        return None
    option, path = "--restore-file", Path(restored.replace(".pt", f"{suffix}.pt"))
    if restored == RESUME_NAME:
        last = Path(cfg.save_dir) / path
        if last.exists():
            return last
        if named := given(cfg.continue_once):
            option, path = "--continue-once", Path(named)
        elif named := given(cfg.finetune_from_model):
            option, path = "--finetune-from-model", Path(named)
        else:
            return None
    if not path.is_file():
        raise ManifestError(f"{option} {path}: no such checkpoint")
    return path


def _check_tensors(path: Path, weights: Mapping[str, Any], cmvn: Any, model: nn.Module | None) -> None:
    for name, value in zip(("mean", "std"), cmvn or (), strict=False):
        saved = weights.get(f"fbank.cmvn_{name}")
        expected = torch.as_tensor(value, dtype=torch.float32)
        if (
            not isinstance(saved, Tensor)
            or saved.shape != expected.shape
            or not torch.allclose(saved.float(), expected, 1e-4)
        ):
            raise ManifestError(
                f"cannot go on from {path}: it was trained with another global_cmvn ({name}) than that of the data; "
                "put the old statistics back, or take another --save-dir"
            )
    if model is None:
        return
    model_shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    saved_shapes = {name: tuple(value.shape) for name, value in weights.items() if isinstance(value, Tensor)}
    if differing := sorted(
        name for name in model_shapes | saved_shapes if model_shapes.get(name) != saved_shapes.get(name)
    ):
        name = differing[0]
        raise ManifestError(
            f"cannot go on from {path}: it is of another architecture: {len(differing)} tensors differ, the first "
            f"{name}: checkpoint {saved_shapes.get(name, 'absent')}, model {model_shapes.get(name, 'absent')}; "
            "give the options that it was trained with, or take another --save-dir"
        )
