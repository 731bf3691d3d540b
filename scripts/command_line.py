"""What the command lines of the tools share: types of options, and packages that not everybody has installed."""

from __future__ import annotations

import importlib
from types import ModuleType

INSTALL_HINT = "pip install -e '.[data]'"


def require(module: str, hint: str = INSTALL_HINT) -> ModuleType:
    """Import an optional package.

    Raises:
        SystemExit: the package is missing; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise SystemExit(f"error: cannot import {module} ({error}); install it with: {hint}") from error


def positive(text: str) -> int:
    """Convert the text of a command-line option that counts something: a whole number from 1."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number
