"""Searches of several streams that share the passes of the networks.

A search is written as a generator for one stream. It yields a request, what it wants a network to compute, and is sent
the answer; it may stop and start again at places of its own. :func:`search_together` carries out any number of them.
Those that want the same network at the same moment share a pass of it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from echostream.modules.masks import valid_positions
from echostream.modules.state import stack, unstack
from echostream.modules.transformer import TransformerState

if TYPE_CHECKING:
    from echostream.models.echostream_model import EchoStreamModel
    from echostream.models.mt_decoder import TransformerMTDecoder
    from echostream.models.unit_decoder import CTCTransformerUnitDecoder, UnitDecoderState

T = TypeVar("T")
# What is sent to a search is the answer that belongs to the kind of its request.
Search: TypeAlias = Generator[Any, Any, T]
# From requests of one kind, which share a pass, to their answers.
Pass: TypeAlias = Callable[[Sequence[Any]], Sequence[Any]]


@dataclass(frozen=True)
class Reading:
    """The next token of each hypothesis of a search, to be read by the MT decoder.

    Attributes:
        tokens: ``R`` rows of ``N`` tokens; here ``N`` is 1.
        frames: ``(1, T, D)`` encoder frames that all of them may attend to.
        state: of the decoder before them, batch of ``R``.
        first: the place in the sentence of the first frame.
        aligns: ask where in the frames each next token is.
    """

    tokens: Sequence[Sequence[int]]
    frames: Tensor
    state: TransformerState
    first: int = 0
    aligns: bool = False


@dataclass(frozen=True)
class Rereading(Reading):
    """Tokens that are known already, to be read in one pass: ``N`` may be any number.

    They are not read with single tokens, for which every row of the batch would be as long as the longest of these.
    """


@dataclass(frozen=True)
class LanguageReading:
    """The question how likely a sentence is in the source language; the answer is that probability, a float.

    Attributes:
        frames, first: as of a :class:`Reading`.
    """

    frames: Tensor
    first: int = 0


@dataclass(frozen=True)
class TextAnswer:
    """What the MT decoder says to a :class:`Reading`.

    Attributes:
        hidden: ``(R, N, dim)`` the states that predict the next tokens.
        logits: ``(R, N, vocabulary)`` their scores.
        state: of the decoder after the tokens.
        frames_behind: of each row, how many frames follow the one that the token after its last one attends to most; -1
            if that is the silence behind them all. Only if it was asked for.
    """

    hidden: Tensor
    logits: Tensor
    state: TransformerState
    frames_behind: Sequence[int] = ()


@dataclass(frozen=True)
class UnitReading:
    """Whole words, to be read by the unit decoder.

    Attributes:
        text: ``(1, N, text_dim)`` states of subwords.
        word_ids: the word that each of them belongs to, counted from 0.
        state: of the decoder before them.
    """

    text: Tensor
    word_ids: Sequence[int]
    state: UnitDecoderState


@dataclass(frozen=True)
class UnitAnswer:
    """What the unit decoder says: ``logits (N * frames_per_token, num_units + 1)``, and its next state."""

    logits: Tensor
    state: UnitDecoderState


def search_together(searches: Sequence[Search[T]], passes: Mapping[type, Pass]) -> list[T]:
    """Carry out several searches; their results.

    Args:
        searches: generators that have not been started.
        passes: for each kind of request how it is computed, in the order of the stages. What comes later in a stream
            waits until no search wants anything earlier, so that as many as possible share its pass.
    """
    results: dict[int, T] = {}
    waiting: dict[int, Any] = {}

    def advance(row: int, answer: Any) -> None:
        waiting.pop(row, None)
        try:
            waiting[row] = searches[row].send(answer)
        except StopIteration as finished:
            results[row] = finished.value

    for row in range(len(searches)):
        advance(row, None)  # which starts it
    while waiting:
        kinds = {type(request) for request in waiting.values()}
        kind = next(kind for kind in passes if kind in kinds)
        rows = [row for row, request in waiting.items() if type(request) is kind]
        for row, answer in zip(rows, passes[kind]([waiting[row] for row in rows]), strict=True):
            advance(row, answer)
    return [results[row] for row in range(len(searches))]


def decoder_passes(model: EchoStreamModel) -> dict[type, Pass]:
    """The passes of a model's MT decoder and unit decoder, for one :func:`search_together`."""
    read = _TextPass(model.mt_decoder)
    return {
        LanguageReading: read.languages,
        Reading: read,
        Rereading: read,
        UnitReading: partial(_read_units, model.unit_decoder),
    }


class _TextPass:
    """Passes of the MT decoder.

    A search attends to the same frames for many tokens, so the frames of a batch are put together once for them all.
    """

    def __init__(self, decoder: TransformerMTDecoder) -> None:
        self.decoder = decoder
        self._sources: list[tuple[Tensor, int]] = []
        self._memory: tuple[Tensor, Tensor | None] | None = None

    def __call__(self, readings: Sequence[Reading]) -> list[TextAnswer]:
        rows = [len(reading.tokens) for reading in readings]
        lengths = [len(tokens) for reading in readings for tokens in reading.tokens]
        size = max(lengths)
        memory, mask = self._memory_of(readings, rows)
        # The decoder masks what comes after a token, so it doesn't matter which token the shorter rows are filled with.
        filled = [[*tokens, *[0] * (size - len(tokens))] for reading in readings for tokens in reading.tokens]
        alignment: list[Tensor] | None = [] if any(reading.aligns for reading in readings) else None
        hidden, logits, state = self.decoder(
            torch.tensor(filled, device=memory.device),
            memory,
            mask,
            stack([reading.state for reading in readings]),
            need_state=True,
            lengths=lengths if min(lengths) < size else None,
            alignment=alignment,
        )
        assert state is not None  # asked for
        parts = zip(readings, hidden.split(rows), logits.split(rows), unstack(state, rows), strict=True)
        answers, row = [], 0
        for reading, own_hidden, own_logits, own_state in parts:
            length, end, heard = len(reading.tokens[0]), row + len(own_hidden), reading.frames.size(1)
            behind: list[int] = []
            if alignment and reading.aligns:
                most = alignment[0][row:end, length - 1].argmax(dim=-1).tolist()
                behind = [max(-1, heard - 1 - frame) for frame in most]
            answers.append(TextAnswer(own_hidden[:, :length], own_logits[:, :length], own_state, behind))
            row = end
        return answers

    def languages(self, readings: Sequence[LanguageReading]) -> list[float]:
        """How likely each sentence is in the source language."""
        return self.decoder.language(*self._memory_of(readings, [1] * len(readings))).exp().tolist()

    def _memory_of(
        self, readings: Sequence[Reading | LanguageReading], rows: list[int]
    ) -> tuple[Tensor, Tensor | None]:
        """Memory ``(B, T, D)`` and its mask ``(B, 1, T)``, a row for each hypothesis; None: all of it is visible."""
        frames = [reading.frames for reading in readings]
        known = len(frames) == len(self._sources) and all(
            one is other and count == before
            for one, count, (other, before) in zip(frames, rows, self._sources, strict=True)
        )
        if self._memory is None or not known:
            self._sources = list(zip(frames, rows, strict=True))
            placed = [self.decoder.placed(reading.frames, reading.first) for reading in readings]
            memory, mask = _stacked_frames(placed, rows)
            ends = [
                reading.first + reading.frames.size(1)
                for reading, count in zip(readings, rows, strict=True)
                for _ in range(count)
            ]
            silent = self.decoder.behind(torch.tensor(ends, device=memory.device))
            if silent is not None:
                mask = memory.new_ones(len(memory), 1, memory.size(1), dtype=torch.bool) if mask is None else mask
                mask = torch.cat([mask, silent[:, None]], dim=-1)
            self._memory = memory, mask
        return self._memory


def _stacked_frames(frames: list[Tensor], rows: list[int]) -> tuple[Tensor, Tensor | None]:
    if len(frames) == 1:
        return frames[0].expand(rows[0], -1, -1), None
    lengths = torch.tensor([one.size(1) for one in frames], device=frames[0].device)
    padded = pad_sequence([one[0] for one in frames], batch_first=True)
    owners = torch.repeat_interleave(torch.tensor(rows, device=padded.device))
    mask = valid_positions(lengths, padded.size(1))[owners, None]
    return padded[owners], mask if len({one.size(1) for one in frames}) > 1 else None


def _read_units(decoder: CTCTransformerUnitDecoder, readings: Sequence[UnitReading]) -> list[UnitAnswer]:
    """A pass of the unit decoder."""
    lengths = [reading.text.size(1) for reading in readings]
    size = max(lengths)
    text = pad_sequence([reading.text[0] for reading in readings], batch_first=True)
    # Padding belongs to a word of its own behind all others, which no other word sees.
    word_ids = [[*reading.word_ids, *[size] * (size - len(reading.word_ids))] for reading in readings]
    logits, state = decoder(
        text,
        torch.tensor(word_ids, device=text.device),
        stack([reading.state for reading in readings]),
        lengths=lengths if min(lengths) < size else None,
    )
    return [
        UnitAnswer(row[: length * decoder.frames_per_token], after)
        for row, length, after in zip(logits, lengths, unstack(state), strict=True)
    ]
