"""Activations of feed-forward networks, by name."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "gelu": nn.functional.gelu,
    "silu": nn.functional.silu,
}


def find_activation(name: str) -> Callable[[Tensor], Tensor]:
    """The activation called ``name``.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"unknown activation '{name}': choose one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]
