"""HiFi-GAN's generator (Kong et al. 2020): transposed convolutions, each followed by residual dilated convolutions.

Parameter names and arithmetic are those of the published unit vocoders, with weight norm fused into the weights.
Signals have the layout ``(B, T, C)``; they are convolved as images of height one in the channels-last memory format,
which is fastest on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from echostream.modules.module_list import TypedModuleList

SLOPE = 0.1
EDGE_KERNEL = 7  # kernel size of the first and the last convolution


class ConvolutionCache:
    """Left contexts of all convolutions at the boundary between two steps of a stream.

    A step computes the signal from the previous boundary to the next one, plus the look-ahead that the samples before
    the next boundary need. Left of the previous boundary, convolutions see the inputs cached in the step before; after
    the last known frame they see zeros, as at the end of a whole signal.

    Args:
        inputs: left context of each convolution at the previous boundary, ``(1, n, C)`` each, in the order in which the
            convolutions run; empty in the first step. The list is not changed.
        frames: number of feature frames between the two boundaries.

    Attributes:
        inputs: left context of each convolution that has run at the next boundary, before that at the previous one.
        position: position of the next boundary in the current signal, in samples at its current rate.
    """

    def __init__(self, inputs: list[Tensor], frames: int) -> None:
        self.inputs, self.position = list(inputs), frames
        self._index = 0

    def extend(self, x: Tensor, past: int, future: int = 0) -> Tensor:
        """Prepend ``past`` cached inputs to ``x`` ``(1, T, C)`` and append ``future`` zeros."""
        if self._index == len(self.inputs):
            self.inputs.append(x.new_zeros(1, past, x.size(2)))
        x = torch.cat([self.inputs[self._index], x, x.new_zeros(1, future, x.size(2))], dim=1)
        self.inputs[self._index] = x[:, self.position : self.position + past].clone()
        self._index += 1
        return x


class Conv(nn.Conv1d):
    """Convolution whose output is as long as its input."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, dilation: int = 1) -> None:
        edge = (kernel_size - 1) * dilation // 2
        super().__init__(in_channels, out_channels, kernel_size, padding=edge, dilation=dilation)
        self.edge = edge
        _put_channels_last(self.weight)

    def forward(self, x: Tensor, cache: ConvolutionCache | None = None) -> Tensor:
        """``(B, T, in_channels)`` -> ``(B, T, out_channels)``."""
        padding = self.edge
        if cache is not None:
            x, padding = cache.extend(x, padding, padding), 0
        picture, kernel = x.transpose(1, 2).unsqueeze(2), self.weight.unsqueeze(2)
        y = F.conv2d(picture, kernel, self.bias, padding=(0, padding), dilation=(1, *self.dilation))
        return y.squeeze(2).transpose(1, 2)


class Upsampling(nn.ConvTranspose1d):
    """Transposed convolution that upsamples by the factor ``rate``."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, rate: int) -> None:
        edge = (kernel_size - rate) // 2
        super().__init__(in_channels, out_channels, kernel_size, rate, padding=edge)
        self.rate, self.edge = rate, edge
        # Output o depends on the inputs i with 0 <= o + edge - i * rate < kernel_size.
        self.past = (kernel_size - 1 - edge) // rate
        _put_channels_last(self.weight)

    def upsample(self, x: Tensor, cache: ConvolutionCache | None = None) -> Tensor:
        """``(B, T, in_channels)`` -> ``(B, T * rate, out_channels)``.

        ``forward`` is torch's own, with the layout ``(B, C, T)``.
        """
        surplus = 0
        if cache is not None:
            x, surplus = cache.extend(x, self.past), self.past * self.rate
            cache.position *= self.rate
        picture, kernel = x.transpose(1, 2).unsqueeze(2), self.weight.unsqueeze(2)
        y = F.conv_transpose2d(picture, kernel, self.bias, (1, self.rate), (0, self.edge))
        return y.squeeze(2).transpose(1, 2)[:, surplus:]

    def inputs_of(self, count: int) -> int:
        """How many inputs after a boundary the first ``count`` outputs after that boundary depend on."""
        return (count - 1 + self.edge) // self.rate + 1


class ResBlock(nn.Module):
    """Pairs of a dilated and an undilated convolution, each pair with a residual connection; keeps the length."""

    def __init__(self, channels: int, kernel_size: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.convs1: TypedModuleList[Conv] = TypedModuleList(
            Conv(channels, channels, kernel_size, dilation) for dilation in dilations
        )
        self.convs2: TypedModuleList[Conv] = TypedModuleList(Conv(channels, channels, kernel_size) for _ in dilations)
        # receptive field of an output sample on either side, in samples
        self.radius = sum((d + 1) * (kernel_size - 1) // 2 for d in dilations)

    def forward(self, x: Tensor, cache: ConvolutionCache | None = None) -> Tensor:
        """``(B, T, C)`` -> ``(B, T, C)``."""
        for dilated, plain in zip(self.convs1, self.convs2, strict=True):
            y = dilated(F.leaky_relu(x, SLOPE), cache)
            x = x + plain(F.leaky_relu_(y, SLOPE), cache)
        return x


class HiFiGANGenerator(nn.Module):
    """Upsamples feature frames to a waveform.

    Args:
        input_dim: size of a feature frame.
        rates: upsampling factor of each stage; their product is the number of samples per frame.
        kernel_sizes: kernel size of the transposed convolution of each stage.
        channels: channels of the first convolution; every stage halves them.
        resblock_kernel_sizes: kernel sizes of the parallel residual blocks of a stage, whose outputs are averaged.
        resblock_dilation_sizes: dilations of each residual block.

    Attributes:
        reaches: look-ahead of the samples before a boundary: in feature frames, then in the output samples of each
            upsampling.

    Raises:
        ValueError: if the output of a stage would not be exactly ``rate`` times as long as its input.
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
        self.conv_pre = Conv(input_dim, channels, EDGE_KERNEL)
        widths = [channels // 2**i for i in range(len(rates) + 1)]
        self.ups: TypedModuleList[Upsampling] = TypedModuleList(
            Upsampling(wide, narrow, kernel, rate)
            for (wide, narrow), kernel, rate in zip(pairwise(widths), kernel_sizes, rates, strict=True)
        )
        self.resblocks: TypedModuleList[ResBlock] = TypedModuleList(
            ResBlock(width, kernel, dilations)
            for width in widths[1:]
            for kernel, dilations in zip(resblock_kernel_sizes, resblock_dilation_sizes, strict=True)
        )
        self.conv_post = Conv(widths[-1], 1, EDGE_KERNEL)
        self.num_blocks = len(resblock_kernel_sizes)
        self.receptive_frames = self._count_receptive_frames()
        for module in (*self.ups, *self.resblocks, self.conv_post):
            module.apply(_init_weights)

    def generate(self, x: Tensor, cache: ConvolutionCache | None = None) -> Tensor:
        """Feature frames ``(B, F, input_dim)`` -> samples ``(B, F * hop)``.

        With a ``cache``, which needs a batch of one, frames and samples start at the previous boundary. The samples
        after the next boundary are incomplete and must be discarded.
        """
        x = self.conv_pre(x, cache)
        for stage, up in enumerate(self.ups):
            x = up.upsample(F.leaky_relu_(x, SLOPE), cache)
            if cache is not None:
                x = x[:, : cache.position + self.receptive_frames[stage + 1]]
            x = sum(block(x, cache) for block in self._blocks(stage)) / self.num_blocks
        # Here, unlike everywhere else, the slope is torch's default: the published weights were trained with it.
        return torch.tanh(self.conv_post(F.leaky_relu_(x), cache)).squeeze(2)

    def _blocks(self, stage: int) -> list[ResBlock]:
        return list(self.resblocks)[stage * self.num_blocks : (stage + 1) * self.num_blocks]

    def _count_receptive_frames(self) -> list[int]:
        reach, reaches = EDGE_KERNEL // 2, []
        for stage in reversed(range(len(self.ups))):
            reach += max(block.radius for block in self._blocks(stage))
            reaches.append(reach)
            reach = self.ups.item(stage).inputs_of(reach)
        return [reach + EDGE_KERNEL // 2, *reversed(reaches)]


def _put_channels_last(weight: Tensor) -> None:
    """Store a kernel ``(a, b, k)`` channels-last; otherwise every call of the convolution would copy it."""
    weight.data = weight.data.transpose(1, 2).contiguous().transpose(1, 2)


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
        nn.init.normal_(module.weight, 0.0, 0.01)
