"""Writing files so that whatever happens in between, the old file or the new one is there, whole."""

from __future__ import annotations

from pathlib import Path

import torch


def write_file(path: Path, data: bytes) -> None:
    """Write ``data`` under another name in the same folder, then rename."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)


def write_checkpoint(path: Path, content: object) -> None:
    """``torch.save``, whole or not at all."""
    temporary = path.with_name(f"{path.name}.tmp")
    torch.save(content, temporary)
    temporary.replace(path)
