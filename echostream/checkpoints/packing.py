"""Weights in a quarter of their memory: the rows of a matrix as whole numbers of one byte, with a scale for each row.

``name`` becomes ``name``, int8, and ``name.scale``, float32 with one number a row, whose product it is. Rounding costs
each weight at most half a step, 1/254 of the largest of its row (symmetric, per output channel: Jacob et al. 2018,
section 3). A matrix whose rows have a few large numbers and many small ones would lose these: it has half precision.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from echostream.checkpoints.errors import UnsafeFileError

SCALE = ".scale"
LARGEST = 127
SMALLEST_PACKED = 2**12  # numbers; below it a file gains nothing
LARGEST_ERROR = 0.03  # of a matrix, root mean square; a Gaussian one has 0.01, one near the identity 0.05


def is_packable(weight: Tensor) -> bool:
    """Whether it is a matrix, or of more dimensions, and large enough to gain by it."""
    return weight.is_floating_point() and weight.dim() > 1 and weight.numel() >= SMALLEST_PACKED


def pack(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Matrices as int8 with scales, in half precision where they would be more than 3 % off; the rest as it is."""
    packed: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if not is_packable(weight):
            packed[name] = weight
            continue
        rows = weight.float().flatten(1)
        scale = rows.abs().amax(dim=1) / LARGEST
        # Each number is off by up to half a step, equally likely: a standard deviation of step / sqrt(12).
        if float(scale.square().mean().sqrt()) > LARGEST_ERROR * 12**0.5 * float(rows.square().mean().sqrt()):
            half = weight.half()
            packed[name] = half if bool(half.isfinite().all()) else weight
            continue
        steps = (rows / scale.clamp_min(torch.finfo(torch.float32).tiny)[:, None]).round()
        packed[name] = steps.clamp(-LARGEST, LARGEST).to(torch.int8).view(weight.shape)
        packed[name + SCALE] = scale
    return packed


def unpack(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse: float32 matrices in place of int8 with scales; what isn't packed is as it was.

    Raises:
        UnsafeFileError: bytes without scales, or scales that don't fit them; in one line.
    """
    scales = {
        name + SCALE
        for name, value in tensors.items()
        if isinstance(value, Tensor) and value.dtype is torch.int8 and name + SCALE in tensors
    }
    weights: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if name in scales:
            continue
        if name + SCALE not in scales:
            weights[name] = value
            continue
        scale = tensors[name + SCALE]
        if scale.dtype is not torch.float32 or scale.shape != value.shape[:1] or not value.numel():
            raise UnsafeFileError(
                f"its weight {name[:80]!r} is of bytes, {tuple(value.shape)}, and its scales don't fit them: "
                f"{str(scale.dtype).replace('torch.', '')} {tuple(scale.shape)}"
            )
        weights[name] = value.float() * scale.view(-1, *[1] * (value.dim() - 1))
    return weights


def in_files(weights: Mapping[str, Tensor], max_bytes: int) -> list[dict[str, Tensor]]:
    """Weights divided into files of at most ``max_bytes`` each, in their order.

    A weight larger than ``max_bytes`` has a file of its own. A scale stays beside its bytes, however full the file, so
    that each file can be read alone.
    """
    files: list[dict[str, Tensor]] = [{}]
    filled = 0
    for name, value in weights.items():
        size = value.numel() * value.element_size()
        is_scale = name.endswith(SCALE) and name.removesuffix(SCALE) in files[-1]
        if files[-1] and not is_scale and filled + size > max_bytes:
            files.append({})
            filled = 0
        files[-1][name] = value
        filled += size
    return files
