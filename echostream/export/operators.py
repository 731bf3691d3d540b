"""What ONNX or its runtimes lack, or do less exactly than torch, written with what they have."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

BACKWARD = 2  # torch's number for the normalisation by the size of a transform


def running_maximum(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """``torch.cummax``, which ONNX doesn't have: the maximum of each beginning, and its place."""
    x = x.movedim(dim, -1)
    place = torch.arange(x.size(-1), device=x.device)
    lowest = float("-inf") if x.is_floating_point() else torch.iinfo(x.dtype).min
    beginnings = torch.where(place <= place[:, None], x[..., None, :], torch.full((), lowest, dtype=x.dtype))
    return beginnings.amax(dim=-1).movedim(-1, dim), beginnings.argmax(dim=-1).movedim(-1, dim)


def _angles(size: int, device: torch.device) -> Tensor:
    """``(size, size / 2 + 1)``: angle of each sample in each frequency."""
    sample, frequency = torch.arange(size, device=device), torch.arange(size // 2 + 1, device=device)
    return (2 * math.pi / size) * (sample[:, None] * frequency % size).double()


def real_to_spectrum(x: Tensor, dim: list[int], normalization: int, onesided: bool) -> Tensor:
    """``torch.fft.rfft`` over the last dimension as two products of matrices.

    onnxruntime 1.32 is off by 4e-5 of the largest value where a transform's size is no power of two. The products stay
    below 1e-6.
    """
    if [axis % x.dim() for axis in dim] != [x.dim() - 1] or normalization or not onesided:
        raise NotImplementedError("only torch.fft.rfft over the last dimension can be exported")
    angles = _angles(x.size(-1), x.device)
    return torch.complex(x @ angles.cos().to(x.dtype), -(x @ angles.sin().to(x.dtype)))


def spectrum_to_real(spectrum: Tensor, dim: list[int], normalization: int, last_dim_size: int) -> Tensor:
    """``torch.fft.irfft`` over the last dimension, likewise; ``last_dim_size`` is even."""
    if (
        [axis % spectrum.dim() for axis in dim] != [spectrum.dim() - 1]
        or normalization != BACKWARD
        or last_dim_size % 2
    ):
        raise NotImplementedError("only torch.fft.irfft of an even size over the last dimension can be exported")
    parts = torch.view_as_real(spectrum)
    angles = _angles(last_dim_size, parts.device).T
    # All frequencies but the first and the last stand for themselves and for their negative.
    frequency = torch.arange(last_dim_size // 2 + 1, device=parts.device)[:, None]
    is_single = (frequency == 0) | (frequency == last_dim_size // 2)
    weight = torch.where(is_single, 1.0, 2.0).double() / last_dim_size
    cosines, sines = (weight * angles.cos()).to(parts.dtype), (weight * angles.sin()).to(parts.dtype)
    return parts[..., 0] @ cosines - parts[..., 1] @ sines


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.cummax.default: running_maximum,
    torch.ops.aten._fft_r2c.default: real_to_spectrum,
    torch.ops.aten._fft_c2r.default: spectrum_to_real,
}
