"""Greedy search with an autoregressive decoder, one token at a time.

:func:`greedy_steps` is for rows that go on together. A search whose rows stop and start again at places of their own is
written as a generator for one row, which asks for one token to be read at a time (:class:`Reading`);
:func:`search_alone` carries it out, and :func:`search_together` carries out many, with the decoder's work stacked.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import torch
from torch import Tensor

from echostream.modules.state import stack, unstack
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


@dataclass(frozen=True)
class Reading:
    """A token to be read by the decoder.

    Attributes:
        token: the token.
        frames: ``(1, T, D)`` encoder frames that it may attend to.
        state: of the decoder before it.
    """

    token: int
    frames: Tensor
    state: TransformerState


@dataclass(frozen=True)
class Answer:
    """What the decoder says to a :class:`Reading`.

    Attributes:
        hidden: ``(1, 1, dim)`` the state that predicts the next token.
        logits: ``(1, vocabulary)`` its scores.
        state: of the decoder after the token.
    """

    hidden: Tensor
    logits: Tensor
    state: TransformerState


T = TypeVar("T")
Search: TypeAlias = Generator[Reading, Answer, T]


def search_alone(decoder: TransformerMTDecoder, search: Search[T]) -> T:
    """Carry out one search; its result."""
    try:
        reading = next(search)
        while True:
            token = torch.tensor([[reading.token]], device=reading.frames.device)
            hidden, logits, state = decoder(token, reading.frames, None, reading.state, need_state=True)
            assert state is not None  # asked for
            reading = search.send(Answer(hidden, logits[:, -1], state))
    except StopIteration as finished:
        return finished.value


def search_together(decoder: TransformerMTDecoder, searches: Sequence[Search[T]]) -> list[T]:
    """Carry out several searches, each of which reads its next token when all others do; their results."""
    results: dict[int, T] = {}
    waiting: dict[int, Reading] = {}

    def advance(row: int, answer: Answer | None) -> None:
        waiting.pop(row, None)
        try:
            waiting[row] = next(searches[row]) if answer is None else searches[row].send(answer)
        except StopIteration as finished:
            results[row] = finished.value

    for row in range(len(searches)):
        advance(row, None)
    while waiting:
        rows, readings = list(waiting), list(waiting.values())
        lengths = torch.tensor([reading.frames.size(1) for reading in readings])
        frames = torch.nn.utils.rnn.pad_sequence([reading.frames[0] for reading in readings], batch_first=True)
        mask = (torch.arange(frames.size(1)) < lengths[:, None])[:, None].to(frames.device)
        tokens = torch.tensor([[reading.token] for reading in readings], device=frames.device)
        before = stack([reading.state for reading in readings])
        hidden, logits, state = decoder(tokens, frames, mask, before, need_state=True)
        for index, (row, after) in enumerate(zip(rows, unstack(state), strict=True)):
            advance(row, Answer(hidden[index : index + 1], logits[index], after))
    return [results[row] for row in range(len(searches))]
