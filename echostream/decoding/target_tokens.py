"""What the MT decoder may write, and how much: special symbols, and a limit for a decoder that has lost its place."""

from __future__ import annotations

import torch
from torch import Tensor

from echostream.constants import FRAME_MS

PADDING, END = 1, 2  # fairseq's; END starts and ends a target sentence
NEVER = (0, PADDING, 3)  # <s>, padding and <unk> are never written
MAX_TOKENS_PER_S = 12.5  # no language is faster; stops a decoder that loops
SPARE_TOKENS = 8


def token_limit(num_frames: int, frame_ms: int = FRAME_MS) -> int:
    """Most target tokens for so many encoder frames."""
    return SPARE_TOKENS + int(MAX_TOKENS_PER_S * num_frames * frame_ms / 1000)


def forbidden_tokens(vocabulary: int, device: torch.device) -> Tensor:
    """``(vocabulary,)`` to be added to scores: ``-inf`` for symbols that are never written, else 0."""
    forbidden = torch.zeros(vocabulary, device=device)
    forbidden[list(NEVER)] = float("-inf")
    return forbidden
