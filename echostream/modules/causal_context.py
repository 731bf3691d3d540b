"""Left context of causal convolutions: zeros for a whole signal, the cached last inputs in a stream."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, cat, stack, zeros_like
from torch.nn import functional as F


def with_left_context(
    x: Tensor, past: int, contexts: list[Tensor] | None, index: int, lengths: Sequence[int] | None = None
) -> Tensor:
    """Prepend the left context of a causal convolution to its input.

    Args:
        x: input ``(B, T, C)``.
        past: left context in frames: kernel size minus one.
        contexts: the stream's cached left contexts, one ``(B, past, C)`` per convolution. ``contexts[index]`` is read
            and replaced in place; the list is empty before the first input. None pads a whole signal with zeros.
        index: position of this convolution in ``contexts``; convolutions are called in ascending order.
        lengths: how many frames each row has; what follows is padding, which no context keeps. None: all ``T``.

    Returns:
        Input with its left context, ``(B, past + T, C)``.
    """
    if contexts is None:
        return F.pad(x, (0, 0, past, 0))
    x = cat([contexts[index], x], dim=1) if index < len(contexts) else F.pad(x, (0, 0, past, 0))
    if lengths is None:
        last = x[:, x.size(1) - past :].clone()
    else:
        last = stack([row[length : length + past] for row, length in zip(x, lengths, strict=True)])
    contexts[index : index + 1] = [last]
    return x


def stack_contexts(streams: Sequence[list[Tensor]]) -> list[Tensor]:
    """The contexts of several streams as those of a batch, of which a stream that hasn't begun has zeros."""
    known = next((contexts for contexts in streams if contexts), [])
    return [
        cat([contexts[index] if contexts else zeros_like(one) for contexts in streams])
        for index, one in enumerate(known)
    ]


def unstack_contexts(contexts: list[Tensor], batch_size: int) -> list[list[Tensor]]:
    """The contexts of each stream of a batch."""
    return [[one[row : row + 1].clone() for one in contexts] for row in range(batch_size)]
