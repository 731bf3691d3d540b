"""Greedy search with an autoregressive decoder, one token at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from echostream.modules.transformer import TransformerState

if TYPE_CHECKING:
    from echostream.models.mt_decoder import TransformerMTDecoder


@dataclass(frozen=True)
class GreedyStep:
    """One token of each row.

    Attributes:
        tokens: ``(B,)`` the tokens chosen.
        scores: ``(B, vocabulary)`` from which they were chosen.
        hidden: ``(B, 1, dim)`` the states that predicted them.
        state: of the decoder when it has read the tokens before them.
    """

    tokens: Tensor
    scores: Tensor
    hidden: Tensor
    state: TransformerState


def greedy_steps(
    decoder: TransformerMTDecoder,
    previous: Tensor,
    frames: Tensor,
    state: TransformerState,
    mask: Tensor | None = None,
    adjust: Callable[[Tensor], Tensor] = lambda scores: scores,
) -> Iterator[GreedyStep]:
    """Continue without end; the caller stops when it has what it wants, and nothing is computed ahead.

    Args:
        decoder: the MT decoder.
        previous: ``(B, 1)`` the tokens to be read first.
        frames: ``(B, T, D)`` encoder frames.
        state: of the decoder before ``previous``.
        mask: ``(B, 1, T)`` visible frames; None: all.
        adjust: changes the scores ``(B, vocabulary)`` before the best token is chosen.
    """
    while True:
        hidden, logits, following = decoder(previous, frames, mask, state, need_state=True)
        scores = adjust(logits[:, -1])
        tokens = scores.argmax(dim=-1)
        assert following is not None  # asked for
        yield GreedyStep(tokens, scores, hidden, following)
        previous, state = tokens[:, None], following
