"""Log-mel features as fairseq's speech data loaders read them: an uncompressed zip of .npy, addressed by byte."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from audio import SAMPLE_RATE
from recipe import atomic_path
from torchaudio.compliance import kaldi

MEL_BINS = 80
# A fixed date makes the same features give the same file.
DATE = (1980, 1, 1, 0, 0, 0)


def log_mel(samples: np.ndarray) -> np.ndarray:
    """Kaldi filter banks, 25 ms windows every 10 ms, no dither: float32 `(n,)` in [-1, 1] -> `(frames, 80)`.

    Kaldi expects the range of 16-bit integers.
    """
    waveform = torch.from_numpy(samples)[None] * 2**15
    return kaldi.fbank(waveform, num_mel_bins=MEL_BINS, sample_frequency=SAMPLE_RATE).numpy()


def write_archive(path: Path, features: Iterable[tuple[str, np.ndarray]]) -> dict[str, str]:
    """Store arrays; returns for each id its address `<file name>:<offset>:<length>`, relative to the zip's folder."""
    addresses = {}
    with (
        atomic_path(path) as temporary,
        temporary.open("wb") as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive,
    ):
        for name, array in features:
            buffer = io.BytesIO()
            np.save(buffer, np.asarray(array, np.float32))
            data = buffer.getvalue()
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", DATE), data)
            # Nothing follows a stored member's data until the next member: it ends where the file ends now.
            addresses[name] = f"{path.name}:{file.tell() - len(data)}:{len(data)}"
    return addresses


def write_cmvn(path: Path, features: Iterable[np.ndarray]) -> None:
    """Mean and standard deviation of each mel bin over all frames, as fairseq's `global_cmvn` transform reads them."""
    frames = np.concatenate(list(features)).astype(np.float64)
    std = np.sqrt(np.maximum(frames.var(0), 1e-8))
    with atomic_path(path) as temporary:
        np.savez(temporary, mean=frames.mean(0).astype(np.float32), std=std.astype(np.float32))
