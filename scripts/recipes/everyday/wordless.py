"""Sounds whose right answer is nothing: they hold no French sentence.

Noise that stays and noise that comes and goes, hum, music, applause, another language, French backwards, and one word
said over and over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from scripts.speech.audio import SAMPLE_RATE
from scripts.speech.sounds import coloured_noise, hum, music

Generator = np.random.Generator
KINDS = ("noise", "gated noise", "hum", "music", "applause", "foreign", "reversed", "one word")
# Speech in the wrong form or language is the hardest, so there is more of it.
WEIGHTS = (1, 2, 1, 2, 1, 4, 2, 1)
CLAPS_PER_S = (20, 200)
WORDLESS_S = (2.0, 15.0)
MEAN_WORDLESS_S = sum(WORDLESS_S) / 2


def gated_noise(size: int, generator: Generator) -> np.ndarray:
    """Noise in bursts of 0.1 to 1 s with pauses as long, `(size,)`."""
    noise = coloured_noise(size, generator.uniform(0, 2), generator)
    gate, position = np.zeros(size), 0
    while position < size:
        on, off = (round(generator.uniform(0.1, 1.0) * SAMPLE_RATE) for _ in range(2))
        gate[position : position + on] = generator.uniform(0.2, 1)
        position += on + off
    ramp = np.hanning(round(0.02 * SAMPLE_RATE))
    return noise * np.convolve(gate, ramp / ramp.sum(), "same")


def applause(size: int, generator: Generator) -> np.ndarray:
    """Many hands: short bursts of noise with a resonance of their own, at random times, `(size,)`."""
    sound = np.zeros(size + SAMPLE_RATE)
    time_s = np.arange(round(0.03 * SAMPLE_RATE)) / SAMPLE_RATE
    claps = generator.poisson(generator.uniform(*CLAPS_PER_S) * size / SAMPLE_RATE)
    for start in generator.integers(0, size, claps):
        tone = np.sin(2 * np.pi * generator.uniform(600, 2500) * time_s + generator.uniform(0, 6))
        burst = (generator.normal(size=len(time_s)) + tone) * np.exp(-time_s / generator.uniform(0.002, 0.008))
        sound[start : start + len(burst)] += burst * generator.uniform(0.1, 1)
    return sound[:size]


def make(
    kind: str, seconds: float, generator: Generator, speech: dict[str, Callable[[Generator], np.ndarray]]
) -> np.ndarray:
    """A sound of one of `KINDS`, float `(n,)` with a peak of 1.

    Args:
        kind: which.
        seconds: its length.
        generator: of all chance.
        speech: under "foreign", "french" and "word", what says something of that sort.
    """
    size = round(seconds * SAMPLE_RATE)
    if kind in ("foreign", "reversed", "one word"):
        sound = np.concatenate(list(_spoken(kind, size, generator, speech)))[:size]
    elif kind == "noise":
        sound = coloured_noise(size, generator.uniform(0, 2), generator)
    else:
        sound = {"gated noise": gated_noise, "hum": hum, "music": music, "applause": applause}[kind](size, generator)
    return sound / max(np.abs(sound).max(initial=0.0), 1e-9)


def _spoken(
    kind: str, size: int, generator: Generator, speech: dict[str, Callable[[Generator], np.ndarray]]
) -> Iterator[np.ndarray]:
    total, word = 0, speech["word"](generator) if kind == "one word" else None
    while total < size:
        if word is not None:
            part = word
        elif kind == "foreign":
            part = speech["foreign"](generator)
        else:
            part = speech["french"](generator)[::-1]
        pause = np.zeros(round(generator.uniform(0.05, 0.8) * SAMPLE_RATE))
        total += len(part) + len(pause)
        yield part
        yield pause
