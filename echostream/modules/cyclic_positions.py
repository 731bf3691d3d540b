"""Whisper's positions for endless streams: its table (Radford et al. 2022, section 2.2), taken round and round.

Weights that were learned with absolute positions up to 30 s need them; a stream has no end. So the table is taken
modulo its length, and in training each piece begins at a random place in it, so that the encoder learns its seam like
any other place.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

TABLE_FRAMES = 1500  # 30 s at 20 ms
LONGEST_WAVELENGTH = 10_000.0


def sinusoids(length: int, dim: int) -> Tensor:
    """``(length, dim)``: sines, then cosines, of wavelengths from 2 pi to 10,000 x 2 pi."""
    step = math.log(LONGEST_WAVELENGTH) / (dim // 2 - 1)
    frequencies = torch.exp(-step * torch.arange(dim // 2, dtype=torch.float32))
    angles = torch.arange(length, dtype=torch.float32)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class CyclicPositions(nn.Module):
    """Adds its position to each frame."""

    table: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("table", sinusoids(TABLE_FRAMES, dim), persistent=False)

    def forward(self, x: Tensor, position: Tensor | None = None) -> Tensor:
        """``(B, T, D)`` frames from ``position (B,)`` on; None: from 0, or in training from a random place each."""
        if position is None:
            count = (x.size(0),)
            position = (
                torch.randint(TABLE_FRAMES, count, device=x.device)
                if self.training
                else torch.zeros(count, dtype=torch.int64, device=x.device)
            )
        return x + self.places(position[:, None] + torch.arange(x.size(1), device=x.device)).to(x.dtype)

    def places(self, frames: Tensor) -> Tensor:
        """What is added to the frames of these numbers, ``(B, T)`` to ``(B, T, D)``."""
        return self.table[frames % TABLE_FRAMES]


class FadingPositions(CyclicPositions):
    """Positions that training takes away: less of them with every update, none from ``fade_updates`` on.

    What is left of them is part of a model's weights. It never grows again, so that training may go on from a
    checkpoint with a count of its own.

    Args:
        dim: size of a frame.
        fade_updates: updates after which nothing is left; 0: nothing from the start.
    """

    strength: Tensor

    def __init__(self, dim: int, fade_updates: int) -> None:
        super().__init__(dim)
        self.fade_updates = fade_updates
        self.register_buffer("strength", torch.full((1,), float(fade_updates > 0)))

    def set_num_updates(self, num_updates: int) -> None:
        """Told by fairseq before each update."""
        if self.fade_updates:
            self.strength.clamp_(max=max(0.0, 1 - num_updates / self.fade_updates))

    def places(self, frames: Tensor) -> Tensor:
        return self.strength * super().places(frames)
