"""Every file that is read or written as a model, and saved states: safe loading, formats, other people's weights.

The package is imported without torch; what is offered here is imported when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from echostream.checkpoints.errors import CheckpointError
    from echostream.checkpoints.model_files import load_model
    from echostream.checkpoints.model_folder import ModelSettings
    from echostream.checkpoints.model_store import resolve_model

# Where each public name is defined.
_PUBLIC = {
    "CheckpointError": "echostream.checkpoints.errors",
    "ModelSettings": "echostream.checkpoints.model_folder",
    "load_model": "echostream.checkpoints.model_files",
    "resolve_model": "echostream.checkpoints.model_store",
}
__all__ = ["CheckpointError", "ModelSettings", "load_model", "resolve_model"]


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
