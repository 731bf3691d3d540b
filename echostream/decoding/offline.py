"""Offline decoding of whole utterances in batches: source text, translation and units.

With the same options it finds what :class:`echostream.streaming.StreamingTranslator` gives for an utterance that is
one sentence and one segment (``segment_ms=0``), without computing the utterances of a batch one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from echostream.decoding.beam_search import Hypothesis, Repeated, search
from echostream.decoding.joint_search import Reading, Search, TextAnswer, decoder_passes, search_together
from echostream.decoding.prefix_beam_search import SourceTranscriber
from echostream.decoding.repetition import heard_repetition, repeating
from echostream.decoding.target_tokens import END, PADDING, forbidden_tokens, token_limit
from echostream.modules.ctc import CTCReader, greedy_collapse
from echostream.modules.transformer import TransformerState
from echostream.text import WORD_MARK, pieces_to_text

if TYPE_CHECKING:
    from echostream.models.echostream_model import EchoStreamModel


def read_ctc(
    logits: Tensor, lengths: Tensor, transcriber: SourceTranscriber | None = None
) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
    """Symbols of a CTC head, and the log-probability of each in the frame at which it is read.

    Args:
        logits: ``(B, T, classes)``.
        lengths: ``(B,)`` valid frames.
        transcriber: prefix beam search; None: the greedy path.
    """
    found = []
    for row, length in zip(logits, lengths.tolist(), strict=True):
        log_probs = row[:length].float().log_softmax(dim=-1)
        if transcriber is None:
            read = [(symbol, frame) for frame, symbol in CTCReader().read(row[:length].argmax(dim=-1).tolist())[0]]
        else:
            spans, _ = transcriber.search(log_probs.cpu(), transcriber.init_state(), is_last=True)
            read = [pair for span in spans for pair in zip(*span, strict=True)]
        symbols, frames = [symbol for symbol, _ in read], [frame for _, frame in read]
        found.append((tuple(symbols), tuple(log_probs[frames, symbols].tolist())))
    return found


@torch.no_grad()
def translate(
    model: EchoStreamModel,
    encoded: dict[str, Tensor],
    source_symbols: Sequence[str],
    target_symbols: Sequence[str],
    beam: int = 1,
    length_penalty: float = 1.0,
    limits: Sequence[int] | None = None,
) -> list[list[Hypothesis]]:
    """Translations of encoded utterances by the MT decoder, greedy or by beam search.

    Args:
        model: in evaluation mode.
        encoded: from :meth:`EchoStreamModel.encode`.
        source_symbols, target_symbols: the dictionaries.
        beam: hypotheses kept for each utterance; 1 is greedy.
        length_penalty: power of the length by which scores are divided, as fairseq's ``--lenpen``.
        limits: most tokens of each utterance; None: :func:`token_limit` of its frames.

    Returns:
        for each utterance its hypotheses, the best one first, END included. An utterance in which neither CTC head
        reads anything is silence and gets one without tokens.
    """
    frames, lengths = encoded["encoder_out"], encoded["frame_lengths"]
    limits = limits or [token_limit(length, model.frame_ms) for length in lengths.tolist()]
    heads = [greedy_collapse(encoded[name].argmax(dim=-1), lengths) for name in ("asr_logits", "st_logits")]
    spoken = [bool(source or target) for source, target in zip(*heads, strict=True)]
    starts_word = [symbol.startswith(WORD_MARK) for symbol in target_symbols]
    sentences = [pieces_to_text([source_symbols[symbol] for symbol in source]).split() for source in heads[0]]
    repeated = [partial(repeating, starts_word=starts_word, heard=heard_repetition(words)) for words in sentences]
    decoder = model.mt_decoder
    forbidden = forbidden_tokens(decoder.embedding.num_embeddings, frames.device)
    firsts = [max(0, end - decoder.window_frames) for end in lengths.tolist()]
    seen = [row[None, first:end] for row, first, end in zip(frames, firsts, lengths, strict=True)]
    state = decoder.init_state()
    searches = [
        _greedy(own, state, limit, forbidden, repeats, first)
        if beam == 1
        else search(END, own, state, beam, limit, forbidden, _has_ended, repeats, length_penalty, first)
        for own, first, limit, repeats in zip(seen, firsts, limits, repeated, strict=True)
    ]
    found = search_together(searches, decoder_passes(model))
    return [hypotheses if speaks else [Hypothesis()] for hypotheses, speaks in zip(found, spoken, strict=True)]


def _has_ended(hypothesis: Hypothesis) -> bool:
    return hypothesis.tokens[-1] == END


def _greedy(
    frames: Tensor, state: TransformerState, limit: int, forbidden: Tensor, repeated: Repeated, first: int
) -> Search[list[Hypothesis]]:
    """Greedy search for one utterance, whose decoder sees ``frames (1, T, D)`` from the place ``first`` on."""
    tokens: list[int] = []
    scores: list[float] = []
    while len(tokens) < limit and END not in tokens:
        answer: TextAnswer = yield Reading([[tokens[-1] if tokens else END]], frames, state, first)
        state = answer.state
        logits = answer.logits[:, -1] + forbidden
        logits[0, list(repeated(tuple(tokens)))] = float("-inf")
        log_probs = logits[0].float().log_softmax(dim=-1)
        tokens.append(int(log_probs.argmax()))
        scores.append(float(log_probs[tokens[-1]]))
    return [Hypothesis(tuple(tokens), tuple(accumulate(scores)))]


@torch.no_grad()
def speak(
    model: EchoStreamModel, encoded: dict[str, Tensor], texts: Sequence[Sequence[int]], starts_word: Sequence[bool]
) -> list[tuple[list[int], list[float]]]:
    """Units of translations by CTC, and the log-probability of each in the frame at which it is read.

    Args:
        model: in evaluation mode.
        encoded: from :meth:`EchoStreamModel.encode`.
        texts: tokens of each utterance, END included.
        starts_word: for each target symbol, whether it begins a word.
    """
    frames, lengths = encoded["encoder_out"], encoded["frame_lengths"]
    device = frames.device
    size = max(1, *map(len, texts))
    tokens = torch.tensor([[*text, *[PADDING] * (size - len(text))] for text in texts], device=device)
    starts = torch.tensor([*starts_word], device=device)
    starts[END] = True  # the end is a word of its own
    starts_new = starts[tokens] | (tokens == PADDING)  # what is padded belongs to no word
    starts_new[:, 0] = False
    previous = torch.cat([torch.full_like(tokens[:, :1], END), tokens[:, :-1]], dim=1)
    memory, mask = model.mt_decoder.attended(frames, lengths, lengths[:, None].expand_as(tokens))
    hidden, _, _ = model.mt_decoder(previous, memory, mask)
    logits, _ = model.unit_decoder(model.text_states(hidden, tokens), starts_new.long().cumsum(dim=1))
    unit_frames = torch.tensor([len(text) for text in texts]) * model.unit_decoder.frames_per_token
    spoken = read_ctc(logits, unit_frames)
    return [([symbol - 1 for symbol in symbols], list(scores)) for symbols, scores in spoken]
