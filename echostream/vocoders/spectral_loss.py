"""Reconstruction loss of vocoders: multi-resolution STFT (Yamamoto et al. 2020) and log-mel."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchaudio.functional import melscale_fbanks

# Spectral magnitudes below this are silence; the logarithm is clamped here so that the loss ignores their differences.
FLOOR = 1e-5


class SpectralLoss(nn.Module):
    """Perceptual distance between two waveforms: it compares their spectra instead of their samples.

    Args:
        sample_rate: sample rate in Hz.
        sizes: FFT sizes of the resolutions in samples; the hop is a quarter of the size.
        mel_size: the one of ``sizes`` from which the mel spectrum is computed.
        mels: number of mel bands.
        mel_weight: weight of the log-mel distance.
    """

    filters: Tensor  # (mel_size / 2 + 1, mels)

    def __init__(
        self,
        sample_rate: int,
        sizes: tuple[int, ...] = (256, 512, 1024),
        mel_size: int = 1024,
        mels: int = 80,
        mel_weight: float = 2.0,
    ) -> None:
        super().__init__()
        self.sizes, self.mel_size, self.mel_weight = sizes, mel_size, mel_weight
        for size in sizes:
            self.register_buffer(f"window_{size}", torch.hann_window(size), persistent=False)
        filters = melscale_fbanks(mel_size // 2 + 1, 0.0, sample_rate / 2, mels, sample_rate)
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, made: Tensor, wanted: Tensor) -> Tensor:
        """Scalar loss between synthesised waveforms ``made`` and references ``wanted``, both ``(B, samples)``."""
        total = made.new_zeros(())
        for size in self.sizes:
            a, b = self._magnitude(made, size), self._magnitude(wanted, size)
            convergence = (a - b).norm() / b.norm().clamp(min=FLOOR)
            total = total + (convergence + F.l1_loss(_log(a), _log(b))) / len(self.sizes)
            if size == self.mel_size:
                mel = F.l1_loss(_log(a.transpose(1, 2) @ self.filters), _log(b.transpose(1, 2) @ self.filters))
                total = total + self.mel_weight * mel
        return total

    def mel_distance_db(self, made: Tensor, wanted: Tensor) -> float:
        """Mean difference of the log-mel spectra of two waveforms ``(samples,)``, in decibels."""
        a, b = (_log(self._magnitude(x[None], self.mel_size).transpose(1, 2) @ self.filters) for x in (made, wanted))
        return 20 / math.log(10) * F.l1_loss(a, b).item()

    def _magnitude(self, wave: Tensor, size: int) -> Tensor:
        window = self.get_buffer(f"window_{size}")
        spectrum = torch.stft(wave, size, size // 4, window=window, return_complex=True, pad_mode="constant")
        # Not abs(), whose gradient is undefined where the spectrum is zero.
        return (spectrum.real.square() + spectrum.imag.square() + FLOOR**2).sqrt()


def _log(magnitude: Tensor) -> Tensor:
    return magnitude.clamp(min=FLOOR).log()
