"""Weights in less than a quarter of their memory: a matrix's rows as whole numbers of one byte, each row with a scale.

``name`` becomes ``name``, int8, and ``name.scale``, float32 with one number a row, whose product it is. Rounding costs
each weight at most half a step, 1/254 of the largest of its row (symmetric, per output channel: Jacob et al. 2018,
section 3). A matrix whose rows have a few large numbers and many small ones would lose these: it has half precision.

Small numbers are more frequent than large ones. So the bytes are then written in fewer bits (Huffman codes, as raw
DEFLATE without matches: RFC 1951): ``name`` becomes uint8, a stream, beside it ``name.shape``, int64. This loses
nothing.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from echostream.checkpoints.errors import UnsafeFileError, short

SCALE, SHAPE = ".scale", ".shape"
RAW_DEFLATE = -zlib.MAX_WBITS
MOST_PER_BYTE = 8  # a Huffman code has at least one bit
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


def shorten(packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same with its bytes in fewer bits, where that is shorter."""
    shortened: dict[str, Tensor] = {}
    for name, value in packed.items():
        if value.dtype is torch.int8:
            coder = zlib.compressobj(wbits=RAW_DEFLATE, memLevel=9, strategy=zlib.Z_HUFFMAN_ONLY)
            code = coder.compress(value.contiguous().numpy().tobytes()) + coder.flush()
            if len(code) < value.numel():
                shortened[name] = torch.from_numpy(np.frombuffer(code, np.uint8).copy())
                shortened[name + SHAPE] = torch.tensor(value.shape)
                continue
        shortened[name] = value
    return shortened


def _lengthened(name: str, code: Tensor, shape: Tensor) -> Tensor:
    """The inverse for one weight; never more memory than its bytes can be a code for."""
    sizes: list[int] = shape.tolist() if shape.dtype is torch.int64 and shape.dim() == 1 else []
    wanted = math.prod(sizes) if sizes and min(sizes) > 0 else 0
    whole = code.dim() == 1 and 0 < wanted <= MOST_PER_BYTE * code.numel()
    decoder = zlib.decompressobj(RAW_DEFLATE)
    try:
        content = decoder.decompress(code.numpy().tobytes(), wanted) if whole else b""
        # The end of the code may be read only with one more number, which there must not be.
        more = decoder.decompress(decoder.unconsumed_tail, 1)
        whole = whole and len(content) == wanted and not more and decoder.eof and not decoder.unused_data
    except zlib.error:
        whole = False
    if not whole:
        raise UnsafeFileError(f"its weight {name[:80]!r} is no code for numbers of the shape {short(tuple(sizes))}")
    return torch.from_numpy(np.frombuffer(content, np.int8).copy()).view(sizes)


def unpack(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of both: float32 matrices in place of int8 with scales; what isn't packed is as it was.

    Raises:
        UnsafeFileError: bytes without scales, scales that don't fit them, or what is no code for bytes; in one line.
    """
    codes = {
        name
        for name, value in tensors.items()
        if isinstance(value, Tensor) and value.dtype is torch.uint8 and isinstance(tensors.get(name + SHAPE), Tensor)
    }
    tensors = {
        name: _lengthened(name, value, tensors[name + SHAPE]) if name in codes else value
        for name, value in tensors.items()
        if name.removesuffix(SHAPE) not in codes or not name.endswith(SHAPE)
    }
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

    A weight larger than ``max_bytes`` has a file of its own. A scale and a shape stay beside their bytes, however full
    the file, so that each file can be read alone.
    """
    files: list[dict[str, Tensor]] = [{}]
    filled = 0
    for name, value in weights.items():
        size = value.numel() * value.element_size()
        belongs = any(name.endswith(end) and name.removesuffix(end) in files[-1] for end in (SCALE, SHAPE))
        if files[-1] and not belongs and filled + size > max_bytes:
            files.append({})
            filled = 0
        files[-1][name] = value
        filled += size
    return files
