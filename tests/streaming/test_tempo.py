"""A voice that falls behind leaves out pauses, then hurries, smoothly; its lag is bounded, and nothing else changes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_translator import NUM_UNITS, VOCODERS, make_translator, make_vocoder, noise

from echostream.streaming.sentence_stage import Writing
from echostream.streaming.tempo import (
    LEAST_PAUSE,
    PAUSES_FROM_S,
    PAUSES_TO_S,
    TEMPO_FROM_S,
    TEMPO_STEP,
    TEMPO_TO_S,
    next_tempo,
    pause_share,
)
from echostream.streaming.word_level_translator import TargetWord

MOST = 1.3


def words(count: int) -> list[TargetWord]:
    """Words of eight units each, none of which comes twice in a row."""
    steps = np.random.default_rng(0).integers(1, NUM_UNITS, size=8 * count)
    units = (np.cumsum(steps) % NUM_UNITS).tolist()
    return [TargetWord(f"w{index}", tuple(units[8 * index : 8 * index + 8])) for index in range(count)]


def talk(
    speed: float, max_tempo: float, count: int = 240, in_sentence: int = 8
) -> tuple[np.ndarray, list[float], float]:
    """A voice that gets its words so many times as fast as it speaks by itself.

    Returns:
        the lag when each word is due and the tempo at which it was spoken, ``(count, 2)``; lengths in seconds of the
        pauses between sentences; and the seconds between two words.
    """
    stage = make_translator("istft").sentences
    said = words(count)
    natural, state = 0, stage.init_state(with_speech=True)
    for word in said:
        (spoken,) = stage.speak([[Writing([word], ends=False)]], [state], [0.0])
        natural, state = natural + spoken.samples.size, spoken.state
    every_s = natural / 16_000 / count / speed
    state, rows, pauses = stage.init_state(with_speech=True), [], []
    for index, word in enumerate(said):
        lag_s, before = state.output.lag_s(index * every_s), state.output.pause_samples
        ends = index % in_sentence == in_sentence - 1
        (spoken,) = stage.speak([[Writing([word], ends)]], [state], [index * every_s], max_tempo=max_tempo)
        state = spoken.state
        rows.append((lag_s, state.output.tempo))
        if state.output.pause_samples > before:
            pauses.append((state.output.pause_samples - before) / 16_000)
    return np.array(rows), pauses, every_s


@pytest.mark.parametrize("speed", [1.1, 1.2])
def test_lag_is_bounded_and_does_not_drift(speed):
    free, pauses, every_s = talk(speed, max_tempo=1.0)
    assert free[-1, 0] > 3 and set(free[:, 1]) == {1.0} and set(pauses) == {0.2}
    bounded, pauses, _ = talk(speed, MOST)
    assert bounded[:, 0].max() < 3
    half = len(bounded) // 2
    minutes = np.arange(half) * every_s / 60
    drift = np.polyfit(minutes, bounded[half:, 0], 1)[0]
    assert abs(drift) < 0.5, f"{drift:.2f} s a minute"
    assert np.polyfit(minutes, free[half:, 0], 1)[0] > 3, "the example shows nothing"
    assert bounded[:, 1].max() <= MOST and np.abs(np.diff(bounded[:, 1])).max() <= TEMPO_STEP + 1e-9
    assert min(pauses) == pytest.approx(LEAST_PAUSE * 0.2, abs=1e-3)


def test_what_is_written_in_one_go_is_hurried_word_by_word():
    stage, said = make_translator("istft").sentences, words(40)
    state = stage.init_state(with_speech=True)
    (free,) = stage.speak([[Writing(said, ends=True)]], [state], [1.0])
    (hurried,) = stage.speak([[Writing(said, ends=True)]], [state], [1.0], max_tempo=MOST)
    free_s, hurried_s = free.samples.size / 16_000, hurried.samples.size / 16_000
    assert free_s > 4 and [word.text for word in hurried.words] == [word.text for word in free.words]
    assert 1 / MOST < hurried_s / free_s < 1.1 / MOST
    assert hurried.words[-1].end_s == pytest.approx(hurried_s, abs=1e-6)
    tempos = [
        (own.end_s - own.start_s) / (word.end_s - word.start_s)
        for own, word in zip(free.words, hurried.words, strict=True)
    ]
    assert np.mean(tempos[:3]) < 1.15 < np.mean(tempos[10:20])
    (short,) = stage.speak([[Writing(said[:5], ends=True)]], [state], [1.0], max_tempo=MOST)
    (plain,) = stage.speak([[Writing(said[:5], ends=True)]], [state], [1.0])
    assert np.array_equal(short.samples, plain.samples), "what is heard within two seconds is not hurried"


def test_a_voice_that_keeps_up_speaks_as_it_is():
    slow, pauses, _ = talk(0.8, MOST, count=60)
    assert set(slow[:, 1]) == {1.0} and set(pauses) == {0.2}


def test_pauses_are_shortened_before_the_tempo_rises_and_both_come_back():
    assert PAUSES_TO_S <= TEMPO_FROM_S and pause_share(PAUSES_FROM_S) == 1
    assert pause_share(0.0) == 1 and pause_share(TEMPO_FROM_S) == pytest.approx(LEAST_PAUSE)
    assert next_tempo(1.0, TEMPO_FROM_S, MOST) == 1
    tempo, rising = 1.0, []
    for _ in range(10):
        tempo = next_tempo(tempo, TEMPO_TO_S + 1, MOST)
        rising.append(tempo)
    assert rising[0] == 1 + TEMPO_STEP and rising[-1] == MOST and rising == sorted(rising)
    for _ in range(10):
        tempo = next_tempo(tempo, 0.0, MOST)
    assert tempo == 1


@pytest.mark.parametrize("kind", VOCODERS)
@pytest.mark.parametrize("tempo", [1.0, 1.15, 1.3])
def test_durations_follow_the_tempo_whatever_the_pushes(kind, tempo):
    vocoder = make_vocoder(kind)
    units = torch.tensor([unit for word in words(40) for unit in word.units])

    def speak(size: int) -> tuple[torch.Tensor, torch.Tensor]:
        state, durations, pieces = replace(vocoder.init_state(), tempo=tempo), [], []
        for start in range(0, len(units), size):
            out, state = vocoder.step(units[start : start + size], state, is_last=start + size >= len(units))
            durations.append(out.durations)
            pieces.append(out.samples)
        return torch.cat(durations), torch.cat(pieces)

    whole, wave = speak(len(units))
    own = vocoder.predict_durations(units)
    assert len(whole) == len(units) and len(wave) == int(whole.sum()) * vocoder.hop_samples
    assert int(own.sum()) / int(whole.sum()) == pytest.approx(tempo, rel=0.03)
    assert tempo > 1 or torch.equal(whole, own)
    for size in (1, 7):
        durations, samples = speak(size)
        assert torch.equal(durations, whole)
        noise_power = (samples - wave).square().mean()
        assert noise_power < 1e-3 * wave.square().mean(), "joins are heard"


def test_a_translation_that_hurries_has_the_same_words_whatever_the_pushes():
    speech = noise(5.0, 1)
    plain = make_translator("istft", policy="fixed-rate", segment_ms=160)
    hurried = make_translator("istft", policy="fixed-rate", segment_ms=160, max_tempo=MOST)
    as_it_is, whole = plain.translate(speech), hurried.translate(speech)
    assert whole.text == as_it_is.text and 0.7 < whole.samples.size / as_it_is.samples.size < 0.95
    state, pieces, said = hurried.init_state(), [], []
    for start in range(0, speech.size, 3_333):
        output = hurried.step(speech[start : start + 3_333], state, start + 3_333 >= speech.size)
        pieces.append(output.samples)
        said += output.words
    assert np.array_equal(np.concatenate(pieces), whole.samples) and said == whole.words


@pytest.mark.parametrize("value", [0.9, 2.0, float("nan")])
def test_a_tempo_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match=r"max_tempo must be from 1 to 1\.5"):
        make_translator(max_tempo=value)
