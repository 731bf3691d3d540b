"""Where the frames of an Emformer call are and what each of them may attend to, as functions of positions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Where the queries and keys of one call are: ``n`` frames in segments, then ``R`` copies for each segment."""

    num_frames: int
    num_segments: int
    right_context: int
    segment_start: Tensor  # (Q,) frame index relative to the call
    segment_end: Tensor  # (Q,)
    frame: Tensor  # (Q,) the frame that a query or new key stands for

    @classmethod
    def build(cls, num_frames: int, segment: int, right_context: int, device: torch.device) -> Layout:
        """Segments of ``segment`` frames over ``num_frames``; the last one may be shorter."""
        num_segments = -(-num_frames // segment)
        frames = torch.arange(num_frames, device=device)
        starts = torch.arange(num_segments, device=device) * segment
        ends = (starts + segment).clamp(max=num_frames)
        copies = ends[:, None] + torch.arange(right_context, device=device)  # (S, R)
        owner = torch.cat(
            [
                frames // segment,
                torch.arange(num_segments, device=device).repeat_interleave(right_context),
            ]
        )
        return cls(
            num_frames,
            num_segments,
            right_context,
            segment_start=starts[owner],
            segment_end=ends[owner],
            frame=torch.cat([frames, copies.flatten()]),
        )

    def mask(self, lengths: Tensor, past: Tensor, left: int, cached: int) -> Tensor:
        """Visibility of cached and new frames.

        Args:
            lengths: ``(B,)`` frames of this call that exist, right context included.
            past: ``(B,)`` frames before this call.
            left: left context in frames.
            cached: cached keys in front of the new ones.

        Returns:
            ``(B, Q, cached + Q)`` bool.
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
        # Queries beyond the end are thrown away, but a softmax over nothing would poison gradients with NaN.
        own = torch.arange(mask.size(1), device=past.device)
        mask[:, own, cached + own] = True
        return mask
