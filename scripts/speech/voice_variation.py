"""How each recording of a corpus differs: speed, pitch and accent, drawn from a seed and the utterance's id.

A corpus of one synthetic voice teaches a model that voice. Here every utterance gets a speed and a pitch of its own,
and a share of them a voice blended with that of a speaker of another language, which gives an accent. What an utterance
gets depends on nothing but seed and id: not on the order of work, nor on what else there is to speak.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SPEEDS = (0.85, 1.2)  # of speech, as heard
SEMITONES = (-2.0, 2.0)
BLENDS = (0.25, 0.5)  # share of the other voice
PITCH_STEP_HZ = 200  # sample rates with a common divisor make the resampling filter short


@dataclass(frozen=True)
class Manner:
    """How one utterance is spoken."""

    speed: float = 1.0  # as heard; 2: twice as fast
    semitones: float = 0.0
    accent: str | None = None  # name of the voice that is blended in
    blend: float = 0.0  # its share

    def playback_rate(self, sample_rate: int) -> int:
        """Pretended sample rate (Hz) of speech synthesised at `sample_rate`: higher makes it higher and shorter."""
        return round(sample_rate * 2 ** (self.semitones / 12) / PITCH_STEP_HZ) * PITCH_STEP_HZ

    def synthesis_speed(self, sample_rate: int) -> float:
        """Speed to ask of the voice so that the speech has `speed` after it is played at `playback_rate`."""
        return self.speed * sample_rate / self.playback_rate(sample_rate)


@dataclass(frozen=True)
class Variation:
    """A recipe for manners: the same for the same seed, voices and id."""

    seed: int
    voices: tuple[str, ...] = ()  # for accents
    accent_share: float = 0.0
    only: str | None = None  # every utterance in an even blend with this voice

    def __call__(self, utterance_id: str) -> Manner:
        draw = random.Random(f"{self.seed} {utterance_id}")
        speed, semitones = draw.uniform(*SPEEDS), draw.uniform(*SEMITONES)
        if self.only:
            return Manner(speed, semitones, self.only, BLENDS[1])
        if not self.voices or draw.random() >= self.accent_share:
            return Manner(speed, semitones)
        return Manner(speed, semitones, draw.choice(self.voices), draw.uniform(*BLENDS))


def list_voices(folder: Path, only: str | None = None, without: Sequence[str | None] = ()) -> dict[str, Path]:
    """Voice tables (`.bin`, `.npy`) of a folder by name, sorted; or only one of them.

    Raises:
        SystemExit: none are left, or there is none of that name.
    """
    tables = {path.stem: path for path in sorted(folder.glob("*")) if path.suffix in (".bin", ".npy")}
    voices = {name: path for name, path in tables.items() if name not in without and only in (None, name)}
    if only and not voices:
        raise SystemExit(f"error: no voice {only} in {folder}; there are: {' '.join(tables)}")
    if not voices:
        raise SystemExit(f"error: no voice tables (.bin, .npy) in {folder}; give another --voices-dir")
    return voices


def share_of_one(text: str) -> float:
    """Type of a command-line option from 0 to 1."""
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 1")
    return number
