"""Attention masks as pure functions of positions; True marks positions that may be attended to."""

from __future__ import annotations

import torch
from torch import Tensor


def valid_positions(lengths: Tensor, size: int) -> Tensor:
    """``(B,)`` lengths to a ``(B, size)`` mask that is True for positions below the length of their row."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def block_starts(block_ids: Tensor) -> Tensor:
    """Index of the first position of each position's block.

    Args:
        block_ids: ``(B, N)`` non-decreasing ids; positions with equal ids form a block.

    Returns:
        ``(B, N)`` int64.
    """
    index = torch.arange(block_ids.size(1), device=block_ids.device).expand_as(block_ids)
    starts_block = torch.ones_like(block_ids, dtype=torch.bool)
    starts_block[:, 1:] = block_ids[:, 1:] != block_ids[:, :-1]
    return torch.where(starts_block, index, torch.zeros_like(index)).cummax(dim=1).values


def windowed_block_mask(
    past: Tensor, cached: int, num_new: int, window: int, block_ids: Tensor | None = None
) -> Tensor:
    """Mask of block-causal attention with a sliding window.

    A position sees its whole block and the ``window`` positions before that block. With ``block_ids`` None each
    position is a block of its own, which is ordinary causal attention with a sliding window.

    Args:
        past: ``(B,)`` number of positions before this call.
        cached: number of cached keys, oldest first; early in a stream the first ones are empty and masked out.
        num_new: number of new positions; they are the queries, and their keys follow the cached ones.
        window: number of visible positions before the block.
        block_ids: ``(B, num_new)`` non-decreasing ids; a block must not continue one of an earlier call.

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
