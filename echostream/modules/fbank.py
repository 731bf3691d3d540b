"""Streaming log-mel filter-bank features.

The features are Kaldi's (25 ms window, 10 ms shift, 80 mel bins, as fairseq computes them), normalised by a global
mean and variance. A frame depends on its own 400 samples only, so that chunks of a waveform give exactly the frames of
the whole waveform. The state holds the samples that later frames still need.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from echostream.constants import SAMPLE_RATE
from echostream.modules.front_end import Features
from echostream.modules.state import State

WINDOW_SAMPLES = 400  # 25 ms
SHIFT_SAMPLES = 160  # 10 ms
FFT_SAMPLES = 512
NUM_MELS = 80
LOWEST_HZ = 20.0
PREEMPHASIS = 0.97
INT16_SCALE = 2.0**15  # Kaldi's filter banks are defined on 16-bit integers
LOG_FLOOR = torch.finfo(torch.float32).eps


def num_frames(num_samples: int) -> int:
    """Number of whole 25 ms windows in ``num_samples`` (Kaldi's ``snip_edges``)."""
    return 0 if num_samples < WINDOW_SAMPLES else 1 + (num_samples - WINDOW_SAMPLES) // SHIFT_SAMPLES


def mel_banks() -> Tensor:
    """Kaldi's triangular filters, equally spaced in mel from 20 Hz to half the sample rate.

    Returns:
        ``(257, 80)`` filter weights per bin of the spectrum; those of the last bin, half the sample rate, are zero.
    """
    lowest, highest = (1127.0 * math.log(1.0 + hz / 700.0) for hz in (LOWEST_HZ, SAMPLE_RATE / 2))
    spacing = (highest - lowest) / (NUM_MELS + 1)
    band = torch.arange(NUM_MELS)[:, None]
    left, centre, right = lowest + band * spacing, lowest + (band + 1.0) * spacing, lowest + (band + 2.0) * spacing
    bin_hz = SAMPLE_RATE / FFT_SAMPLES * torch.arange(FFT_SAMPLES / 2)
    mel = (1127.0 * (1.0 + bin_hz / 700.0).log())[None]
    weights = torch.minimum((mel - left) / (centre - left), (right - mel) / (right - centre)).clamp_min(0.0)
    return nn.functional.pad(weights, (0, 1)).t().contiguous()


@dataclass
class FbankState(State):
    """Samples of incomplete windows, ``(n,)``, ``n < WINDOW_SAMPLES``."""

    leftover: Tensor


class OnlineFbank(Features):
    """Waveform to normalised log-mel features.

    The mean and the standard deviation are buffers, so that a checkpoint contains the normalisation it was trained
    with. Until :meth:`set_cmvn` is called, features are not normalised.
    """

    mel: Tensor
    window: Tensor
    cmvn_mean: Tensor
    cmvn_std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mel", mel_banks(), persistent=False)
        povey = torch.hann_window(WINDOW_SAMPLES, periodic=False).pow(0.85)
        self.register_buffer("window", povey, persistent=False)
        self.register_buffer("cmvn_mean", torch.zeros(NUM_MELS))
        self.register_buffer("cmvn_std", torch.ones(NUM_MELS))

    def set_cmvn(self, mean: Tensor, std: Tensor) -> None:
        """Set the global mean and standard deviation, each of shape ``(80,)``.

        Raises:
            ValueError: another shape, a non-finite value, or a standard deviation that isn't positive.
        """
        for name, value in (("mean", mean), ("std", std)):
            if value.shape != (NUM_MELS,) or not bool(torch.isfinite(value).all()):
                raise ValueError(f"CMVN {name} must be {NUM_MELS} finite numbers, got shape {tuple(value.shape)}")
        if not bool((std > 0).all()):
            raise ValueError("CMVN std must be positive in every mel bin")
        self.cmvn_mean.copy_(mean)
        self.cmvn_std.copy_(std)

    def init_state(self) -> FbankState:
        return FbankState(leftover=self.window.new_zeros(0))

    def missing_samples(self, num_features: int, state: FbankState) -> int:
        return WINDOW_SAMPLES + (num_features - 1) * SHIFT_SAMPLES - state.leftover.size(0)

    def log_mel(self, samples: Tensor) -> Tensor:
        """Kaldi's log-mel features of all complete windows: ``(n,)`` samples in [-1, 1] to ``(T, 80)``."""
        if samples.size(0) < WINDOW_SAMPLES:
            return samples.new_zeros(0, NUM_MELS)
        frames = samples.unfold(0, WINDOW_SAMPLES, SHIFT_SAMPLES) * INT16_SCALE  # (T, 400)
        frames = frames - frames.mean(1, keepdim=True)
        previous = torch.cat([frames[:, :1], frames[:, :-1]], dim=1)
        spectrum = torch.fft.rfft((frames - PREEMPHASIS * previous) * self.window, n=FFT_SAMPLES)
        power = spectrum.real.square() + spectrum.imag.square()  # (T, 257)
        return (power @ self.mel).clamp_min(LOG_FLOOR).log()

    def forward(self, samples: Tensor, state: FbankState | None = None) -> tuple[Tensor, FbankState]:
        """Features of the windows that are complete with ``samples``.

        Args:
            samples: ``(n,)`` float32 at 16 kHz, any ``n >= 0``.
            state: state after the previous chunk; None for the first one.

        Returns:
            ``(T, 80)`` normalised features @100 Hz and the state for the next chunk.
        """
        if state is not None and state.leftover.numel():
            samples = torch.cat([state.leftover, samples])
        features = (self.log_mel(samples) - self.cmvn_mean) / self.cmvn_std
        consumed = features.size(0) * SHIFT_SAMPLES
        return features, FbankState(leftover=samples[consumed:].clone())
