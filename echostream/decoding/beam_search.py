"""Beam search over what the MT decoder has not committed yet.

Committed words are fixed, so a search starts at the last of them and goes only as far as the budget: a handful of
tokens. Its result is a list of tokens; the states that the runtime keeps come from reading those tokens once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from echostream.decoding.repetition import repeating
from echostream.modules.transformer import TransformerState

if TYPE_CHECKING:
    from echostream.models.mt_decoder import TransformerMTDecoder


@dataclass(frozen=True)
class Hypothesis:
    """Tokens after the committed ones and their summed log-probability."""

    tokens: tuple[int, ...] = ()
    score: float = 0.0

    @property
    def mean_score(self) -> float:
        """Log-probability a token, which doesn't favour short hypotheses."""
        return self.score / max(1, len(self.tokens))


def search(
    decoder: TransformerMTDecoder,
    written: tuple[int, ...],
    frames: Tensor,
    state: TransformerState,
    beam: int,
    limit: int,
    mask: Tensor,
    is_closed: Callable[[tuple[int, ...]], bool],
) -> tuple[int, ...]:
    """The best continuation.

    Args:
        decoder: the MT decoder.
        written: the committed tokens, as far as they are remembered; at least the last.
        frames: ``(1, T, D)`` encoder frames.
        state: of the decoder before the last of them, batch of one.
        beam: hypotheses kept at each step.
        limit: most tokens of a continuation, at least 1.
        mask: ``(vocabulary,)`` added to scores, ``-inf`` for what must not be written.
        is_closed: whether a continuation goes no further: it has ended, or its last token is beyond the budget
            and only shows that the word before is whole.

    Returns:
        tokens of the best hypothesis, the one that closed it included.
    """
    live, closed = [Hypothesis()], []
    for _ in range(limit):
        previous = [[hypothesis.tokens[-1] if hypothesis.tokens else written[-1]] for hypothesis in live]
        _, logits, state = decoder(
            torch.tensor(previous, device=frames.device), frames.expand(len(live), -1, -1), state=state
        )
        for row, hypothesis in enumerate(live):
            logits[row, -1, list(repeating((*written, *hypothesis.tokens)))] = float("-inf")
        scores = (logits[:, -1] + mask).log_softmax(dim=-1)
        scores += torch.tensor([[hypothesis.score] for hypothesis in live], device=scores.device)
        # Only one of the `beam` best may close, else a worse one would end the search; the others fill the beam up.
        best = scores.flatten().topk(min(2 * beam, scores.numel()))
        parents: list[int] = []
        survivors: list[Hypothesis] = []
        for rank, (score, index) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
            parent, token = divmod(index, scores.size(1))
            hypothesis = Hypothesis((*live[parent].tokens, token), score)
            if is_closed(hypothesis.tokens):
                if rank < beam:
                    closed.append(hypothesis)
            elif len(survivors) < beam:
                parents.append(parent)
                survivors.append(hypothesis)
        if not survivors or len(closed) >= beam:
            break
        live = survivors
        rows = torch.tensor(parents, device=frames.device)
        state = TransformerState(state.position[rows], state.past[rows])
    return max(closed or live, key=lambda hypothesis: hypothesis.mean_score).tokens
