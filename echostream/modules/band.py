"""Emformer attention over a whole utterance without a mask over all of it.

A frame sees its own segment, the left context before it and copies of a few frames behind it: a band along the
diagonal. Cut into groups of segments, the band is a batch of small attentions, so that the work grows with the length
of the utterance and not with its square.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

# Frames of a group, at least. More of them share a left context; fewer have a smaller mask.
GROUP_FRAMES = 64


@dataclass(frozen=True)
class Band:
    """How one utterance is laid out: groups of ``G`` frames, each followed by the copies of its segments.

    A group has ``Q = G + (G / C) R`` positions: its frames, then ``R`` copies for each of its segments.
    """

    num_frames: int
    segment: int
    right_context: int
    left_context: int
    group: int  # G
    device: torch.device

    @classmethod
    def build(cls, num_frames: int, segment: int, right_context: int, left_context: int, device: torch.device) -> Band:
        """Groups of whole segments."""
        group = segment * max(1, -(-GROUP_FRAMES // segment))
        return cls(num_frames, segment, right_context, left_context, group, device)

    @property
    def num_groups(self) -> int:
        return -(-self.num_frames // self.group)

    @property
    def num_copies(self) -> int:
        """Copies of one group."""
        return self.group // self.segment * self.right_context

    def _copies(self) -> Tensor:
        """``(copies,)``: the frame of each copy, relative to its group."""
        ends = torch.arange(self.segment, self.group + 1, self.segment, device=self.device)
        return (ends[:, None] + torch.arange(self.right_context, device=self.device)).flatten()

    def positions(self) -> Tensor:
        """``(N * Q,)``: the frame that each position stands for."""
        own = torch.cat([torch.arange(self.group, device=self.device), self._copies()])
        return (torch.arange(self.num_groups, device=self.device)[:, None] * self.group + own).flatten()

    def segment_starts(self) -> Tensor:
        """``(N * Q,)``: the first frame of the segment that each position belongs to."""
        first = torch.arange(self.group, device=self.device) // self.segment * self.segment
        own = torch.cat([first, first[:: self.segment].repeat_interleave(self.right_context)])
        return (torch.arange(self.num_groups, device=self.device)[:, None] * self.group + own).flatten()

    def frames(self, x: Tensor) -> Tensor:
        """The frames among ``(B, N * Q, ...)``: ``(B, T, ...)``."""
        grouped = x.unflatten(1, (self.num_groups, -1))[:, :, : self.group]
        return grouped.flatten(1, 2)[:, : self.num_frames]

    def copies(self, x: Tensor, num_segments: int) -> Tensor:
        """The copies among ``(B, N * Q, ...)``, segment by segment: ``(B, num_segments * R, ...)``."""
        grouped = x.unflatten(1, (self.num_groups, -1))[:, :, self.group :]
        return grouped.flatten(1, 2)[:, : num_segments * self.right_context]

    def merge(self, frames: Tensor, copies: Tensor) -> Tensor:
        """What :meth:`frames` and :meth:`copies` have taken apart, ``(B, N * Q, ...)``; zeros where nothing was."""

        def grouped(x: Tensor, size: int) -> Tensor:
            missing = self.num_groups * size - x.size(1)
            padded = nn.functional.pad(x, (0, 0) * (x.dim() - 2) + (0, missing))
            return padded.unflatten(1, (self.num_groups, size))

        if not self.num_copies:
            return grouped(frames, self.group).flatten(1, 2)
        return torch.cat([grouped(frames, self.group), grouped(copies, self.num_copies)], dim=2).flatten(1, 2)

    def keys(self, key_value: Tensor) -> Tensor:
        """Keys and values of each group, ``(B, N * Q, ...)`` to ``(B * N, L + Q, ...)``: the left context first."""
        own = key_value.unflatten(1, (self.num_groups, -1))  # (B, N, Q, ...)
        if not self.left_context:
            return own.flatten(0, 1)
        stream = own[:, :, : self.group].flatten(1, 2)
        padded = nn.functional.pad(stream, (0, 0) * (stream.dim() - 2) + (self.left_context, 0))
        # Group n has the frames from n G - L on, which the padding puts at n G.
        index = torch.arange(self.num_groups, device=self.device)[:, None] * self.group
        left = padded[:, index + torch.arange(self.left_context, device=self.device)]  # (B, N, L, ...)
        return torch.cat([left, own], dim=2).flatten(0, 1)

    def distances(self) -> Tensor:
        """``(Q, L + Q)``: frames from a key to a position, the same in every group."""
        own = torch.cat([torch.arange(self.group, device=self.device), self._copies()])
        return own[:, None] - torch.cat([torch.arange(-self.left_context, 0, device=self.device), own])

    def mask(self, lengths: Tensor) -> Tensor:
        """``(B * N, Q, L + Q)``: True where a position may see a key, for utterances of ``lengths (B,)`` frames."""
        device = self.device
        first = torch.arange(self.group, device=device) // self.segment * self.segment
        start = torch.cat([first, first[:: self.segment].repeat_interleave(self.right_context)])[:, None]  # (Q, 1)
        key = torch.arange(-self.left_context, self.group, device=device)
        copies = self._copies()
        visible = torch.cat(
            [(key >= start - self.left_context) & (key < start + self.segment), start == start[self.group :, 0]], dim=1
        )
        frame = torch.arange(self.num_groups, device=device)[:, None] * self.group + torch.cat([key, copies])
        exists = (frame >= 0) & (frame < lengths[:, None, None])  # (B, N, K)
        mask = visible & exists[:, :, None]
        # Positions in the padding are discarded, but a row without visible keys would give NaN gradients.
        query = torch.arange(mask.size(2), device=device)
        mask[:, :, query, self.left_context + query] = True
        return mask.flatten(0, 1)
