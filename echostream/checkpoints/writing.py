"""Writing files so that whatever happens in between, the old file or the new one is there, whole."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import torch


def write_file(path: Path, data: bytes) -> None:
    """Write ``data``, whole or not at all."""
    _replace(path, lambda file: file.write(data))


def write_checkpoint(path: Path, content: object) -> None:
    """``torch.save``, whole or not at all."""
    _replace(path, lambda file: torch.save(content, file))


def _replace(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write under another name in the same folder, then rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
