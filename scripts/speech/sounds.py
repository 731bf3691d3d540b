"""Sounds without words, computed from a seed: noise of any colour, a hum, a band that plays."""

from __future__ import annotations

from typing import Any

import numpy as np

from scripts.files import digest
from scripts.speech.audio import SAMPLE_RATE

DRIFT_HZ = 0.5  # how fast the loudness of noise wanders
CHORDS = ((0, 4, 7), (9, 12, 16), (5, 9, 12), (7, 11, 14))  # semitones: I, vi, IV, V


def generator_of(*parts: Any) -> np.random.Generator:
    """A generator that depends on these parts alone, such as a seed and the name of a recording."""
    return np.random.default_rng(int(digest(*parts)[:16], 16))


def at_level(sound: np.ndarray, level_db: float) -> np.ndarray:
    """Bring to a mean power below full scale."""
    return sound * (10 ** (level_db / 20) / max(np.sqrt(np.mean(sound**2)), 1e-9))


def coloured_noise(count: int, slope: float, generator: np.random.Generator) -> np.ndarray:
    """Noise `(count,)` whose power falls with the frequency to the power of `slope`, and whose loudness drifts."""
    spectrum = np.fft.rfft(generator.normal(size=count))
    # Below 20 Hz it stays flat: brown noise would otherwise be one slow wave.
    frequencies = np.maximum(np.fft.rfftfreq(count, 1 / SAMPLE_RATE), 20)
    noise = np.fft.irfft(spectrum * frequencies ** (-slope / 2), count)
    phase = generator.uniform(0, 2 * np.pi)
    return noise * (1 + 0.5 * np.sin(phase + 2 * np.pi * DRIFT_HZ * np.arange(count) / SAMPLE_RATE))


def hum(size: int, random: np.random.Generator) -> np.ndarray:
    """Mains hum and a fan: harmonics of 50 Hz over brown noise, ``(size,)``."""
    time_s = np.arange(size) / SAMPLE_RATE
    harmonics = [np.sin(2 * np.pi * 50 * n * time_s + random.uniform(0, 6)) / n for n in range(1, 9)]
    return np.sum(harmonics, axis=0) + coloured_noise(size, 2.0, random)


def music(size: int, random: np.random.Generator) -> np.ndarray:
    """A band: chords of plucked strings, a bass, a kick drum and a hi-hat, ``(size,)`` with a peak of 0.4."""
    beat = round(random.uniform(0.4, 0.65) * SAMPLE_RATE)
    root_hz = 110 * 2 ** (random.integers(12) / 12)
    sound = np.zeros(size + 4 * beat)
    for number, start in enumerate(range(0, size, beat)):
        chord = CHORDS[number // 4 % len(CHORDS)]
        for tone in chord if number % 2 == 0 else chord[number % 3 :][:1]:
            sound[start : start + 2 * beat] += _string(root_hz * 2 ** (1 + tone / 12), 2 * beat)
        sound[start : start + beat] += 1.2 * _string(root_hz * 2 ** (chord[0] / 12) / 2, beat)
        time_s = np.arange(beat) / SAMPLE_RATE
        if number % 2 == 0:  # the drum's skin falls in pitch as it comes to rest
            sound[start : start + beat] += 2 * np.sin(40 * np.exp(-25 * time_s)) * np.exp(-12 * time_s)
        sound[start : start + beat] += 0.3 * random.normal(size=beat) * np.exp(-60 * time_s)
    return 0.4 * sound[:size] / np.abs(sound[:size]).max(initial=1e-9)


def _string(pitch_hz: float, size: int) -> np.ndarray:
    """A plucked string ``(size,)``: higher harmonics fade sooner; 10 ms of attack."""
    time_s = np.arange(size) / SAMPLE_RATE
    attack = np.minimum(1, time_s / 0.01)
    tones = [np.sin(2 * np.pi * n * pitch_hz * time_s) * np.exp(-(1.5 + n) * time_s) / n for n in range(1, 7)]
    return attack * np.sum(tones, axis=0)
