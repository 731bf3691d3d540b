"""What ONNX or its runtimes lack, or do less exactly than torch, written with what they have."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


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


def real_to_spectrum(x: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """``torch.fft.rfft`` over the last dimension as two products of matrices.

    onnxruntime 1.32 is off by 4e-5 of the largest value where a transform's size is no power of two. The products stay
    below 1e-6.
    """
    size = x.size(-1) if n is None else n
    if dim % x.dim() != x.dim() - 1 or norm not in (None, "backward") or size < x.size(-1):
        raise NotImplementedError("only torch.fft.rfft over the whole last dimension can be exported")
    angles = _angles(size, x.device)[: x.size(-1)]  # what a transform is longer than its samples is zeros
    return torch.complex(x @ angles.cos().to(x.dtype), -(x @ angles.sin().to(x.dtype)))


def spectrum_to_real(spectrum: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """``torch.fft.irfft`` over the last dimension to an even size, likewise."""
    size = 2 * (spectrum.size(-1) - 1)
    if dim % spectrum.dim() != spectrum.dim() - 1 or norm not in (None, "backward") or n not in (None, size):
        raise NotImplementedError("only torch.fft.irfft over the whole last dimension to an even size can be exported")
    parts = torch.view_as_real(spectrum)
    angles = _angles(size, parts.device).T
    # All frequencies but the first and the last stand for themselves and for their negative.
    frequency = torch.arange(size // 2 + 1, device=parts.device)[:, None]
    is_single = (frequency == 0) | (frequency == size // 2)
    weight = torch.where(is_single, 1.0, 2.0).double() / size
    cosines, sines = (weight * angles.cos()).to(parts.dtype), (weight * angles.sin()).to(parts.dtype)
    return parts[..., 0] @ cosines - parts[..., 1] @ sines


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.cummax.default: running_maximum,
    torch.ops.aten.fft_rfft.default: real_to_spectrum,
    torch.ops.aten.fft_irfft.default: spectrum_to_real,
}
