"""Speech in another language than the model's is heard, and nothing said of it."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import soundfile
import torch
from model_files import save_model
from shipped_model import MODEL, short_samples
from tiny_translator import make_model, make_translator, noise

from echostream.cli import main
from echostream.decoding.joint_search import LanguageReading
from echostream.streaming import StreamingTranslator
from echostream.streaming.word_level_translator import WordLevelTranslator

LANGUAGES = {"mt_prompt_tokens": 2, "mt_languages": 3}


def translator_of(least: float, task: str = "s2tt", **options: int) -> StreamingTranslator:
    model = make_model(**LANGUAGES | options)
    return make_translator(model=model, task=task, policy="fixed-rate", segment_ms=320, least_language=least)


@pytest.fixture
def asked(monkeypatch):
    """The probabilities that were found, in their order."""
    found: list[float] = []
    original = WordLevelTranslator._is_in_language

    def watched(self, state):
        search = original(self, state)
        try:
            request = next(search)
            assert isinstance(request, LanguageReading)
            answer = yield request
            found.append(answer)
            search.send(answer)
        except StopIteration as finished:
            return finished.value

    monkeypatch.setattr(WordLevelTranslator, "_is_in_language", watched)
    return found


@pytest.mark.parametrize("places", [0, 40])
def test_it_is_asked_until_it_is_likely_enough_and_then_no_more(asked, places):
    speech = noise(8.0)
    everything = translator_of(0.0, mt_places=places).translate(speech)
    assert everything.words and not asked
    assert translator_of(0.999999, mt_places=places).translate(speech).text == ""
    probabilities = asked.copy()
    asked.clear()
    assert len({round(one, 4) for one in probabilities}) > 3 and all(0 < one < 1 for one in probabilities)
    # Between what was found first and the most: nothing is said at first, and then all that was held back.
    least = (probabilities[0] + max(probabilities)) / 2
    later = translator_of(least, mt_places=places).translate(speech)
    first = next(number for number, one in enumerate(probabilities) if one >= least)
    assert asked == pytest.approx(probabilities[: first + 1], abs=1e-5)
    if first:
        assert later.words[0].source_time_s > everything.words[0].source_time_s
    assert later.words


@pytest.mark.parametrize("places", [0, 40])
def test_withheld_speech_without_end_is_forgotten_and_what_follows_it_written(asked, places):
    translator = translator_of(0.999999, mt_places=places)
    window = translator.model.mt_decoder.window_frames
    state = translator.init_state()
    for second in np.array_split(noise(30.0), 30):
        assert not translator.step(second, state).words
        sentence = state.translation.sentence
        assert sentence.num_frames <= window + 25
        assert sentence.target_tokens == len(sentence.span.target_tokens)  # no evidence of what is forgotten
        assert sentence.attended()[1] <= 25
    assert len(asked) > 10
    fork = copy.deepcopy(state)
    before = len(asked)
    assert not translator.step(noise(0.0), state, is_last=True).words
    assert len(asked) == before + 1  # once for the whole of it, not once more for each piece
    translator.writer.least_language = 1e-9
    assert translator.step(noise(1.0, seed=1), fork, is_last=True).words


def test_what_is_said_does_not_depend_on_pushes_or_company():
    speech = [noise(5.0, seed) for seed in range(3)]
    translator = translator_of(0.3)
    alone = [[word.text for word in translator.translate(wave).words] for wave in speech]
    states = [translator.init_state() for _ in speech]
    words: list[list[str]] = [[] for _ in speech]
    for number in range(5):
        parts = [np.array_split(wave, 5)[number] for wave in speech]
        for said, output in zip(words, translator.step_batch(parts, states, [number == 4] * 3), strict=True):
            said += [word.text for word in output.words]
    assert words == alone and any(alone)


@pytest.mark.parametrize("least", [-0.1, 1.0, float("nan")])
def test_a_probability_out_of_range_is_refused(least):
    with pytest.raises(ValueError, match="least_language must be at least 0 and below 1"):
        translator_of(least)


def test_a_model_that_cannot_tell_languages_is_refused():
    with pytest.raises(ValueError, match="least_language needs a model that tells languages"):
        make_translator(least_language=0.1)
    model = make_model(**LANGUAGES)
    with torch.no_grad():
        model.mt_decoder.languages.zero_()  # as a model is that never saw Whisper's weights
    with pytest.raises(ValueError, match="least_language needs a model that tells languages"):
        make_translator(model=model, least_language=0.1)


def test_the_command_line_says_when_it_said_nothing(tmp_path, capsys):
    soundfile.write(tmp_path / "talk.wav", noise(3.0), 16_000)
    model = save_model(make_translator(model=make_model(**LANGUAGES)), tmp_path)
    command = ["translate", str(tmp_path / "talk.wav"), "--model", str(model), "--policy", "fixed-rate", "--text"]
    assert main([*command, "--least-language", "0.999999"]) == 0
    out, err = capsys.readouterr()
    assert not out.strip() and "--least-language 0 doesn't ask" in err
    assert main([*command, "--least-language", "0.000001"]) == 0
    out, err = capsys.readouterr()
    assert out.strip() and "--least-language" not in err


def test_the_model_that_ships_says_nothing_of_english():
    hibari, soxr = pytest.importorskip("hibari"), pytest.importorskip("soxr")
    translator = StreamingTranslator.from_pretrained(MODEL, task="s2tt")
    assert translator.writer.least_language, "model.yaml"
    voice = hibari.Hibari(threads=1)
    spoken = voice("I have never seen him do what you say he always does on Sunday mornings.", seed=0)
    english = soxr.resample(np.asarray(spoken, np.float32), voice.sample_rate, 16_000)
    heard = translator.translate(english)
    assert heard.source_words and not heard.words
    for sample in short_samples(8):
        assert translator.translate(sample.wave).words, sample.path
