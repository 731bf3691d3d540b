"""Relative positions as a bias on attention scores (Raffel et al. 2020, section 2.1), from zero.

What a score gains depends on the distance between two frames alone, so that a stream may have any length, and nothing
has a place in it. At zero it changes nothing: weights that were learned otherwise start as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

REACH = 160  # frames; what is farther away shares the last number on its side
# Scores are of the order of 10, and Adam moves a number by about the learning rate in an update.
SCALE = 10.0


class RelativeBias(nn.Module):
    """A learned number for each head and distance.

    Args:
        heads: attention heads.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(heads, 2 * REACH + 1))

    def forward(self, distance: Tensor, mask: Tensor) -> Tensor:
        """The mask of attention with its biases.

        Args:
            distance: ``(B or 1, Q, K)`` int64, from the frame of a key to that of a query.
            mask: ``(B, 1, Q, K)`` bool, True where visible.

        Returns:
            ``(B, H, Q, K)``, to be added to the scores: minus infinity where nothing is visible.
        """
        index = distance.clamp(-REACH, REACH) + REACH
        bias = SCALE * self.weight[:, index].transpose(0, 1)  # (B or 1, H, Q, K)
        return bias.masked_fill(~mask, float("-inf"))
