"""Codecs, overdrive, timbres, places and sounds without words: what they keep, and that chance is the seed's."""

import numpy as np
import pytest

from scripts.recipes.everyday.places import Places, lay_out
from scripts.recipes.everyday.wordless import KINDS, make
from scripts.speech.channels import CODECS, clip, fit, through_codec
from scripts.speech.pico_voice import PicoVoice
from scripts.speech.timbre import shift

RATE = 16_000


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return PicoVoice()("Bonjour, je voudrais une table pour quatre personnes.")


def centroid_hz(samples: np.ndarray) -> float:
    power = np.abs(np.fft.rfft(samples)) ** 2
    return float((power * np.fft.rfftfreq(len(samples), 1 / RATE)).sum() / power.sum())


def pitch_hz(samples: np.ndarray) -> float:
    """Median of the voiced frames' fundamental, by autocorrelation."""
    found = []
    for start in range(0, len(samples) - 1024, 512):
        frame = samples[start : start + 1024] - samples[start : start + 1024].mean()
        correlation = np.correlate(frame, frame, "full")[1023:]
        lag = 40 + int(np.argmax(correlation[40:260]))  # 62 to 400 Hz
        if correlation[0] > 0.5 and correlation[lag] > 0.5 * correlation[0]:
            found.append(RATE / lag)
    return float(np.median(found))


@pytest.mark.parametrize("codec", sorted(CODECS))
def test_a_codec_keeps_length_and_place(speech, codec):
    received = through_codec(speech, codec)
    assert received.shape == speech.shape and received.dtype == np.float32
    product = np.fft.rfft(received, 2 * len(speech)) * np.conj(np.fft.rfft(speech, 2 * len(speech)))
    assert int(np.argmax(np.fft.irfft(product))) == 0  # no delay
    assert 0.9 < np.corrcoef(speech, received)[0, 1] < 1
    assert not np.array_equal(speech, received)


def test_overdrive_cuts_the_loudest_and_keeps_the_peak(speech):
    loud = clip(speech, 0.1)
    assert np.abs(loud).max() == pytest.approx(np.abs(speech).max())
    level = np.abs(speech)
    share = (np.abs(loud) >= 0.999 * np.abs(loud).max()).sum() / (level > 0.01 * level.max()).sum()
    assert share == pytest.approx(0.1, abs=0.02)
    assert np.array_equal(clip(np.zeros(10), 0.1), np.zeros(10))


def test_fit_cuts_and_fills():
    assert fit(np.ones(3), 5).tolist() == [1, 1, 1, 0, 0]
    assert fit(np.ones(5), 3).tolist() == [1, 1, 1]


def test_world_moves_pitch_and_formants_apart(speech):
    high = shift(speech, 1.3, 1.0)
    assert pitch_hz(high) / pitch_hz(speech) == pytest.approx(1.3, rel=0.06)
    small = shift(speech, 1.0, 1.12)
    assert pitch_hz(small) / pitch_hz(speech) == pytest.approx(1.0, rel=0.04)
    assert centroid_hz(small) > 1.03 * centroid_hz(speech)
    assert shift(speech, 1.0, 1.0) is speech


def test_pico_has_its_own_pitch_and_formants():
    voice, text = PicoVoice(), "Bonjour, je voudrais une table pour quatre personnes."
    plain, low = voice(text), voice(text, pitch=0.7, formants=0.88)
    assert len(low) == pytest.approx(len(plain), rel=0.06)  # the tempo is kept
    assert pitch_hz(low) / pitch_hz(plain) == pytest.approx(0.7, rel=0.08)
    assert len(voice(text, speed=1.2)) < 0.9 * len(plain)
    assert np.array_equal(plain, PicoVoice()(text))
    assert voice("Good morning, how are you?", "en-GB").any()


def test_sentences_lie_where_the_times_say():
    sound, times = lay_out([np.ones(1600, np.float32), np.full(800, 2, np.float32)], [0.1, 0.05, 0.2])
    assert times == [(0.1, 0.2), (0.25, 0.3)]
    assert len(sound) == 0.5 * RATE
    assert set(sound[1600:3200]) == {1} and set(sound[4000:4800]) == {2} and not sound[3200:4000].any()


def test_a_place_is_that_of_its_seed_and_leaves_the_length(speech):
    places, heard = Places(), set()
    for seed in range(12):
        one, again = (
            places(speech, np.random.default_rng(seed), lambda generator: speech[::-1] * generator.uniform(0.5, 1))
            for _ in range(2)
        )
        assert np.array_equal(one, again)
        assert one.shape == speech.shape and one.dtype == np.float32 and np.isfinite(one).all()
        assert 0.05 < np.abs(one).max() <= 1.0
        heard.add(round(float(np.corrcoef(one, speech)[0, 1]), 2))
    assert len(heard) > 5


def test_gaps_are_those_of_the_sentences():
    places, generator = Places(), np.random.default_rng(0)
    gaps = [places.gaps(3, generator) for _ in range(300)]
    assert all(len(gap) == 4 for gap in gaps)
    between = np.array([gap[1:3] for gap in gaps]).ravel()
    assert 0 <= between.min() < 0.05 and 1.0 < between.max() <= 1.2
    around = np.array([(gap[0], gap[-1]) for gap in gaps]).ravel()
    assert around.min() >= 0.05 and 0.03 < (around > 0.6).mean() < 0.15


@pytest.mark.parametrize("kind", KINDS)
def test_sounds_without_words_are_as_long_as_asked_and_loud(kind, speech):
    sources = dict.fromkeys(("foreign", "french", "word"), lambda generator: speech)
    one, again = (make(kind, 1.5, np.random.default_rng(3), sources) for _ in range(2))
    assert np.array_equal(one, again)
    assert len(one) == 1.5 * RATE and np.abs(one).max() == pytest.approx(1.0)
