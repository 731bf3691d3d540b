"""What has been heard of a sentence, with its places in the stream: what the policy counts, and where to part it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from echostream.modules.state import State


@dataclass
class Heard(State):
    """Encoder frames and what both CTC heads read in them. All places are frames @25 Hz from the stream's start.

    Attributes:
        frames: ``(1, n, D)`` encoder frames.
        end: the place after the last of them.
        words: first and last frame of each finished source word.
        source_tokens, target_tokens: where each symbol of the ASR CTC and of the ST CTC was read.
    """

    frames: Tensor
    end: int
    words: list[tuple[int, int]]
    source_tokens: list[int]
    target_tokens: list[int]

    def joined(self, more: Self, window: int) -> Self:
        """This and what came after it, without what lies more than ``window`` frames back."""
        frames = torch.cat([self.frames, more.frames], dim=1)[:, -window:].clone()
        oldest = more.end - window
        return type(self)(
            frames,
            more.end,
            [word for word in self.words if word[0] >= oldest] + more.words,
            [place for place in self.source_tokens if place >= oldest] + more.source_tokens,
            [place for place in self.target_tokens if place >= oldest] + more.target_tokens,
        )

    def until(self, place: int) -> Self:
        """What was heard before ``place``; words that begin before it."""
        after = max(0, min(self.end - place, self.frames.size(1)))
        return type(self)(
            self.frames[:, : self.frames.size(1) - after].clone(),
            self.end - after,
            [word for word in self.words if word[0] < place],
            [token for token in self.source_tokens if token < place],
            [token for token in self.target_tokens if token < place],
        )

    def since(self, place: int) -> Self:
        """What was heard from ``place`` on; words that begin there or later."""
        return type(self)(
            self.frames[:, max(0, self.frames.size(1) - (self.end - place)) :].clone(),
            self.end,
            [word for word in self.words if word[0] >= place],
            [token for token in self.source_tokens if token >= place],
            [token for token in self.target_tokens if token >= place],
        )

    def longest_pause(self, earliest: int) -> int | None:
        """The middle of the longest pause between two words of which the second begins after ``earliest``."""
        pauses = [
            (start - end, -start, (start + end + 1) // 2)
            for (_, end), (start, _) in zip(self.words, self.words[1:], strict=False)
            if start > earliest
        ]
        return max(pauses)[2] if pauses else None
