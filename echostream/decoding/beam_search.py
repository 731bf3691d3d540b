"""Beam search over what the MT decoder has not committed yet, for one stream or for the utterances of a batch.

Committed words are fixed, so a search starts at the last of them and goes only as far as the budget: a handful of
tokens. Its result is a list of tokens; the states that the runtime keeps come from reading those tokens once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from echostream.modules.transformer import TransformerState

if TYPE_CHECKING:
    from echostream.models.mt_decoder import TransformerMTDecoder

Repeated = Callable[[tuple[int, ...]], set[int]]


@dataclass(frozen=True)
class Hypothesis:
    """Tokens after the committed ones, and the log-probability of the hypothesis up to and including each of them."""

    tokens: tuple[int, ...] = ()
    sums: tuple[float, ...] = ()

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
    decoder: TransformerMTDecoder,
    last: int,
    frames: Tensor,
    state: TransformerState,
    beam: int,
    limit: int,
    mask: Tensor,
    is_closed: Callable[[tuple[int, ...]], bool],
    repeated: Repeated,
) -> tuple[int, ...]:
    """The best continuation of one stream.

    Args:
        decoder: the MT decoder.
        last: the last committed token.
        frames: ``(1, T, D)`` encoder frames.
        state: of the decoder before that token, batch of one.
        beam: hypotheses kept at each step.
        limit: most tokens of a continuation, at least 1.
        mask: ``(vocabulary,)`` added to scores, ``-inf`` for what must not be written.
        is_closed: whether a continuation goes no further: it has ended, or its last token is beyond the budget
            and only shows that the word before is whole.
        repeated: the tokens that must not follow a continuation.

    Returns:
        tokens of the best hypothesis, the one that closed it included.
    """
    return search_batch(decoder, last, frames, state, beam, [limit], mask, is_closed, [repeated])[0][0].tokens


def search_batch(
    decoder: TransformerMTDecoder,
    last: int,
    frames: Tensor,
    state: TransformerState,
    beam: int,
    limits: Sequence[int],
    mask: Tensor,
    is_closed: Callable[[tuple[int, ...]], bool],
    repeated: Sequence[Repeated],
    frame_mask: Tensor | None = None,
    length_penalty: float = 1.0,
) -> list[list[Hypothesis]]:
    """:func:`search` for several utterances at once, each as if it were alone.

    Args:
        decoder, beam, mask, is_closed: as of :func:`search`.
        last: the token that all utterances start from.
        frames: ``(B, T, D)`` encoder frames.
        state: of the decoder before that token, batch of ``B``.
        limits: most tokens of each utterance, at least 1.
        repeated: of each utterance, the tokens that must not follow a continuation.
        frame_mask: ``(B, 1, T)`` bool, the visible frames; None: all.
        length_penalty: see :meth:`Hypothesis.normalised_score`.

    Returns:
        for each utterance its hypotheses, the best one first.
    """
    live: list[list[Hypothesis]] = [[Hypothesis()] for _ in limits]
    closed: list[list[Hypothesis]] = [[] for _ in limits]
    active, memory, visible = list(range(len(limits))), frames, frame_mask
    owners: list[int] = []  # the utterance that each row of memory belongs to
    for step in range(1, max(limits) + 1):
        flat = [(utterance, hypothesis) for utterance in active for hypothesis in live[utterance]]
        if [utterance for utterance, _ in flat] != owners:
            owners = [utterance for utterance, _ in flat]
            memory, visible = _repeat(frames, owners), None if frame_mask is None else _repeat(frame_mask, owners)
        previous = [[hypothesis.tokens[-1] if hypothesis.tokens else last] for _, hypothesis in flat]
        _, logits, state = decoder(torch.tensor(previous, device=frames.device), memory, visible, state)
        for row, (utterance, hypothesis) in enumerate(flat):
            logits[row, -1, list(repeated[utterance](hypothesis.tokens))] = float("-inf")
        scores = (logits[:, -1] + mask).log_softmax(dim=-1)
        scores += torch.tensor([[hypothesis.score] for _, hypothesis in flat], device=scores.device)
        parents: list[int] = []
        first, still_active = 0, []
        for utterance in active:
            rows = scores[first : first + len(live[utterance])]
            # Only one of the `beam` best may close, else a worse one would end the search; the others fill the beam up.
            best = rows.flatten().topk(min(2 * beam, rows.numel()))
            kept: list[int] = []
            survivors: list[Hypothesis] = []
            for rank, (score, index) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
                parent, token = divmod(index, scores.size(1))
                before = live[utterance][parent]
                hypothesis = Hypothesis((*before.tokens, token), (*before.sums, score))
                if is_closed(hypothesis.tokens):
                    if rank < beam:
                        closed[utterance].append(hypothesis)
                elif len(survivors) < beam:
                    kept.append(first + parent)
                    survivors.append(hypothesis)
            first += len(live[utterance])
            if not survivors or len(closed[utterance]) >= beam:
                continue
            live[utterance] = survivors
            if step < limits[utterance]:
                still_active.append(utterance)
                parents += kept
        active = still_active
        if not active:
            break
        chosen = torch.tensor(parents, device=frames.device)
        state = TransformerState(state.position[chosen], state.past[chosen])
    return [
        sorted(ended or open_, key=lambda hypothesis: -hypothesis.normalised_score(length_penalty))
        for ended, open_ in zip(closed, live, strict=True)
    ]


def _repeat(rows: Tensor, owners: list[int]) -> Tensor:
    """A row of ``rows`` for each of its owners; a single one is not copied."""
    return rows.expand(len(owners), -1, -1) if rows.size(0) == 1 else rows[owners]
