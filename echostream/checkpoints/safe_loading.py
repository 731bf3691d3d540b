"""Reading files without running what is in them, and without taking more memory than they are large."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from echostream.checkpoints.errors import UnsafeFileError

LOADERS_ADVICE = "Weights only load failed"
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


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


def load_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The weights of a ``.safetensors`` file, onto the CPU.

    Raises:
        UnsafeFileError: damaged, cut short, or no weights; in one line.
        OSError: missing, or not to be read.
    """
    with open(path, "rb"):  # noqa: PTH123  # what can't be read is no damage
        pass
    try:
        tensors = safetensors.torch.load_file(path, device="cpu")
    except (safetensors.SafetensorError, ValueError, KeyError, RuntimeError, AttributeError) as error:
        raise UnsafeFileError(why_refused(error)) from error
    check_tensors(tensors)
    return tensors


def check_tensors(tensors: Mapping[Any, Any]) -> None:
    """Refuse what no weights are: another type, a tensor larger than its memory, NaN or infinity.

    Raises:
        UnsafeFileError: with the name of the first that is wrong.
    """
    for name, value in tensors.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise UnsafeFileError(f"its weights hold {type(value).__name__} under {str(name)[:80]!r}, not a tensor")
        if value.dtype not in FLOATS or value.layout is not torch.strided or value.device.type != "cpu":
            kind = f"{value.dtype} {value.layout} on {value.device.type}".replace("torch.", "")
            raise UnsafeFileError(f"its weight {name[:80]!r} is {kind}, not floating point numbers")
        if value.is_quantized or value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise UnsafeFileError(f"its weight {name[:80]!r} claims more numbers than the file holds")
        if not bool(torch.isfinite(value).all()):
            raise UnsafeFileError(
                f"its weights hold NaN or infinity, the first in {name[:80]}: the training went wrong, take an earlier "
                "checkpoint"
            )
