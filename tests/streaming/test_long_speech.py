"""The released model translates long speech without pauses of a second, sentence after sentence."""

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile

from echostream.constants import SAMPLE_RATE
from echostream.streaming import StreamingTranslator

MODEL = Path(__file__).resolve().parents[2] / "models/fr-en"
GAP = np.zeros(3 * SAMPLE_RATE // 10, dtype=np.float32)


@pytest.fixture(scope="module")
def translator() -> StreamingTranslator:
    return StreamingTranslator.from_checkpoint(MODEL, segment_ms=320, task="s2tt")


@pytest.fixture(scope="module")
def sentences() -> list[np.ndarray]:
    return [soundfile.read(path, dtype="float32")[0] for path in sorted((MODEL / "samples").glob("*.flac"))]


def say(translator, wave: np.ndarray, push: int) -> list:
    state, words = translator.init_state(), []
    for start in range(0, wave.size, push):
        words += translator.step(wave[start : start + push], state, start + push >= wave.size).words
    return words


def test_translation_continues_after_the_first_sentence(translator, sentences, monkeypatch, record_property):
    alone = sum(len(say(translator, wave, wave.size)) for wave in sentences)
    speech = np.concatenate([part for wave in sentences for part in (wave, GAP)])
    words = say(translator, speech, speech.size)
    record_property("words of six sentences on end, and alone", f"{len(words)}, {alone}")
    assert alone * 0.8 < len(words) < alone * 1.2
    last_s = words[-1].source_time_s
    assert last_s > speech.size / SAMPLE_RATE - 6, f"nothing was written after {last_s:.1f} s"
    for push in (777, 5_120, 40_001):
        assert say(translator, speech, push) == words
    monkeypatch.setattr(translator.breaks, "least_nats", math.inf)
    without_breaks = len(say(translator, speech, speech.size))
    record_property("without the source's language model", without_breaks)
    assert alone / 2 < without_breaks < len(words)
    monkeypatch.setattr(translator.writer, "overdue_tokens", math.inf)
    assert len(say(translator, speech, speech.size)) < alone / 2, "one sentence, for there is no second of silence"


def test_offline_translation_continues_after_the_first_sentence(translator, sentences, monkeypatch, record_property):
    whole = translator.view(segment_ms=0)
    speech = np.concatenate([part for wave in sentences for part in (wave, GAP)])
    words = len(say(whole, speech, speech.size))
    record_property("words of six sentences on end, offline", words)
    monkeypatch.setattr(translator.breaks, "least_nats", math.inf)
    assert words > 1.4 * len(say(whole, speech, speech.size))


def test_batched_streams_equal_single_streams(translator, sentences):
    orders = (sentences, sentences[::-1])
    speech = [np.concatenate([part for wave in order for part in (wave, GAP)]) for order in orders]
    alone = [say(translator, wave, wave.size) for wave in speech]
    states = [translator.init_state() for _ in speech]
    together = [[], []]
    for start in range(0, max(wave.size for wave in speech) + 5_120, 5_120):
        for words, out in zip(
            together,
            translator.step_batch([wave[start : start + 5_120] for wave in speech], states, [False, False]),
            strict=True,
        ):
            words += out.words
    for words, state in zip(together, states, strict=True):
        words += translator.step(GAP[:0], state, is_last=True).words
    assert together == alone
