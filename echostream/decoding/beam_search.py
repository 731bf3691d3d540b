"""Beam search over what the MT decoder has not committed yet.

Committed words are fixed, so a search starts at the last of them and goes only as far as the budget: a handful of
tokens. Its result is a list of tokens; the states that the runtime keeps come from reading those tokens once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from echostream.decoding.joint_search import Reading, Search, TextAnswer
from echostream.modules.transformer import TransformerState

Repeated = Callable[[tuple[int, ...]], set[int]]


@dataclass(frozen=True)
class Hypothesis:
    """Tokens after the committed ones.

    Attributes:
        tokens: these.
        sums: log-probability of the hypothesis up to and including each of them.
        frames_behind: of the last one, see :class:`TextAnswer`, if that was asked for.
    """

    tokens: tuple[int, ...] = ()
    sums: tuple[float, ...] = ()
    frames_behind: int | None = None

    @property
    def score(self) -> float:
        """Log-probability of all tokens."""
        return self.sums[-1] if self.sums else 0.0

    @property
    def token_scores(self) -> list[float]:
        """Log-probability of each token."""
        return [after - before for before, after in zip((0.0, *self.sums), self.sums, strict=False)]

    def normalised_score(self, length_penalty: float = 1.0) -> float:
        """The score over the ``length_penalty``-th power of the length; with 1, short hypotheses aren't favoured."""
        return self.score / max(1, len(self.tokens)) ** length_penalty


def search(
    last: int,
    frames: Tensor,
    state: TransformerState,
    beam: int,
    limit: int,
    mask: Tensor,
    is_closed: Callable[[Hypothesis], bool],
    repeated: Repeated,
    length_penalty: float = 1.0,
    first: int = 0,
    aligns: bool = False,
) -> Search[list[Hypothesis]]:
    """The best continuations of one stream, as a search that reads the next token of all hypotheses at a time.

    Args:
        last: the last committed token.
        frames: ``(1, T, D)`` encoder frames.
        state: of the decoder before that token, batch of one.
        beam: hypotheses kept at each step.
        limit: most tokens of a continuation, at least 1.
        mask: ``(vocabulary,)`` added to scores, ``-inf`` for what must not be written.
        is_closed: whether a continuation goes no further: it has ended, or its last token is beyond the budget
            and only shows that the word before is whole.
        repeated: the tokens that must not follow a continuation.
        length_penalty: see :meth:`Hypothesis.normalised_score`.
        first: the place in the sentence of the first frame.
        aligns: find where in the frames the tokens are, for ``is_closed``.

    Returns:
        the hypotheses with the tokens that closed them, the best one first.
    """
    live, closed = [Hypothesis()], list[Hypothesis]()
    for step in range(1, limit + 1):
        tokens = [[hypothesis.tokens[-1] if hypothesis.tokens else last] for hypothesis in live]
        answer: TextAnswer = yield Reading(tokens, frames, state, first, aligns)
        scores = answer.logits[:, -1] + mask
        for row, hypothesis in enumerate(live):
            scores[row, list(repeated(hypothesis.tokens))] = float("-inf")
        scores = scores.log_softmax(dim=-1)
        scores += torch.tensor([[hypothesis.score] for hypothesis in live], device=scores.device)
        # Only one of the `beam` best may close, else a worse one would end the search; the others fill the beam up.
        best = scores.flatten().topk(min(2 * beam, scores.numel()))
        kept: list[int] = []
        survivors: list[Hypothesis] = []
        for rank, (score, index) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
            parent, token = divmod(index, scores.size(1))
            before = live[parent]
            behind = answer.frames_behind[parent] if aligns else None
            hypothesis = Hypothesis((*before.tokens, token), (*before.sums, score), behind)
            if is_closed(hypothesis):
                if rank < beam:
                    closed.append(hypothesis)
            elif len(survivors) < beam:
                kept.append(parent)
                survivors.append(hypothesis)
        if not survivors or len(closed) >= beam:
            break
        live = survivors
        if step < limit:
            chosen = torch.tensor(kept, device=frames.device)
            state = TransformerState(answer.state.position[chosen], answer.state.past[chosen])
    return sorted(closed or live, key=lambda hypothesis: -hypothesis.normalised_score(length_penalty))
