"""The voices of the corpus: `voices.tsv`, and what speaks them.

A voice is a base (Pico, or Kokoro's French voice alone or blended with a speaker of another language) and a timbre:
factors of pitch and formants, which Pico has itself and which WORLD (`scripts.speech.timbre`) gives to Kokoro. The
column `share` says how much of the corpus it speaks, `use` whether it is for training or kept for tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from scripts.speech.audio import to_16khz, trim
from scripts.speech.pico_voice import PicoVoice
from scripts.speech.sounds import generator_of
from scripts.speech.speech_synthesis import read_table
from scripts.speech.timbre import shift

PICO = "pico"
USES = ("train", "test")
# How many sentences of a slow base are kept: a recording in another timbre follows soon.
REMEMBERED = 16


@dataclass(frozen=True)
class Voice:
    """One speaker."""

    name: str
    base: str  # "pico", or the name of a Kokoro voice table
    other: str  # the Kokoro voice that is blended in, "" for none
    blend: float  # its share
    share: float
    pitch: float
    formants: float
    use: str

    @property
    def speaks_slowly(self) -> bool:
        """Whether the base takes about as long to speak as to listen to."""
        return self.base != PICO

    def speaks_as(self, other: Voice) -> bool:
        """Whether the other is this voice in another timbre."""
        return (self.base, self.other, self.blend) == (other.base, other.other, other.blend)


def read_voices(path: Path) -> list[Voice]:
    """The voices of a table.

    Raises:
        SystemExit: no such table, or a row that can't be understood.
    """
    voices = []
    for row in read_table(path, "base", "share", "pitch", "formants", "use"):
        other, _, blend = (row["blend"] or "").partition(":")
        try:
            numbers = [float(row[name]) for name in ("share", "pitch", "formants")]
            voice = Voice(row["id"], row["base"], other, float(blend or 0), *numbers, row["use"])
            if voice.use not in USES or min(numbers) <= 0 or not 0 <= voice.blend < 1:
                raise ValueError(f"use is one of {', '.join(USES)}, numbers are above 0, a blend is below 1")
        except ValueError as error:
            raise SystemExit(f"error: {path}: voice {row['id']}: {error}") from error
        voices.append(voice)
    if not any(voice.use == "train" for voice in voices):
        raise SystemExit(f"error: {path} has no voice for training")
    return voices


class Speakers:
    """Speaks with any of the voices, on one thread.

    Args:
        voices_dir: folder with Kokoro's voice tables (`ff_siwis.bin`, `if_sara.bin` ...); not needed for Pico.
        engine: see `scripts/speech/french_voice.py`.
    """

    def __init__(self, voices_dir: Path | None, engine: str = "onnxruntime"):
        self._voices_dir = voices_dir
        self._engine = engine
        self._pico: PicoVoice | None = None
        self._kokoro: dict[str, object] = {}
        self._kokoro_base = lru_cache(REMEMBERED)(self._speak_kokoro)

    def __call__(self, voice: Voice, text: str, speed: float = 1.0, pitch: float = 1.0) -> np.ndarray:
        """One sentence: float32 `(n,)` at 16 kHz, without silence around it.

        Args:
            speed: above 1 is faster.
            pitch: a further factor; a base of Kokoro's as it is keeps its pitch.
        """
        if voice.base == PICO:
            self._pico = self._pico or PicoVoice()
            return trim(self._pico(text, speed=speed, pitch=voice.pitch * pitch, formants=voice.formants), margin_s=0.0)
        samples = self._kokoro_base(voice.base, voice.other, voice.blend, text, speed)
        if voice.pitch == voice.formants == 1:
            return samples
        return shift(samples, voice.pitch * pitch, voice.formants)

    def _speak_kokoro(self, base: str, other: str, blend: float, text: str, speed: float) -> np.ndarray:
        # Imported here: Pico alone needs neither torch nor onnxruntime.
        from scripts.speech.french_voice import SAMPLE_RATE, FrenchVoice, make_engine
        from scripts.speech.voice_variation import Manner

        if self._voices_dir is None:
            raise ValueError(f"the voice {base} needs Kokoro's voice tables: give their folder with --voices-dir")
        key = f"{base} {other}"
        if key not in self._kokoro:
            accents = {other: self._voices_dir / f"{other}.bin"} if other else {}
            shared = next(iter(self._kokoro.values()), None)
            engine = shared.engine if isinstance(shared, FrenchVoice) else make_engine(self._engine)
            self._kokoro[key] = FrenchVoice(self._voices_dir / f"{base}.bin", accents, engine)
        speaker = self._kokoro[key]
        assert isinstance(speaker, FrenchVoice)
        samples = speaker(text, Manner(speed=speed, accent=other or None, blend=blend))
        return trim(to_16khz(samples, SAMPLE_RATE), margin_s=0.0)


def speed_of(seed: int, voice: Voice, text: str, speeds: tuple[float, float]) -> float:
    """The speed of a recording that begins with this sentence: the same in all timbres of one base."""
    draw = generator_of(seed, voice.base, voice.other, text)
    return round(float(draw.uniform(*speeds)), 3)
