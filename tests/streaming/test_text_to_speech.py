"""Text to speech: what is said depends on the text, not on how it comes, and is what the whole text would give."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
from tiny_translator import make_translator

from echostream.decoding import offline
from echostream.decoding.subwords import SubwordError, SubwordSplitter
from echostream.streaming import StreamingTranslator
from echostream.streaming.text_to_speech import TextToSpeech

TEXT = "w5w6 w7 w9w10w12. w11 W7, w21"


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def spoken(speaker: TextToSpeech, pieces: list[str]) -> tuple[np.ndarray, list]:
    """Speech of a text that comes in pieces, and its words."""
    state, samples, words = speaker.init_state(), [], []
    for number, piece in enumerate(pieces):
        output, state = speaker.step(piece, state, is_last=number == len(pieces) - 1)
        samples.append(output.samples)
        words += output.words
    return np.concatenate(samples), words


@pytest.mark.parametrize("vocoder", ["code_hifigan", "istft"])
def test_speech_does_not_depend_on_how_the_text_is_cut(vocoder):
    speaker = TextToSpeech(make_translator(vocoder))
    samples, words = spoken(speaker, [TEXT])
    assert [word.text for word in words] == ["w5w6", "w7", "w9w10w12", "w11", "w7", "w21"]
    assert samples.size and all(a.end_s <= b.start_s for a, b in itertools.pairwise(words))
    assert words[-1].end_s <= samples.size / 16000 + 1e-6
    for pieces in (list(TEXT), [*(f"{word} " for word in TEXT.split()), ""], [TEXT[:9], TEXT[9:], "\n"]):
        again, same = spoken(speaker, pieces)
        assert np.array_equal(again, samples) and same == words


@torch.inference_mode()
def test_units_are_those_of_the_whole_sentence(monkeypatch):
    translator = make_translator()
    speaker = TextToSpeech(translator)
    given: list[int] = []
    step = translator.vocoder.step_batch

    def recording_step(inputs):
        given.extend(unit for one in inputs for unit in one.units.tolist())
        return step(inputs)

    monkeypatch.setattr(translator.vocoder, "step_batch", recording_step)
    spoken(speaker, ["w5w6 w7 w9w10w12"])
    tokens = [5, 6, 7, 9, 10, 12, offline.END]
    nothing = {"encoder_out": torch.zeros(1, 1, 16), "frame_lengths": torch.tensor([1])}
    ((units, _),) = offline.speak(translator.model, nothing, [tokens], translator.writer.starts_word)
    assert given == units and len(set(units)) > 3


def test_a_word_begins_to_sound_before_the_next_one_comes():
    speaker = TextToSpeech(make_translator("istft"))
    output, state = speaker.step("w5w6", speaker.init_state())
    assert not output.samples.size and not output.words  # it may go on
    fork = copy.deepcopy(state)
    output, _ = speaker.step(" ", state)
    assert output.samples.size
    again, _ = speaker.step(" ", state)  # a step leaves its state as it was
    forked, _ = speaker.step(" ", fork)
    assert np.array_equal(output.samples, again.samples) and np.array_equal(output.samples, forked.samples)


def test_nothing_and_marks_alone_are_silent():
    speaker = TextToSpeech(make_translator("istft"))
    assert not spoken(speaker, [""])[0].size and not spoken(speaker, [" ", "\n", "  "])[0].size
    assert not spoken(speaker, ["?!"])[1]
    assert np.array_equal(spoken(speaker, ["w7 , w9"])[0], spoken(speaker, ["w7 w9"])[0])


def test_letters_that_the_model_does_not_know_are_named():
    speaker = TextToSpeech(make_translator("istft"))
    with pytest.raises(SubwordError, match="no subword with 'é', as in 'w7é'"):
        spoken(speaker, ["w7 w7é"])
    with pytest.raises(ValueError, match="speech needs a vocoder"):
        translator = make_translator()
        TextToSpeech(StreamingTranslator(translator.model, *[translator.writer.symbols] * 2, task="s2tt"))


def test_words_are_split_into_as_few_subwords_as_there_can_be():
    symbols = ["<s>", "<pad>", "</s>", "<unk>", "▁", "▁a", "a", "b", "▁ab", "bab", "ab", "'"]
    splitter = SubwordSplitter(symbols)

    def split(word: str) -> list[str]:
        return [symbols[number] for number in splitter.split(word)]

    assert split("abab") == ["▁a", "bab"] and split("abbab") == ["▁ab", "bab"] and split("b") == ["▁", "b"]
    assert split("AB") == ["▁ab"] and split("a'") == ["▁a", "'"] and split("-") == []
    with pytest.raises(SubwordError, match="no subwords for 'c'"):
        SubwordSplitter([*symbols[:4], "▁c1", "▁a"]).split("c")
