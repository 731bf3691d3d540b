"""Weights of earlier versions of the model, brought to the names of this one.

Until version 0.2 the keys of the text decoder's cross-attention had a bias. It cancels in the softmax, so that the
model without it computes the same, up to rounding (float32: 1e-6 of the decoder's states).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

DROPPED_SUFFIXES = (".cross_attention.key.bias",)

Value = TypeVar("Value")


def is_dropped(name: str) -> bool:
    """Whether the model had a tensor called ``name`` and has it no more."""
    return name.endswith(DROPPED_SUFFIXES)


def current_weights(weights: Mapping[str, Value]) -> dict[str, Value]:
    """``weights`` without the tensors that the model has no more."""
    return {name: value for name, value in weights.items() if not is_dropped(name)}
