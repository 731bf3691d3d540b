"""What recordings do to the released model: where they end, what follows, and how long they are silent."""

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

from echostream.constants import SAMPLE_RATE
from echostream.streaming import StreamingTranslator
from echostream.text import edit_distance

MODEL = Path(__file__).resolve().parents[2] / "models/fr-en"


@pytest.fixture(scope="module")
def translator() -> StreamingTranslator:
    return StreamingTranslator.from_checkpoint(MODEL, segment_ms=320, task="s2tt")


def recording(name: str) -> np.ndarray:
    return soundfile.read(MODEL / "samples" / f"{name}.flac", dtype="float32")[0]


def said(name: str) -> str:
    """What is said in a recording."""
    with (MODEL / "samples" / "samples.tsv").open(encoding="utf-8", newline="") as file:
        return next(row["fr"] for row in csv.DictReader(file, delimiter="\t") if row["id"] == name)


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


def test_nothing_is_lost_where_a_recording_ends(translator):
    """A cut right after the last phone, and 3 s of zeros, noise or mains hum after it."""
    wave = recording("tatoeba_1")
    speech = wave[: speech_ends(wave)]
    expected = text(heard(translator, wave))
    assert edit_distance(expected.split(), said("tatoeba_1").split()) <= 1
    time_s = np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE
    ends = {
        "a cut": silence(0),
        "zeros": silence(3),
        "noise": np.random.default_rng(0).normal(0, 1e-3, time_s.size),
        "hum": 0.01 * np.sin(2 * np.pi * 50 * time_s),
    }
    for name, end in ends.items():
        assert text(heard(translator, np.concatenate([speech, end.astype(np.float32)]))) == expected, name


def test_lengths_around_a_segment_end_cleanly(translator):
    wave = recording("tatoeba_1")
    segment = 320 * SAMPLE_RATE // 1000
    for segments in (1, 4):
        whole = segments * segment + translator.missing_samples(translator.init_state()) - segment
        for size in (segments * segment, whole):
            found = [text(heard(translator, wave[: size + more])) for more in (-1, 0, 1)]
            assert len(set(found)) == 1, found


def test_a_minute_of_silence_adds_and_takes_nothing(translator):
    """Before the first sentence, where an unlikely word of the first second used to wait for it, and between two."""
    first, second = recording("tatoeba_2"), recording("tatoeba_1")
    words = heard(translator, np.concatenate([silence(60), first, silence(60), second]))
    starts = [word.start_s for word in words]
    begin, end = 60 + first.size / SAMPLE_RATE, 120 + first.size / SAMPLE_RATE
    assert all(60 <= start <= begin or start >= end for start in starts), words
    later = [word.text for word in words if word.start_s >= end]
    alone = [word.text for word in heard(translator, second)]
    assert edit_distance(later, alone) <= 1
    assert len([word for word in words if word.start_s < end]) >= len(heard(translator, first)) // 2
