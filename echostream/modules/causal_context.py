"""What a causal convolution sees of the past: zeros at the start of a signal, its last inputs in a stream."""

from __future__ import annotations

from torch import Tensor, cat
from torch.nn import functional as F


def with_past(x: Tensor, past: int, tails: list[Tensor] | None, index: int) -> Tensor:
    """Put the last ``past`` inputs before ``x``.

    Args:
        x: ``(B, T, C)``.
        past: inputs before the first that the convolution needs.
        tails: of a stream, one a convolution, empty before its first input; ``tails[index]`` is read and replaced.
            None for a whole signal.
        index: which convolution this is; they come in order.

    Returns:
        ``(B, past + T, C)``.
    """
    if tails is None:
        return F.pad(x, (0, 0, past, 0))
    x = cat([tails[index], x], dim=1) if index < len(tails) else F.pad(x, (0, 0, past, 0))
    tails[index : index + 1] = [x[:, x.size(1) - past :].clone()]
    return x
