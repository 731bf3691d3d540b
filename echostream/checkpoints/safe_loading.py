"""Reading files without running what is in them, and without taking much more memory than they are large.

Packed weights take four times their file when they are unpacked, and nothing takes more.
"""

from __future__ import annotations

import math
import os
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from echostream.checkpoints.errors import UnsafeFileError
from echostream.checkpoints.packing import unpack

LOADERS_ADVICE = "Weights only load failed"
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
# What torch makes tensors of a given size with.
FACTORIES = {"empty", "zeros", "ones", "full", "rand", "randn", "arange", "linspace", "eye", "hann_window"}
FACTORIES |= {"new_empty", "new_zeros", "new_ones", "new_full"}
MAX_ARRAY_BYTES = 2**30
LARGEST_WEIGHT = 1e9  # of anything trained; products of larger ones leave the range of float32


def load_safely(path: str | os.PathLike[str], allowed: Sequence[Any] = ()) -> Any:
    """``torch.load`` of data alone, onto the CPU: a pickle in the file that would run code is not run.

    Args:
        path: the file.
        allowed: classes that it may hold besides, for this file alone.

    Raises:
        UnsafeFileError: damaged, cut short, or more than data; in one line.
        OSError: missing, or not to be read.
    """
    with open(path, "rb") as file:  # noqa: PTH123  # what can't be read is no damage
        num_bytes = file.seek(0, os.SEEK_END)
    _check_archive(path, num_bytes)
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


def _check_archive(path: str | os.PathLike[str], num_bytes: int) -> None:
    """Refuse a checkpoint whose parts are larger than the file: torch stores them as they are, but reads others too.

    Raises:
        UnsafeFileError: in one line.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return  # torch's older format, or damage, of which torch says more
    if unpacked > num_bytes:
        raise UnsafeFileError(
            f"it would unpack to {unpacked:,} bytes, more than the {num_bytes:,} that it has, as no checkpoint does"
        )


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
    """The weights of a ``.safetensors`` file, onto the CPU; those that :func:`pack` made bytes, unpacked.

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
    weights = unpack(tensors)
    check_tensors(weights)
    return weights


def load_arrays(path: str | os.PathLike[str], max_bytes: int = MAX_ARRAY_BYTES) -> dict[str, np.ndarray]:
    """The arrays of an ``.npz`` file, which together have at most ``max_bytes`` when they are unpacked.

    Raises:
        UnsafeFileError: damaged, cut short, too large, or objects instead of numbers; in one line.
        OSError: missing, or not to be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > max_bytes:
            raise UnsafeFileError(f"it would unpack to {unpacked:,} bytes, more than any such file ({max_bytes:,})")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays}
    except UnsafeFileError:
        raise
    except (zipfile.BadZipFile, zlib.error, ValueError, LookupError, EOFError, TypeError, MemoryError) as error:
        raise UnsafeFileError(f"it is no .npz file, or damaged ({' '.join(str(error).split())[:200]})") from error


def check_tensors(tensors: Mapping[Any, Any], integers: bool = False) -> None:
    """Refuse what no weights are: another type, a tensor larger than its memory, NaN, infinity or absurd numbers.

    Args:
        tensors: weights by their names.
        integers: whether there may be whole numbers among them, as the counters in other people's checkpoints are.

    Raises:
        UnsafeFileError: with the name of the first that is wrong; in one line.
    """
    for name, value in tensors.items():
        if not isinstance(name, str) or not name.isprintable() or not isinstance(value, Tensor):
            raise UnsafeFileError(f"its weights hold {type(value).__name__} under {str(name)[:80]!r}, not a tensor")
        _check_tensor(name[:80], value, (*FLOATS, *INTEGERS) if integers else FLOATS)


def _check_tensor(name: str, value: Tensor, kinds: Sequence[torch.dtype]) -> None:
    is_plain = value.layout is torch.strided and value.device.type == "cpu" and not value.is_nested
    if value.dtype not in kinds or not is_plain:
        kind = f"{value.dtype} {'nested' if value.is_nested else value.layout} on {value.device.type}"
        raise UnsafeFileError(f"its weight {name!r} is {kind.replace('torch.', '')}, not floating point numbers")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise UnsafeFileError(f"its weight {name!r} claims more numbers than the file holds")
    if not value.numel() or value.dtype in INTEGERS:
        return
    # Both are NaN where one of the numbers is; finding them takes no memory, as a mask of all numbers would.
    least, most = (float(edge) for edge in torch.aminmax(value.detach()))
    if not (math.isfinite(least) and math.isfinite(most)):
        raise UnsafeFileError(
            f"its weights hold NaN or infinity, the first in {name}: the training went wrong, take an earlier "
            "checkpoint"
        )
    if max(-least, most) > LARGEST_WEIGHT:
        raise UnsafeFileError(
            f"its weights hold numbers up to {max(-least, most):.0e}, the first in {name}, and no trained weight is so "
            "large: take an earlier checkpoint"
        )


class BoundedMemory(TorchFunctionMode):
    """While it is entered, tensors are made only as far as a number of elements goes, before memory is taken for them.

    A configuration says how large a model is to be, and a few bytes of it can ask for any amount of memory.

    Args:
        elements: that may be made in all.
        tensors: that may be made in all.

    Raises:
        MemoryError: of the torch function that would make more; in one line.
    """

    def __init__(self, elements: int, tensors: int) -> None:
        super().__init__()
        self.elements, self.tensors = elements, tensors

    @classmethod
    def for_weights(cls, weights: Mapping[str, Tensor]) -> BoundedMemory:
        """Enough for a model with these weights, and what it makes in passing."""
        return cls(2 * sum(value.numel() for value in weights.values()) + 2**24, 10 * len(weights) + 1_000)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func.__name__ in FACTORIES:
            self.tensors -= 1
            self.elements -= _elements(kwargs.get("size", [part for part in args if not isinstance(part, Tensor)]))
            if min(self.tensors, self.elements) < 0:
                raise MemoryError("its configuration asks for far more memory than its weights take")
        return func(*args, **kwargs)


def _elements(size: Any) -> int:
    """Elements of a tensor from what its factory was given: numbers, or a sequence of them and something else."""
    parts = size if isinstance(size, list | tuple) else (size,)
    parts = next((part for part in parts if isinstance(part, list | tuple)), parts)
    return math.prod(part for part in parts if isinstance(part, int))
