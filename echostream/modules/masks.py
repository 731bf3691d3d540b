"""Attention masks as pure functions of positions; True marks what may be attended."""

from __future__ import annotations

import torch
from torch import Tensor


def valid_positions(lengths: Tensor, size: int) -> Tensor:
    """``(B,)`` lengths to ``(B, size)``: True where a position is within its item's length."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def block_starts(block_ids: Tensor) -> Tensor:
    """Index of the first position of each position's block.

    Args:
        block_ids: ``(B, N)`` non-decreasing ids; equal neighbours form a block.

    Returns:
        ``(B, N)`` int64.
    """
    index = torch.arange(block_ids.size(1), device=block_ids.device).expand_as(block_ids)
    fresh = torch.ones_like(block_ids, dtype=torch.bool)
    fresh[:, 1:] = block_ids[:, 1:] != block_ids[:, :-1]
    return torch.where(fresh, index, torch.zeros_like(index)).cummax(dim=1).values


def windowed_block_mask(
    past: Tensor, cached: int, num_new: int, window: int, block_ids: Tensor | None = None
) -> Tensor:
    """Causal attention over blocks with a bounded past.

    A position sees its whole block and the ``window`` positions before that block. With ``block_ids`` None each
    position is a block of its own, which is plain causal attention with a sliding window.

    Args:
        past: ``(B,)`` positions of each item that precede the new ones.
        cached: number of keys kept from the past, the latest last (the first ones are empty early in a stream).
        num_new: number of new positions, which are the queries and the last keys.
        window: positions before the block that are visible.
        block_ids: ``(B, num_new)`` non-decreasing; a block never goes on from an earlier call.

    Returns:
        ``(B, 1, num_new, cached + num_new)`` bool.
    """
    device = past.device
    query = torch.arange(num_new, device=device)
    key = torch.arange(-cached, num_new, device=device)
    if block_ids is None:
        start = query[None, :, None]  # (1, N, 1)
        mask = (key <= query[:, None])[None]
    else:
        start = block_starts(block_ids)[..., None]  # (B, N, 1)
        last_seen = torch.cat(
            [block_ids.new_full((block_ids.size(0), cached), -1), block_ids], dim=1
        )  # cached keys lie in earlier blocks
        mask = last_seen[:, None, :] <= block_ids[:, :, None]
        mask = mask | (key < 0)
    mask = mask & (key >= start - window) & (key >= -past[:, None, None])
    return mask[:, None]
