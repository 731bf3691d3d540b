"""What speech goes through on its way: telephone codecs, lossy formats at low rates, an amplifier that clips.

The codecs are libsndfile's, through `soundfile`: mu-law and GSM 06.10 at 8 kHz, MP3 and Opus at 17 kbit/s.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import soundfile

from scripts.command_line import require
from scripts.speech.audio import SAMPLE_RATE

TELEPHONE_RATE = 8000


@dataclass(frozen=True)
class Codec:
    """How `soundfile` writes it: compression goes from 0, best, to 1, smallest; None where there is no choice."""

    sample_rate: int
    format: str
    subtype: str
    compression: float | None = None
    bitrate_mode: str | None = None


CODECS = {
    "mu-law": Codec(TELEPHONE_RATE, "WAV", "ULAW"),
    "gsm": Codec(TELEPHONE_RATE, "WAV", "GSM610"),
    "mp3": Codec(SAMPLE_RATE, "MP3", "MPEG_LAYER_III", 0.95, "AVERAGE"),
    "opus": Codec(SAMPLE_RATE, "OGG", "OPUS", 0.95),
}


def through_codec(samples: np.ndarray, codec: str) -> np.ndarray:
    """Speech `(n,)` at 16 kHz in [-1, 1] as it comes out of one of `CODECS` -> float32 `(n,)`, in its place in time.

    Raises:
        KeyError: no such codec.
    """
    resample = require("soxr").resample
    settings = CODECS[codec]
    sent = samples.astype(np.float32)
    if settings.sample_rate != SAMPLE_RATE:
        sent = resample(sent, SAMPLE_RATE, settings.sample_rate)
    packed = io.BytesIO()
    soundfile.write(
        packed,
        sent,
        settings.sample_rate,
        settings.subtype,
        format=settings.format,
        compression_level=settings.compression,
        bitrate_mode=settings.bitrate_mode,
    )
    packed.seek(0)
    received, rate = soundfile.read(packed, dtype="float32")
    if rate != SAMPLE_RATE:
        received = resample(received, rate, SAMPLE_RATE)
    return fit(received, len(samples))


def fit(samples: np.ndarray, count: int) -> np.ndarray:
    """Cut to `count` samples, or continue with silence."""
    return np.pad(samples[:count], (0, max(0, count - len(samples)))).astype(np.float32)


def clip(samples: np.ndarray, share: float) -> np.ndarray:
    """Overdrive `(n,)` so that this share of the samples above -40 dB reaches the limit; the peak stays as it was."""
    level = np.abs(samples)
    loud = level[level > 0.01 * level.max(initial=0.0)]
    if not len(loud):
        return samples
    limit = np.quantile(loud, 1 - share)
    return np.clip(samples, -limit, limit) * (level.max() / max(limit, 1e-9))
