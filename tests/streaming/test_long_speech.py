"""The released model translates long speech without pauses of a second, sentence after sentence."""

import numpy as np
import pytest
from shipped_model import MODEL, Sample, short_samples, word_error_rate, word_recall

from echostream.constants import SAMPLE_RATE
from echostream.streaming import StreamingTranslator

GAP = np.zeros(3 * SAMPLE_RATE // 10, dtype=np.float32)
SPEECH_S = 14  # of samples on end; each of them is translated many times


@pytest.fixture(scope="module")
def translator() -> StreamingTranslator:
    return StreamingTranslator.from_checkpoint(MODEL, segment_ms=320, task="s2tt")


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return short_samples(SPEECH_S)


@pytest.fixture(scope="module")
def sentences(samples) -> list[np.ndarray]:
    return [sample.wave for sample in samples]


def on_end(waves: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([part for wave in waves for part in (wave, GAP)])


def say(translator, wave: np.ndarray, push: int) -> list:
    state, words = translator.init_state(), []
    for start in range(0, wave.size, push):
        words += translator.step(wave[start : start + push], state, start + push >= wave.size).words
    return words


@pytest.fixture(scope="module")
def alone(translator, samples) -> int:
    """Words of the samples, each by itself; what is said in them is understood."""
    outputs = [translator.translate(sample.wave) for sample in samples]
    heard = word_error_rate([output.source_text for output in outputs], [sample.source for sample in samples])
    assert heard < 0.6, [output.source_text for output in outputs]
    said = word_recall([output.text for output in outputs], [sample.target for sample in samples])
    assert said > 0.3, [output.text for output in outputs]
    return sum(len(output.words) for output in outputs)


def test_translation_continues_after_the_first_sentence(translator, sentences, alone, monkeypatch, record_property):
    speech = on_end(sentences)
    at_once = np.concatenate([speech, np.zeros(3 * SAMPLE_RATE, dtype=np.float32)])  # all of it waits, then silence
    breaks = []
    find = translator.breaks.find

    def remember(words, state):
        found, state = find(words, state)
        breaks.extend(found)
        return found, state

    with monkeypatch.context() as patch:
        patch.setattr(translator.breaks, "find", remember)
        words = say(translator, at_once, at_once.size)
    record_property(f"words of {len(sentences)} sentences on end, and alone", f"{len(words)}, {alone}")
    record_property("sentence breaks by the source's language model", len(breaks))
    assert alone * 0.7 < len(words) < alone * 1.3
    last_s = words[-1].source_time_s
    assert last_s > speech.size / SAMPLE_RATE - 6, f"nothing was written after {last_s:.1f} s"
    assert breaks
    for push in (777, 40_001):
        assert say(translator, at_once, push) == words


def test_offline_translation_continues_after_the_first_sentence(translator, sentences, alone, record_property):
    speech = on_end(sentences)
    words = len(say(translator.view(segment_ms=0), speech, speech.size))
    record_property(f"words of {len(sentences)} sentences on end, offline", words)
    assert words > 0.7 * alone


def test_batched_streams_equal_single_streams(translator, sentences):
    orders = (sentences[:3], sentences[2::-1])
    speech = [on_end(waves) for waves in orders]
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
