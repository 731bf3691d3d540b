"""The policy alignatt: nothing is written that attends to what was heard last."""

from __future__ import annotations

import pytest
import torch
from tiny_translator import make_model, make_translator

from echostream.decoding.joint_search import decoder_passes, search_together
from echostream.decoding.policy import Budget
from echostream.decoding.target_tokens import END, token_limit
from echostream.models.config import architecture_config, parse_heads
from echostream.streaming.source_span import SourceSpan

HEARD = 60


@pytest.fixture(scope="module", params=[0, 80], ids=["no places", "80 places"])
def translator(request):
    model = make_model(
        mt_layers=2, mt_alignment_heads="1.0", mt_window_tokens=64, mt_prompt_tokens=2, mt_places=request.param
    )
    return make_translator(model=model, segment_ms=320, task="s2tt", policy="alignatt")


def sentence_of(translator, seed):
    generator = torch.Generator().manual_seed(seed)
    frames = 2 * torch.randn(1, HEARD, translator.model.cfg.encoder_dim, generator=generator)
    writer = translator.writer
    return writer.add_evidence(SourceSpan(frames, HEARD, [], [3], [3]), writer.init_state())


def write(translator, budget, state):
    searches = [translator.writer.translate_word(budget, state, with_units=False)]
    return search_together(searches, decoder_passes(translator.model))[0]


@torch.inference_mode()
def read(translator, state, tokens):
    """The whole of a sentence in one pass, as in training: scores of what follows, and how far behind each looks."""
    decoder, (frames, first) = translator.model.mt_decoder, state.attended()
    assert first == 0
    length = torch.tensor([frames.size(1)])
    memory, mask = decoder.attended(frames, length, length.expand(1, len(tokens)))
    alignment: list[torch.Tensor] = []
    _, logits, _ = decoder(torch.tensor([tokens]), memory, mask, alignment=alignment)
    most = alignment[0][0].argmax(dim=-1)
    assert alignment[0].sum(dim=-1) == pytest.approx(torch.ones(1, len(tokens)), abs=1e-5)
    return logits[0] + translator.writer.forbidden, (frames.size(1) - 1 - most).clamp(min=-1).tolist()


def whole_words(translator, tokens):
    """``tokens`` up to the last one that begins a word, which shows that those before are whole."""
    starts = [place for place, token in enumerate(tokens) if translator.writer.starts_word[token] or token == END]
    return tokens[: starts[-1]] if starts else []


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("behind", [1, 12, 30])
def test_greedy_search_stops_at_the_first_token_that_looks_too_far_ahead(translator, seed, behind, monkeypatch):
    monkeypatch.setattr("echostream.streaming.word_level_translator.repeating", lambda *_: set())
    state = sentence_of(translator, seed)
    _, after = write(translator, Budget(frames_behind=behind), state)
    tokens = [END]
    while len(tokens) <= token_limit(HEARD) and (len(tokens) == 1 or tokens[-1] != END):
        logits, places = read(translator, state, tokens)
        tokens.append(int(logits[-1].argmax()))
        if tokens[-1] != END and places[-1] < behind:
            break
    assert list(after.written[1:]) == whole_words(translator, tokens[1:])[-len(after.written) + 1 :]
    assert after.tokens == len(whole_words(translator, tokens[1:]))


@pytest.mark.parametrize("beam", [1, 3])
def test_what_is_written_looks_far_enough_back_and_more_of_it_where_less_is_asked(translator, beam):
    translator.writer.beam = beam
    counts = []
    for behind in (1, 8, 20, 40, HEARD):
        total = 0
        for seed in range(8):
            state = sentence_of(translator, seed)
            _, after = write(translator, Budget(frames_behind=behind), state)
            tokens = [token for token in after.written if token != END]
            assert all(place >= behind for place in read(translator, state, [END, *tokens])[1][: after.tokens])
            total += after.tokens
        counts.append(total)
    translator.writer.beam = 1
    assert counts[0] > counts[2] > 0 and counts[-1] == 0, counts


@torch.inference_mode()
def test_heads_are_those_that_are_named_or_all_of_the_upper_half():
    named = make_model(mt_layers=4, mt_alignment_heads="1.0,3.1").mt_decoder
    upper = make_model(mt_layers=4).mt_decoder
    assert named.alignment_heads == ((1, 0), (3, 1))
    assert upper.alignment_heads == ((2, 0), (2, 1), (3, 0), (3, 1))
    tokens, memory = torch.tensor([[2, 9, 11]]), torch.randn(1, 30, 16)
    found = []
    for decoder in (named, upper):
        alignment: list[torch.Tensor] = []
        decoder(tokens, memory, alignment=alignment)
        found.append(alignment[0])
    weights: list[torch.Tensor] = []
    named.stack(named._input(tokens, None), memory=memory, memory_weights=weights)
    torch.testing.assert_close(found[0], (weights[1][:, 0] + weights[3][:, 1]) / 2)
    assert not torch.allclose(found[0], found[1])


@pytest.mark.parametrize("text", ["3", "3.", "a.b", "3.1;4.2", "-1.0"])
def test_a_list_of_heads_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="must be pairs of a layer and a head"):
        parse_heads(text)


def test_heads_that_a_smaller_decoder_lacks_are_left_out():
    whisper = architecture_config("echostream_whisper_base").mt_alignment_heads
    assert len(parse_heads(whisper)) == 8
    assert make_model(mt_layers=4, mt_alignment_heads=whisper).mt_decoder.alignment_heads == ((3, 1),)
    assert make_model(mt_alignment_heads="0.2").mt_decoder.alignment_heads == ((0, 0), (0, 1))
