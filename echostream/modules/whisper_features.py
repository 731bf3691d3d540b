"""Whisper's log-mel features, streaming (Radford et al. 2022, section 2.2).

Spectra of 25 ms of audio every 10 ms, centred on their frame, in 80 bands on Slaney's mel scale, log10, cut off at
80 dB below the loudest frame and brought to about -1 to 1. Whisper takes the loudest frame of its 30 s; a stream cannot
know what is to come, so that here it is the loudest frame so far, and it fades by 10 dB in ``FADE_S`` seconds, lest one
bang raise the floor for an hour.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from echostream.constants import SAMPLE_RATE
from echostream.modules.fbank import NUM_MELS, SHIFT_SAMPLES, WINDOW_SAMPLES
from echostream.modules.front_end import Features
from echostream.modules.state import State

HALF_WINDOW = WINDOW_SAMPLES // 2
LOG_FLOOR = 1e-10
RANGE = 8.0  # log10 of power: 80 dB
QUIETEST_MAXIMUM = -1.0  # as if nothing quieter had been the loudest frame: silence at the start stays at the floor
FADE_S = 30.0
# Slaney's scale: linear below 1 kHz, logarithmic above.
LINEAR_HZ_PER_MEL, BREAK_HZ, LOG_STEP = 200.0 / 3, 1000.0, math.log(6.4) / 27.0


def _hz_of_mel(mel: Tensor) -> Tensor:
    break_mel = BREAK_HZ / LINEAR_HZ_PER_MEL
    return torch.where(
        mel < break_mel, LINEAR_HZ_PER_MEL * mel, BREAK_HZ * torch.exp(LOG_STEP * (mel - break_mel).clamp_min(0.0))
    )


def slaney_mel_banks() -> Tensor:
    """Triangular filters of equal area from 0 to 8000 Hz: ``(201, 80)`` weights per bin of the spectrum."""
    top = SAMPLE_RATE / 2
    top_mel = BREAK_HZ / LINEAR_HZ_PER_MEL + math.log(top / BREAK_HZ) / LOG_STEP
    edges = _hz_of_mel(torch.linspace(0.0, top_mel, NUM_MELS + 2, dtype=torch.float64))
    bins = torch.linspace(0.0, top, HALF_WINDOW + 1, dtype=torch.float64)[:, None]
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    weights = torch.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)).clamp_min(0.0)
    return (weights * 2.0 / (right - left)).float()


@dataclass
class WhisperFeatureState(State):
    """What later frames need.

    Before the first frame ``leftover`` holds the samples as they came; afterwards it begins where the next window does.
    """

    leftover: Tensor  # (n,)
    loudest: Tensor  # (): log10 of the loudest band so far, faded to the last frame
    has_begun: bool = False


class WhisperFeatures(Features):
    """Waveform to Whisper's features; there is no normalisation over a corpus."""

    mel: Tensor
    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mel", slaney_mel_banks(), persistent=False)
        self.register_buffer("window", torch.hann_window(WINDOW_SAMPLES), persistent=False)

    def init_state(self) -> WhisperFeatureState:
        return WhisperFeatureState(self.window.new_zeros(0), self.window.new_full((), QUIETEST_MAXIMUM))

    @staticmethod
    def num_frames(num_samples: int) -> int:
        """Frames of a whole utterance: those whose window has ended."""
        if num_samples <= HALF_WINDOW:
            return 0
        return 1 + (num_samples - HALF_WINDOW) // SHIFT_SAMPLES

    def missing_samples(self, num_features: int, state: WhisperFeatureState) -> int:
        have = state.leftover.size(0)
        if state.has_begun:
            return WINDOW_SAMPLES + (num_features - 1) * SHIFT_SAMPLES - have
        # The first windows reach back behind the start, where the audio is mirrored.
        return max(HALF_WINDOW + (num_features - 1) * SHIFT_SAMPLES, HALF_WINDOW + 1) - have

    def log_mel(self, samples: Tensor) -> Tensor:
        """Features of a whole recording: ``(n,)`` samples in [-1, 1] to ``(T, 80)`` @100 Hz."""
        return self(samples)[0]

    def forward(self, samples: Tensor, state: WhisperFeatureState | None = None) -> tuple[Tensor, WhisperFeatureState]:
        """Features of the windows that are complete with ``samples``.

        Args:
            samples: ``(n,)`` float32 at 16 kHz, any ``n >= 0``.
            state: state after the previous chunk; None for the first one.

        Returns:
            ``(T, 80)`` features @100 Hz and the state for the next chunk.
        """
        state = state or self.init_state()
        audio = torch.cat([state.leftover, samples]) if state.leftover.numel() else samples
        has_begun = state.has_begun
        if not has_begun:
            if audio.size(0) <= HALF_WINDOW:
                return audio.new_zeros(0, NUM_MELS), WhisperFeatureState(audio.clone(), state.loudest)
            audio = torch.cat([audio[1 : HALF_WINDOW + 1].flip(0), audio])
            has_begun = True
        if audio.size(0) < WINDOW_SAMPLES:
            return audio.new_zeros(0, NUM_MELS), WhisperFeatureState(audio.clone(), state.loudest, has_begun)
        frames = audio.unfold(0, WINDOW_SAMPLES, SHIFT_SAMPLES)  # (T, 400)
        spectrum = torch.fft.rfft(frames * self.window)
        power = spectrum.real.square() + spectrum.imag.square()  # (T, 201)
        log_mel = (power @ self.mel).clamp_min(LOG_FLOOR).log10()
        # A maximum that fades by `fade` a frame is a maximum that doesn't, of values that grow by `fade` a frame.
        fade = SHIFT_SAMPLES / SAMPLE_RATE / FADE_S
        growth = fade * torch.arange(1, log_mel.size(0) + 1, device=log_mel.device)
        peaks = (log_mel.amax(dim=1) + growth).cummax(dim=0).values
        loudest = (torch.maximum(peaks, state.loudest) - growth).clamp_min(QUIETEST_MAXIMUM)
        features = (torch.maximum(log_mel, loudest[:, None] - RANGE) + 4.0) / 4.0
        consumed = frames.size(0) * SHIFT_SAMPLES
        return features, WhisperFeatureState(audio[consumed:].clone(), loudest[-1].clone(), has_begun)
