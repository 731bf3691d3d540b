"""Speech of SVOX Pico, a small voice in six languages: over 100 times real time on one thread.

The package `py-nanotts` (Apache-2.0) holds the engine and its voices.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from scripts.command_line import require

PACKAGE = "py_nanotts"
FRENCH = "fr-FR"
OTHER_LANGUAGES = ("de-DE", "en-GB", "en-US", "es-ES", "it-IT")
SAMPLE_RATE = 16000
PLAYED_AT_STEP = 100  # Hz
M_PERTURB = -6  # of glibc's mallopt: memory is filled with a pattern when it is allocated
PATTERN = 85


@contextmanager
def _filled_memory() -> Iterator[None]:
    """Pico reads a little memory that it never wrote: fill it, or the samples differ from call to call (by 1e-4)."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # no glibc: the speech is the same to the ear, not to the bit
        yield
        return
    mallopt(M_PERTURB, PATTERN)
    try:
        yield
    finally:
        mallopt(M_PERTURB, 0)


class PicoVoice:
    """One engine; raises SystemExit if the package is missing."""

    def __init__(self) -> None:
        self._engine = require(PACKAGE).NanoTTS()

    def __call__(
        self, text: str, language: str = FRENCH, speed: float = 1.0, pitch: float = 1.0, formants: float = 1.0
    ) -> np.ndarray:
        """Speech float32 `(n,)` at 16 kHz.

        Args:
            text: a sentence.
            language: one of Pico's six.
            speed: above 1 is faster.
            pitch: factor of the voice's pitch.
            formants: factor of its formants: above 1 a shorter vocal tract (women, children), below 1 a longer one. The
                speech is made slower and lower, and played faster.

        Raises:
            ValueError: the voice said nothing.
        """
        # The engine reads its own markup; a sentence has none.
        with _filled_memory():
            pcm = self._engine.speak(
                text.replace("<", " ").replace(">", " "), voice=language, speed=speed / formants, pitch=pitch / formants
            )
        samples = np.frombuffer(pcm, "<i2").astype(np.float32) / 2**15
        if not samples.any():
            raise ValueError(f"Pico said nothing for {text!r}")
        played_at = round(SAMPLE_RATE * formants / PLAYED_AT_STEP) * PLAYED_AT_STEP
        return samples if played_at == SAMPLE_RATE else require("soxr").resample(samples, played_at, SAMPLE_RATE)
