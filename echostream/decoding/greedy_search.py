"""Greedy search with an autoregressive decoder, one token at a time.

A search is written as a generator for one row, which asks for one token to be read at a time (:class:`Reading`). It may
stop and start again at places of its own. :func:`search_alone` carries it out, and :func:`search_together` carries out
many, with the decoder's work stacked.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import torch
from torch import Tensor

from echostream.modules.state import stack, unstack
from echostream.modules.transformer import TransformerState

if TYPE_CHECKING:
    from echostream.models.mt_decoder import TransformerMTDecoder


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
