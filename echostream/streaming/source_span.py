"""A stretch of the source as the translation sees it: encoder frames, and what both CTC decoders read in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor

from echostream.modules.state import State


@dataclass
class SourceSpan(State):
    """Encoder frames and the evidence in them. All positions are frames @25 Hz from the stream's start.

    Attributes:
        frames: ``(1, n, D)`` encoder frames.
        end: the position after the last of them.
        words: first and last frame of each finished source word.
        source_tokens, target_tokens: where each symbol of the ASR CTC and of the ST CTC was read.
        heard: first frame and text of each finished source word; a space begins it unless it continues the one before.
        expected_tokens: where the ST CTC lets one symbol more expect.
    """

    frames: Tensor
    end: int
    words: list[tuple[int, int]]
    source_tokens: list[int]
    target_tokens: list[int]
    heard: tuple[tuple[int, str], ...] = ()
    expected_tokens: list[int] = field(default_factory=list)

    def extended(self, more: Self, window: int) -> Self:
        """This span and the one that follows it, without what lies more than ``window`` frames back."""
        frames = torch.cat([self.frames, more.frames], dim=1)[:, -window:].clone()
        oldest = more.end - window
        return type(self)(
            frames,
            more.end,
            [word for word in self.words if word[0] >= oldest] + more.words,
            [place for place in self.source_tokens if place >= oldest] + more.source_tokens,
            [place for place in self.target_tokens if place >= oldest] + more.target_tokens,
            (*(word for word in self.heard if word[0] >= oldest), *more.heard),
            [place for place in self.expected_tokens if place >= oldest] + more.expected_tokens,
        )

    def before(self, frame: int) -> Self:
        """What lies before ``frame``, with the words that start before it."""
        after = max(0, min(self.end - frame, self.frames.size(1)))
        return type(self)(
            self.frames[:, : self.frames.size(1) - after].clone(),
            self.end - after,
            [word for word in self.words if word[0] < frame],
            [token for token in self.source_tokens if token < frame],
            [token for token in self.target_tokens if token < frame],
            tuple(word for word in self.heard if word[0] < frame),
            [token for token in self.expected_tokens if token < frame],
        )

    def since(self, frame: int) -> Self:
        """What lies at ``frame`` and later, with the words that start there or later."""
        return type(self)(
            self.frames[:, max(0, self.frames.size(1) - (self.end - frame)) :].clone(),
            self.end,
            [word for word in self.words if word[0] >= frame],
            [token for token in self.source_tokens if token >= frame],
            [token for token in self.target_tokens if token >= frame],
            tuple(word for word in self.heard if word[0] >= frame),
            [token for token in self.expected_tokens if token >= frame],
        )

    def longest_pause(self, earliest: int) -> int | None:
        """The middle of the longest pause between two words of which the second starts after frame ``earliest``."""
        pauses = [
            (start - end, -start, (start + end + 1) // 2)
            for (_, end), (start, _) in zip(self.words, self.words[1:], strict=False)
            if start > earliest
        ]
        return max(pauses)[2] if pauses else None
