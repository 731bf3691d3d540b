"""Where a recording was made: silence around its sentences, a room, noise, other people, music, a telephone, a codec.

Everything is drawn from a generator, so the same recording sounds the same whenever it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from scripts.speech.audio import PEAK, SAMPLE_RATE
from scripts.speech.augmentation import Surroundings, add_noise
from scripts.speech.channels import CODECS, clip, fit, through_codec
from scripts.speech.sounds import music

Speech = Callable[[np.random.Generator], np.ndarray]


def _between(generator: np.random.Generator, limits: tuple[float, float]) -> float:
    return float(generator.uniform(*limits))


@dataclass(frozen=True)
class Places:
    """How often what happens, and how strong it is."""

    clean_share: float = 0.35  # a quiet room and a good microphone
    close_gap_share: float = 0.5  # of the gaps between sentences: almost none
    close_gap_s: tuple[float, float] = (0.0, 0.3)
    gap_s: tuple[float, float] = (0.3, 1.2)
    around_s: tuple[float, float] = (0.05, 0.6)  # silence before, and after
    long_around_share: float = 0.08
    long_around_s: tuple[float, float] = (1.0, 5.0)
    babble_share: float = 0.15  # of those that are not clean, as what follows
    babble_to_speech_db: tuple[float, float] = (-30.0, -14.0)
    music_share: float = 0.08
    music_to_speech_db: tuple[float, float] = (-30.0, -14.0)
    clip_share: float = 0.04
    clipped: tuple[float, float] = (0.01, 0.1)
    codec_share: float = 0.2
    # What nobody understands teaches nothing: with the wider limits of Surroundings Whisper base read one recording of
    # four at a word error rate of 80 % and more, most of them among those of the most noise and echo.
    surroundings: Surroundings = field(
        default_factory=lambda: Surroundings(signal_to_noise_db=(12.0, 35.0), direct_to_echo_db=(4.0, 18.0))
    )

    def gaps(self, sentences: int, generator: np.random.Generator) -> list[float]:
        """Seconds of silence before the first sentence, between sentences, and after the last: `sentences + 1`."""

        def around() -> float:
            is_long = generator.random() < self.long_around_share
            return _between(generator, self.long_around_s if is_long else self.around_s)

        def between() -> float:
            is_close = generator.random() < self.close_gap_share
            return _between(generator, self.close_gap_s if is_close else self.gap_s)

        return [around(), *(between() for _ in range(sentences - 1)), around()]

    def __call__(self, samples: np.ndarray, generator: np.random.Generator, babble: Speech | None = None) -> np.ndarray:
        """A recording float32 `(n,)` at 16 kHz as it is heard there, `(n,)` with a peak of at most 0.8.

        Args:
            babble: gives what somebody else says in another language, of any length; None: nobody does.
        """
        if generator.random() < self.clean_share:
            peak = PEAK * 10 ** (_between(generator, self.surroundings.loudness_db) / 20)
            return fit(samples * (peak / max(np.abs(samples).max(initial=0.0), 1e-9)), len(samples))
        sound = samples.astype(np.float64)
        if babble is not None and generator.random() < self.babble_share:
            others = np.zeros(len(sound))
            for _ in range(generator.integers(1, 5)):
                others += np.resize(babble(generator), len(sound))
            sound = add_noise(sound, others, -_between(generator, self.babble_to_speech_db))
        if generator.random() < self.music_share:
            sound = add_noise(sound, music(len(sound), generator), -_between(generator, self.music_to_speech_db))
        sound = self.surroundings(sound, generator)
        if generator.random() < self.clip_share:
            sound = clip(sound, _between(generator, self.clipped))
        if generator.random() < self.codec_share:
            sound = through_codec(sound, sorted(CODECS)[generator.integers(len(CODECS))])
        return fit(np.clip(sound, -1, 1), len(samples))


def lay_out(sentences: Sequence[np.ndarray], gaps_s: Sequence[float]) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Sentences one after the other with their gaps -> samples `(n,)`, and begin and end of each in seconds."""
    parts, times, position = [], [], 0
    for gap_s, sentence in zip(gaps_s, sentences, strict=False):
        silence = round(gap_s * SAMPLE_RATE)
        parts += [np.zeros(silence, np.float32), sentence]
        start = position + silence
        position = start + len(sentence)
        times.append((start / SAMPLE_RATE, position / SAMPLE_RATE))
    parts.append(np.zeros(round(gaps_s[-1] * SAMPLE_RATE), np.float32))
    return np.concatenate(parts), times
