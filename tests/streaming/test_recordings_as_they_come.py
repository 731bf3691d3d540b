"""What recordings do to the released model: where they end, what follows, and how long they are silent."""

import numpy as np
import pytest
from memory import little_memory  # noqa: F401  # of every test here
from shipped_model import MODEL, Sample, short_samples, word_error_rate

from echostream.constants import SAMPLE_RATE
from echostream.streaming import StreamingTranslator
from echostream.text import edit_distance

BEFORE_S, BETWEEN_S = 10, 20  # longer than what is remembered of the past


@pytest.fixture(scope="module")
def translator() -> StreamingTranslator:
    return StreamingTranslator.from_checkpoint(MODEL, segment_ms=320, task="s2tt")


@pytest.fixture(scope="module")
def understood(translator) -> list[tuple[Sample, str]]:
    """Short samples and what is heard in them, the best understood first."""
    found = [(sample, text(heard(translator, sample.wave))) for sample in short_samples(11)]
    found.sort(key=lambda pair: word_error_rate([pair[1]], [pair[0].source]))
    assert word_error_rate([found[0][1]], [found[0][0].source]) <= 0.25, found
    return found


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * SAMPLE_RATE), dtype=np.float32)


def heard(translator, wave: np.ndarray) -> list:
    """The source words of a recording, pushed second by second."""
    state, words = translator.init_state(), []
    for start in range(0, max(wave.size, 1), SAMPLE_RATE):
        words += translator.step(
            wave[start : start + SAMPLE_RATE], state, start + SAMPLE_RATE >= wave.size
        ).source_words
    return words


def text(words: list) -> str:
    return "".join(word.text if word.joined else f" {word.text}" for word in words).strip()


def speech_ends(wave: np.ndarray) -> int:
    """The sample after the last phone: what is later is 40 dB below the loudest 10 ms."""
    frames = wave[: wave.size - wave.size % 160].reshape(-1, 160)
    power = np.square(frames).mean(axis=1)
    return int(np.flatnonzero(power > 1e-4 * power.max())[-1] + 1) * 160


def test_nothing_is_lost_where_a_recording_ends(translator, understood):
    """A cut right after the last phone, and 3 s of zeros, noise or mains hum after it.

    As many words are heard as in the whole recording, and but one may be spelt otherwise.
    """
    sample, expected = understood[0]
    speech = sample.wave[: speech_ends(sample.wave)]
    time_s = np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE
    ends = {
        "a cut": silence(0),
        "zeros": silence(3),
        "noise": np.random.default_rng(0).normal(0, 1e-3, time_s.size),
        "hum": 0.01 * np.sin(2 * np.pi * 50 * time_s),
    }
    for name, end in ends.items():
        found = text(heard(translator, np.concatenate([speech, end.astype(np.float32)])))
        assert len(found.split()) == len(expected.split()), (name, found, expected)
        assert edit_distance(found.split(), expected.split()) <= 1, (name, found, expected)


def test_lengths_around_a_segment_end_cleanly(translator, understood):
    """The same words are heard with a sample more or less, but for the last one, which is cut in its middle."""
    wave = max((sample.wave for sample, _ in understood), key=len)
    segment = 320 * SAMPLE_RATE // 1000
    for segments in (1, 4):
        whole = segments * segment + translator.missing_samples(translator.init_state()) - segment
        for size in (segments * segment, whole):
            found = [text(heard(translator, wave[: size + more])).split() for more in (-1, 0, 1)]
            shortest = min(found, key=len)
            assert all(words[: len(shortest) - 1] == shortest[:-1] for words in found), found
            assert max(map(len, found)) <= len(shortest) + 1, found


def test_a_long_silence_adds_and_takes_nothing(translator, understood):
    """Before the first sentence, where an unlikely word of the first second used to wait for it, and between two."""
    (other, _), (sample, expected) = understood[1], understood[0]
    words = heard(translator, np.concatenate([silence(BEFORE_S), other.wave, silence(BETWEEN_S), sample.wave]))
    starts = [word.start_s for word in words]
    begin, end = BEFORE_S + other.seconds, BEFORE_S + other.seconds + BETWEEN_S
    assert all(BEFORE_S <= start <= begin or start >= end for start in starts), words
    later = text([word for word in words if word.start_s >= end])
    # In letters: "parti" and "partie" sound the same, and so do "demain" and "de main".
    assert edit_distance(list(later.replace(" ", "")), list(expected.replace(" ", ""))) <= 1
    assert len([word for word in words if word.start_s < end]) >= len(heard(translator, other.wave)) // 2
