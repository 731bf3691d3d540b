"""Products of matrices in a lower precision, chosen when a model is loaded; everything else stays in float32.

A step of a stream is bound by reading the weights of its linear layers, and by their products. In bfloat16 they take
half the memory, and processors with AVX512-BF16 or AMX, and GPUs, multiply them several times as fast. Norms, softmax,
features, sums of a residual and all states stay in float32, so that states have the same form in every precision.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from echostream.constants import PRECISIONS
from echostream.modules.transformer import CrossAttention


class RoundedLinear(nn.Linear):
    """A linear layer whose product is computed in the type of its weights, for inputs and results in float32."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x.to(self.weight.dtype), self.weight, self.bias).to(x.dtype)


def precision_named(name: str) -> torch.dtype:
    """The type that ``name``, one of ``PRECISIONS``, stands for.

    Raises:
        ValueError: no such precision.
    """
    if name not in PRECISIONS:
        raise ValueError(f"precision '{name}' is none of {', '.join(PRECISIONS)}")
    return cast("torch.dtype", getattr(torch, name))


def round_linear_layers(module: nn.Module, dtype: torch.dtype) -> int:
    """Let the linear layers in ``module`` compute in ``dtype``; how many there are.

    A cross-attention's keys and values stay as they are, since it multiplies by their weights itself.
    """
    if dtype == torch.float32:
        return 0
    cross = [part for part in module.modules() if isinstance(part, CrossAttention)]
    apart = {id(layer) for part in cross for layer in (part.key, part.value)}
    layers = [layer for layer in module.modules() if type(layer) is nn.Linear and id(layer) not in apart]
    for layer in layers:
        layer.__class__ = RoundedLinear
        layer.to(dtype)
    return len(layers)


def full_precision_weight(module: nn.Module) -> Tensor | None:
    """A weight that is not one of a :class:`RoundedLinear`; None if there is none."""
    for part in module.modules():
        if not isinstance(part, RoundedLinear):
            for weight in part.parameters(recurse=False):
                return cast("Tensor", weight)
    return None


def computes_fast(dtype: torch.dtype, device: str) -> bool:
    """Whether a processor has instructions for products in ``dtype``; taken for granted of other devices."""
    if dtype == torch.float32 or torch.device(device).type != "cpu":
        return True
    if dtype == torch.float16:
        return bool(torch.cpu._is_amx_fp16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
