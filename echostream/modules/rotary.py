"""Rotary position embedding (Su et al. 2021), exact for streams of any length.

Attention depends on differences of positions only, so the absolute position may grow without limit. Angles are computed
in float64 because float32 angles are off by 0.004 rad at position 90,000 (one hour of frames).
"""

from __future__ import annotations

import torch
from torch import Tensor

BASE = 10_000.0


def rotary_angles(positions: Tensor, head_dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines for :func:`rotate`.

    Args:
        positions: ``(B, T)`` int64 absolute positions.
        head_dim: size of a head, even.
        dtype: of the result.

    Returns:
        Two tensors ``(B, T, 1, head_dim)``, which broadcast over heads.
    """
    exponent = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float64) / head_dim
    angles = positions[..., None].double() * BASE**-exponent  # (B, T, head_dim / 2)
    angles = torch.cat([angles, angles], dim=-1)[:, :, None]
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate ``(B, T, H, head_dim)`` by the angles of its positions."""
    cos, sin = angles
    first, second = x.chunk(2, dim=-1)
    return torch.addcmul(x * cos, torch.cat([-second, first], dim=-1), sin)
