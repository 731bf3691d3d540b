"""Searches that share the passes of the networks get what they get alone."""

from collections import Counter

import pytest
import torch
from tiny_translator import make_model

from echostream.decoding.beam_search import search
from echostream.decoding.joint_search import (
    LanguageReading,
    Reading,
    Rereading,
    UnitReading,
    decoder_passes,
    search_together,
)
from echostream.decoding.target_tokens import END, forbidden_tokens

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
LENGTHS = (5, 64, 1, 23)  # encoder frames that each search may attend to


@pytest.fixture(scope="module", params=[0, 40], ids=["no places", "40 places"])
def model(request):
    return make_model(mt_places=request.param, mt_prompt_tokens=2, mt_languages=3)


def counted(passes):
    """The same passes, and how often each kind of request was computed."""
    calls = Counter()

    def watched(kind, compute):
        def call(requests):
            calls[kind] += 1
            return compute(requests)

        return call

    return {kind: watched(kind, compute) for kind, compute in passes.items()}, calls


def frames_of(index):
    return torch.randn(1, LENGTHS[index], 16, generator=torch.Generator().manual_seed(index))


def everything(model, index):
    """A search with requests of all kinds, as many as its number says, and all that it is answered."""
    frames, state, unit, answers = frames_of(index), model.mt_decoder.init_state(), model.unit_decoder.init_state(), []
    answers.append((yield LanguageReading(frames, 3 * index)))
    for step in range(index + 1):
        for token in range(step + 1):
            answer = yield Reading([[10 * index + token]], frames, state, 3 * index, aligns=index != 2)
            answers.append(answer)
            state = answer.state
        known = list(range(20, 21 + (step + index) % 3))
        answer = yield Rereading([known], frames, state, 3 * index)
        answers.append(answer)
        state = answer.state
        text = torch.randn(1, len(known), 16, generator=torch.Generator().manual_seed(100 * step + index))
        answer = yield UnitReading(text, [place // 2 for place in range(len(known))], unit)
        answers.append(answer)
        unit = answer.state
    return answers


@torch.inference_mode()
def test_searches_together_are_answered_as_alone(model):
    alone = [search_together([everything(model, index)], decoder_passes(model))[0] for index in range(4)]
    passes, calls = counted(decoder_passes(model))
    together = search_together([everything(model, index) for index in range(4)], passes)
    # As many passes as the longest search needs alone: nobody waits for what another one doesn't want.
    assert calls == {LanguageReading: 1, Reading: 10, Rereading: 4, UnitReading: 4}
    assert len({round(answers[0], 4) for answers in alone}) == 4  # it depends on what is heard
    for one, other in zip(together, alone, strict=True):
        assert len(one) == len(other)
        assert one[0] == pytest.approx(other[0], abs=1e-5)
        for answer, expected in zip(one[1:], other[1:], strict=True):
            torch.testing.assert_close(answer.logits, expected.logits, **CLOSE)
            if hasattr(answer, "hidden"):
                torch.testing.assert_close(answer.hidden, expected.hidden, **CLOSE)
                assert answer.frames_behind == expected.frames_behind
                assert torch.equal(answer.state.position, expected.state.position)
                torch.testing.assert_close(answer.state.past, expected.state.past, **CLOSE)


@pytest.mark.parametrize("beam", [2, 5])
@torch.inference_mode()
def test_beams_together_find_what_they_find_alone(model, beam):
    mask = forbidden_tokens(60, torch.device("cpu"))

    def beam_search(index):
        def is_closed(hypothesis):
            return hypothesis.tokens[-1] == END or len(hypothesis.tokens) > 3 + index

        state = model.mt_decoder.init_state()
        return search(END, frames_of(index), state, beam, 4 + 2 * index, mask, is_closed, lambda tokens: {*tokens[-1:]})

    alone = [search_together([beam_search(index)], decoder_passes(model))[0] for index in range(4)]
    passes, calls = counted(decoder_passes(model))
    together = search_together([beam_search(index) for index in range(4)], passes)
    for one, other in zip(together, alone, strict=True):
        assert [hypothesis.tokens for hypothesis in one] == [hypothesis.tokens for hypothesis in other]
        assert one[0].score == pytest.approx(other[0].score, abs=1e-4)
    assert calls[Reading] <= 10 and len({hypotheses[0].tokens for hypotheses in alone}) > 1


def test_a_failed_pass_ends_all_searches(model):
    def fail(requests):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        search_together([everything(model, index) for index in range(2)], {LanguageReading: fail})
