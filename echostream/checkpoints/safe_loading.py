"""Reading files written by ``torch.save`` without running what is in them."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Sequence
from typing import Any

import torch

LOADERS_ADVICE = "Weights only load failed"


class UnsafeFileError(ValueError):
    """A file that is damaged, or holds more than data; the message says which of them, not the file's name."""


def load_safely(path: str | os.PathLike[str], allowed: Sequence[Any] = ()) -> Any:
    """``torch.load`` of data alone, onto the CPU: a pickle in the file that would run code is not run.

    Args:
        path: the file.
        allowed: classes that it may hold besides, for this file alone.

    Raises:
        UnsafeFileError: damaged, cut short, or more than data; in one line.
        OSError: missing, or not to be read.
    """
    with open(path, "rb"):  # noqa: PTH123  # what can't be read is no damage
        pass
    try:
        known = torch.serialization.get_safe_globals()  # which the context would forget when it ends
        with (
            warnings.catch_warnings(),
            torch.serialization.safe_globals([kind for kind in allowed if kind not in known]),
        ):
            warnings.simplefilter("ignore")  # about pickles of other makes, which are refused right after
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the loader raises whatever the damage makes it stumble over, OSErrors among them
        raise UnsafeFileError(why_refused(error)) from error


def why_refused(error: Exception) -> str:
    """What the safe loader didn't like, in one line and without its advice to switch it off."""
    text = str(error)
    if refused := re.search(r"GLOBAL (\S+)", text):
        return f"it holds {refused[1]}, which could run code and is not loaded: take it from whom you trust"
    if LOADERS_ADVICE in text:
        return "it is damaged, or a pickle that could run code, which is not loaded"
    reason = text.strip().split(". ")[0].splitlines()[0].rstrip(".") if text.strip() else type(error).__name__
    return f"it is damaged or cut short ({reason}): copy it again"
