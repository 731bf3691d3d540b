"""Segments of one Emformer call: the position of each frame and what it may attend to."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Positions of the ``Q = n + S R`` queries of one call: ``n`` frames, then ``R`` copies for each of ``S`` segments.

    Frame indices are relative to the start of the call.
    """

    num_frames: int
    num_segments: int
    right_context: int
    segment_start: Tensor  # (Q,) first frame of the query's segment
    segment_end: Tensor  # (Q,) end of the query's segment, exclusive
    frame: Tensor  # (Q,) frame index of each query

    @classmethod
    def build(cls, num_frames: int, segment: int, right_context: int, device: torch.device) -> Layout:
        """Segments of ``segment`` frames over ``num_frames``; the last one may be shorter."""
        num_segments = -(-num_frames // segment)
        frames = torch.arange(num_frames, device=device)
        starts = torch.arange(num_segments, device=device) * segment
        ends = (starts + segment).clamp(max=num_frames)
        copies = ends[:, None] + torch.arange(right_context, device=device)  # (S, R)
        segment_index = torch.cat(  # (Q,)
            [
                frames // segment,
                torch.arange(num_segments, device=device).repeat_interleave(right_context),
            ]
        )
        return cls(
            num_frames,
            num_segments,
            right_context,
            segment_start=starts[segment_index],
            segment_end=ends[segment_index],
            frame=torch.cat([frames, copies.flatten()]),
        )

    def mask(self, lengths: Tensor, past: Tensor, left: int, cached: int) -> Tensor:
        """Attention mask over cached and new frames.

        Args:
            lengths: ``(B,)`` valid frames of this call, right context included.
            past: ``(B,)`` frames before this call.
            left: left context in frames.
            cached: number of cached keys; they precede the new ones.

        Returns:
            ``(B, Q, cached + Q)`` bool, True where visible.
        """
        start, end = self.segment_start[:, None], self.segment_end[:, None]
        key = torch.arange(-cached, self.num_frames, device=past.device)
        frames = (key >= start - left) & (key < end)  # (Q, cached + n)
        exists = (key >= -past[:, None]) & (key < lengths[:, None])  # (B, cached + n)
        mask = frames & exists[:, None]
        if self.right_context:
            copies = self.frame[self.num_frames :]
            same = self.segment_start[:, None] == self.segment_start[self.num_frames :]
            mask = torch.cat([mask, same & (copies < lengths[:, None])[:, None]], dim=2)
        # The output of queries in the padding is discarded, but a row without visible keys would give NaN gradients.
        query = torch.arange(mask.size(1), device=past.device)
        mask[:, query, cached + query] = True
        return mask
