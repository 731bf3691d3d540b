"""Another speaker from the same recording: WORLD takes pitch and vocal tract apart and puts them together shifted.

Morise, Yokomori and Ozawa, "WORLD: a vocoder-based high-quality speech synthesis system" (2016), through `pyworld`.
"""

from __future__ import annotations

import warnings
from types import ModuleType

import numpy as np

from scripts.command_line import require
from scripts.speech.audio import SAMPLE_RATE


def world() -> ModuleType:
    """The package `pyworld`, without what it warns of at every import."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its use of pkg_resources
        return require("pyworld")


def shift(samples: np.ndarray, pitch: float, formants: float) -> np.ndarray:
    """Speech float32 `(n,)` at 16 kHz with all frequencies of its pitch and of its formants multiplied -> `(n,)`.

    Formants above 1 belong to a shorter vocal tract (women, children), below 1 to a longer one.
    """
    if pitch == formants == 1:
        return samples
    vocoder = world()
    speech = np.ascontiguousarray(samples, np.float64)
    rough, times = vocoder.dio(speech, SAMPLE_RATE)
    f0 = vocoder.stonemask(speech, rough, times, SAMPLE_RATE)
    envelope = vocoder.cheaptrick(speech, f0, times, SAMPLE_RATE)  # (frames, bins)
    aperiodicity = vocoder.d4c(speech, f0, times, SAMPLE_RATE)
    bins = envelope.shape[1]
    # What was at bin b comes to bin b * formants; above the last known bin the envelope goes on level.
    source = np.minimum(np.arange(bins) / formants, bins - 1)
    low = np.minimum(source.astype(int), bins - 2)
    weight = source - low
    envelope = np.exp((1 - weight) * np.log(envelope[:, low]) + weight * np.log(envelope[:, low + 1]))
    aperiodicity = (1 - weight) * aperiodicity[:, low] + weight * aperiodicity[:, low + 1]
    shifted = vocoder.synthesize(
        f0 * pitch, np.ascontiguousarray(envelope), np.ascontiguousarray(aperiodicity), SAMPLE_RATE
    )
    return shifted[: len(samples)].astype(np.float32)
