"""HiFi-GAN's multi-period and multi-scale discriminators (Kong et al. 2020). Needed in training only."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

PERIODS = (2, 3, 5, 7, 11)
SCALES = 3
SLOPE = 0.1


class Judgement(NamedTuple):
    """Output of one discriminator: a score, near one for real speech, and the activations of its layers."""

    score: Tensor
    features: list[Tensor]


class _Stack(nn.Module):
    def __init__(self, layers: list[nn.Module], last: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(weight_norm(layer) for layer in layers)
        self.last = weight_norm(last)

    def forward(self, x: Tensor) -> Judgement:
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE)
            features.append(x)
        return Judgement(self.last(x), features)


class PeriodDiscriminator(nn.Module):
    """Discriminator over every ``period``-th sample: the signal is folded into an image of width ``period``."""

    def __init__(self, period: int, channels: int) -> None:
        super().__init__()
        self.period = period
        widths = [1, channels, 4 * channels, 16 * channels, 32 * channels]
        layers: list[nn.Module] = [nn.Conv2d(a, b, (5, 1), (3, 1), (2, 0)) for a, b in pairwise(widths)]
        layers.append(nn.Conv2d(widths[-1], widths[-1], (5, 1), padding=(2, 0)))
        self.stack = _Stack(layers, nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, wave: Tensor) -> Judgement:
        """Score waveforms ``(B, samples)``."""
        wave = F.pad(wave, (0, -wave.size(1) % self.period))
        return self.stack(wave.unflatten(1, (-1, self.period)).unsqueeze(1))


class ScaleDiscriminator(nn.Module):
    """Discriminator over the waveform at one scale: at full rate or after average pooling."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        c = channels
        shapes = [  # in, out, kernel, stride, groups
            (1, 4 * c, 15, 1, 1),
            (4 * c, 4 * c, 41, 2, 4),
            (4 * c, 8 * c, 41, 2, 16),
            (8 * c, 16 * c, 41, 4, 16),
            (16 * c, 32 * c, 41, 4, 16),
            (32 * c, 32 * c, 5, 1, 1),
        ]
        layers: list[nn.Module] = [nn.Conv1d(i, o, k, s, k // 2, groups=g) for i, o, k, s, g in shapes]
        self.stack = _Stack(layers, nn.Conv1d(32 * c, 1, 3, padding=1))

    def forward(self, wave: Tensor) -> Judgement:
        """Score waveforms ``(B, samples)``."""
        return self.stack(wave.unsqueeze(1))


class Discriminators(nn.Module):
    """All period and scale discriminators.

    Args:
        channels: width of the narrowest layer; 32 in the paper.
    """

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.periods = nn.ModuleList(PeriodDiscriminator(period, channels) for period in PERIODS)
        self.scales = nn.ModuleList(ScaleDiscriminator(channels) for _ in range(SCALES))

    def forward(self, wave: Tensor) -> list[Judgement]:
        """One judgement of the waveforms ``(B, samples)`` per discriminator."""
        judgements = [disc(wave) for disc in self.periods]
        for disc in self.scales:
            judgements.append(disc(wave))
            wave = F.avg_pool1d(wave.unsqueeze(1), 4, 2, padding=2).squeeze(1)
        return judgements
