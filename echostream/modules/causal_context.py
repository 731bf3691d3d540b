"""Left context of causal convolutions: zeros for a whole signal, the cached last inputs in a stream."""

from __future__ import annotations

from torch import Tensor, cat
from torch.nn import functional as F


def with_left_context(x: Tensor, past: int, contexts: list[Tensor] | None, index: int) -> Tensor:
    """Prepend the left context of a causal convolution to its input.

    Args:
        x: input ``(B, T, C)``.
        past: left context in frames: kernel size minus one.
        contexts: the stream's cached left contexts, one ``(B, past, C)`` per convolution. ``contexts[index]`` is read
            and replaced in place; the list is empty before the first input. None pads a whole signal with zeros.
        index: position of this convolution in ``contexts``; convolutions are called in ascending order.

    Returns:
        Input with its left context, ``(B, past + T, C)``.
    """
    if contexts is None:
        return F.pad(x, (0, 0, past, 0))
    x = cat([contexts[index], x], dim=1) if index < len(contexts) else F.pad(x, (0, 0, past, 0))
    contexts[index : index + 1] = [x[:, x.size(1) - past :].clone()]
    return x
