"""Recorded speech as the recipes store it: 16 kHz, mono, 16 bit, trimmed, of even loudness."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from echostream.constants import SAMPLE_RATE
from scripts.files import atomic_path

PEAK = 0.8
MARGIN_S = 0.1


def to_16khz(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Resample float32 `(n,)` to 16 kHz with a band-limited (windowed sinc) filter."""
    # Imported here: a recipe that finds its recordings made must not wait for torch.
    import torch
    from torchaudio.functional import resample

    return resample(torch.from_numpy(np.ascontiguousarray(samples)), sample_rate, SAMPLE_RATE).numpy()


def trim(samples: np.ndarray, threshold: float = 0.02, margin_s: float = MARGIN_S) -> np.ndarray:
    """Cut silence at both ends, keeping `margin_s` seconds of it. `threshold` is relative to the peak.

    Raises:
        ValueError: there is nothing but silence.
    """
    level = np.abs(samples)
    loud = np.flatnonzero(level > threshold * level.max(initial=0.0))
    if not len(loud):
        raise ValueError("the recording is silent")
    margin = round(margin_s * SAMPLE_RATE)
    return samples[max(0, loud[0] - margin) : loud[-1] + 1 + margin]


def speech_pcm(samples: np.ndarray, sample_rate: int, multiple: int = 1) -> np.ndarray:
    """Synthetic speech as it is stored: float `(n,)` -> int16 `(m,)` at 16 kHz, trimmed, of even loudness.

    The length is cut to a multiple of `multiple` samples, so that a file of units of 320 samples ends with a unit.
    Triangular dither of one step replaces digital silence, whose log energy no microphone ever gives.
    """
    speech = trim(to_16khz(np.asarray(samples, np.float32), sample_rate))
    speech = speech[: len(speech) // multiple * multiple]
    speech = speech * (PEAK / np.abs(speech).max())
    generator = np.random.default_rng(len(speech))
    dither = generator.uniform(-0.5, 0.5, (2, len(speech))).sum(0)
    return np.round(speech * 32767 + dither).astype(np.int16)


def write_speech(path: Path, samples: np.ndarray, sample_rate: int, multiple: int = 1) -> int:
    """Store synthetic speech as a 16 kHz wav file, see `speech_pcm`; returns its length in samples."""
    pcm = speech_pcm(samples, sample_rate, multiple)
    with atomic_path(path) as temporary:
        soundfile.write(temporary, pcm, SAMPLE_RATE, subtype="PCM_16")
    return len(pcm)


def read_speech(path: Path) -> np.ndarray:
    """Read a 16 kHz mono file as float32 `(n,)` in [-1, 1].

    Raises:
        ValueError: another sample rate or more than one channel.
    """
    samples, sample_rate = soundfile.read(path, dtype="float32")
    if sample_rate != SAMPLE_RATE or samples.ndim != 1:
        raise ValueError(f"{path}: expected 16 kHz mono audio, found {sample_rate} Hz, shape {samples.shape}")
    return samples
