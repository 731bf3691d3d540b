"""How sure the decoder is of a word, and what is left out below a threshold."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from echostream.checkpoints.state_files import pack, unpack
from echostream.decoding.confidence import Confidence, log_probs_of
from echostream.streaming import StreamingTranslator
from echostream.streaming.recomposer import WaitingWord
from echostream.streaming.sentence_stage import Writing
from echostream.streaming.text_to_speech import TextToSpeech
from echostream.streaming.word_level_translator import TargetWord
from echostream.text import WORD_MARK

SPEECH = np.random.default_rng(3).normal(0, 0.1, 16_000 * 6).astype(np.float32)


def test_without_calibration_it_is_the_mean_probability_of_the_tokens():
    assert Confidence().of([math.log(0.5), math.log(0.125)]) == pytest.approx(0.25)
    assert Confidence().of([]) == 1


def test_calibrated_it_is_a_logistic_function_that_never_overflows():
    confidence = Confidence(2.0, 1.0)
    assert confidence.of([-0.5]) == pytest.approx(0.5)
    assert confidence.of([-1e9]) < 1e-12 and Confidence(-1e9, 0.0).of([-1e9]) > 1 - 1e-12


def test_log_probabilities_are_those_of_the_tokens():
    logits = torch.tensor([[0.0, math.log(3.0)], [5.0, 5.0]])
    assert log_probs_of(logits, [1, 0]) == pytest.approx([math.log(0.75), math.log(0.5)])


def translate(beam: int, pushes: int = 1, **options) -> list:
    translator = StreamingTranslator.random("echostream_tiny", seed=5, beam=beam, policy="fixed-rate", **options)
    state, words = translator.init_state(), []
    for number, part in enumerate(np.array_split(SPEECH, pushes), 1):
        words += translator.step(part, state, is_last=number == pushes).words
    return words


@pytest.mark.parametrize("task", ["s2st", "s2tt"])
@pytest.mark.parametrize("beam", [1, 3])
def test_every_word_has_one_whatever_the_pushes(beam, task):
    words = translate(beam, task=task)
    assert len(words) > 5 and all(0 < word.confidence < 1 for word in words)
    assert len({word.confidence for word in words}) > 1
    later = translate(beam, pushes=7, task=task)
    assert later == words
    np.testing.assert_allclose([w.confidence for w in later], [w.confidence for w in words], atol=1e-4)


@pytest.mark.parametrize("task", ["s2st", "s2tt"])
def test_words_that_are_less_sure_are_left_out(task):
    words = translate(1, task=task)
    least = sorted(word.confidence for word in words)[len(words) // 2]
    sure = translate(1, task=task, least_confidence=least * 0.999)
    assert [word.text for word in sure] == [word.text for word in words if word.confidence >= least * 0.999]
    assert 0 < len(sure) < len(words)
    if task == "s2st":
        assert sure[-1].end_s < words[-1].end_s


@pytest.mark.parametrize("value", [-0.1, 1.0, math.nan])
def test_a_threshold_that_is_none_is_refused(value):
    with pytest.raises(ValueError, match="least_confidence must be at least 0 and below 1"):
        StreamingTranslator.random("echostream_tiny", least_confidence=value)


@pytest.mark.parametrize(("slope", "offset"), [(1.0, None), (None, 1.0), (math.nan, 1.0), (1.0, math.inf)])
def test_half_a_calibration_is_refused(slope, offset):
    with pytest.raises(ValueError, match="confidence_slope and confidence_offset"):
        StreamingTranslator.random("echostream_tiny", confidence_slope=slope, confidence_offset=offset)


def test_what_continues_a_word_that_is_left_out_goes_with_it():
    stage = StreamingTranslator.random("echostream_tiny", task="s2tt").sentences
    words = [
        TargetWord("foo", (), confidence=0.9),
        TargetWord("wonder", (), confidence=0.2),
        TargetWord("ful", (), joined=True, confidence=0.9),
        TargetWord("bar", (), confidence=0.6),
        TargetWord("", (), confidence=0.1),
    ]
    state = stage.init_state(with_speech=False)
    (spoken,) = stage.speak([[Writing(words, ends=False)]], [state], [0.0], least_confidence=0.5)
    assert [word.text for word in spoken.words] == ["foo", "bar"]


def test_a_text_is_spoken_whole():
    translator = StreamingTranslator.random("echostream_tiny", seed=5)
    text = " ".join(symbol[1:] for symbol in translator.writer.symbols[10:40] if symbol.startswith(WORD_MARK))
    given = []
    for view in (translator, translator.view(least_confidence=0.99)):
        speaker = TextToSpeech(view)
        given.append(speaker.step(text, speaker.init_state(), is_last=True)[0])
    assert given[0].words == given[1].words and len(given[0].words) > 0


def test_a_view_has_a_threshold_of_its_own():
    translator = StreamingTranslator.random("echostream_tiny", least_confidence=0.2)
    assert translator.view(least_confidence=0.5).options.least_confidence == 0.5
    assert translator.view().options.least_confidence == translator.options.least_confidence == 0.2


def test_a_state_of_before_there_were_confidences_goes_on():
    waiting = {"waiting": [WaitingWord("word", 1.0, False, 3, confidence=1.0)]}
    data = pack(waiting, {"model": "m"})
    added = b',\\"confidence\\":1.0'
    older = data.replace(added, b" " * len(added))
    assert older != data
    assert unpack(older, {"model": "m"}, "cpu")[0] == waiting
