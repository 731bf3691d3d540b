"""HiFi-GAN's generator (Kong et al. 2020): transposed convolutions, each followed by residual dilated ones.

Parameter names and arithmetic are those of the published unit vocoders, with weight norm already multiplied out.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 0.1
EDGE_KERNEL = 7  # of the first and the last convolution


class ResBlock(nn.Module):
    """Pairs of a dilated and a plain convolution, each pair with a shortcut; keeps the length."""

    def __init__(self, channels: int, kernel_size: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(
            nn.Conv1d(channels, channels, kernel_size, dilation=d, padding=(kernel_size - 1) * d // 2)
            for d in dilations
        )
        self.convs2 = nn.ModuleList(
            nn.Conv1d(channels, channels, kernel_size, padding=kernel_size // 2) for _ in dilations
        )
        # samples on either side that reach an output sample
        self.radius = sum((d + 1) * (kernel_size - 1) // 2 for d in dilations)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, T)`` -> ``(B, C, T)``."""
        for dilated, plain in zip(self.convs1, self.convs2, strict=True):
            x = x + plain(F.leaky_relu(dilated(F.leaky_relu(x, SLOPE)), SLOPE))
        return x


class HiFiGANGenerator(nn.Module):
    """Upsamples feature frames to a waveform.

    Args:
        input_dim: features a frame.
        rates: upsampling of each stage; their product is the samples of a frame.
        kernel_sizes: of the transposed convolutions.
        channels: of the first convolution; halved by each stage.
        resblock_kernel_sizes: one residual block for each, their outputs averaged.
        resblock_dilation_sizes: dilations of each residual block.

    Raises:
        ValueError: if a stage would not make exactly ``rate`` samples of one.
    """

    def __init__(
        self,
        input_dim: int,
        rates: Sequence[int],
        kernel_sizes: Sequence[int],
        channels: int,
        resblock_kernel_sizes: Sequence[int],
        resblock_dilation_sizes: Sequence[Sequence[int]],
    ) -> None:
        super().__init__()
        if len(rates) != len(kernel_sizes) or any(
            k < r or (k - r) % 2 for r, k in zip(rates, kernel_sizes, strict=False)
        ):
            raise ValueError(
                f"each of the upsampling rates {list(rates)} needs a kernel that is larger by an even number, "
                f"not {list(kernel_sizes)}"
            )
        if len(resblock_kernel_sizes) != len(resblock_dilation_sizes):
            raise ValueError("resblock_kernel_sizes and resblock_dilation_sizes differ in length")
        self.conv_pre = nn.Conv1d(input_dim, channels, EDGE_KERNEL, padding=EDGE_KERNEL // 2)
        widths = [channels // 2**i for i in range(len(rates) + 1)]
        self.ups = nn.ModuleList(
            nn.ConvTranspose1d(wide, narrow, kernel, rate, padding=(kernel - rate) // 2)
            for (wide, narrow), kernel, rate in zip(pairwise(widths), kernel_sizes, rates, strict=True)
        )
        self.resblocks = nn.ModuleList(
            ResBlock(width, kernel, dilations)
            for width in widths[1:]
            for kernel, dilations in zip(resblock_kernel_sizes, resblock_dilation_sizes, strict=True)
        )
        self.conv_post = nn.Conv1d(widths[-1], 1, EDGE_KERNEL, padding=EDGE_KERNEL // 2)
        self.num_blocks = len(resblock_kernel_sizes)
        for module in (*self.ups, *self.resblocks, self.conv_post):
            module.apply(_init_weights)

    def generate(self, x: Tensor) -> Tensor:
        """Feature frames ``(B, input_dim, F)`` -> samples ``(B, F * hop)``."""
        x = self.conv_pre(x)
        for stage, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, SLOPE))
            blocks = self.resblocks[stage * self.num_blocks : (stage + 1) * self.num_blocks]
            x = torch.stack([block(x) for block in blocks]).sum(0) / self.num_blocks
        # torch's default slope here, unlike everywhere else: the published weights were trained with it
        return torch.tanh(self.conv_post(F.leaky_relu(x))).squeeze(1)

    def receptive_field(self) -> tuple[int, int]:
        """Feature frames before and after a frame that its samples depend on."""
        hop = 1
        for up in self.ups:
            hop *= up.stride[0]
        first, last = -(EDGE_KERNEL // 2), hop - 1 + EDGE_KERNEL // 2
        for stage in reversed(range(len(self.ups))):
            radius = max(
                block.radius for block in self.resblocks[stage * self.num_blocks : (stage + 1) * self.num_blocks]
            )
            up = self.ups[stage]
            (rate,), (kernel,), (padding,) = up.stride, up.kernel_size, up.padding
            # output o is made of the inputs i with 0 <= o + padding - i * rate < kernel
            first = -((kernel - 1 - (first - radius) - padding) // rate)
            last = (last + radius + padding) // rate
        return EDGE_KERNEL // 2 - first, last + EDGE_KERNEL // 2


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
        nn.init.normal_(module.weight, 0.0, 0.01)
