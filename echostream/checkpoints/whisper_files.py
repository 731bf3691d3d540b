"""Weights of Whisper (Radford et al. 2022), as others store them, under the names of EchoStream's encoder.

Three formats are read: CTranslate2's ``model.bin``, OpenAI's ``.pt``, and ``.safetensors`` with the names of the
``transformers`` library. The encoder's layers, its two convolutions and its last norm move in one to one; its positions
are a fixed table, which :mod:`echostream.modules.cyclic_positions` computes.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from echostream.checkpoints.errors import CheckpointError, UnsafeFileError
from echostream.checkpoints.safe_loading import check_tensors, load_safely, load_tensors

MAX_VARIABLES, MAX_NAME_BYTES, MAX_RANK = 20_000, 1_000, 8
CT2_TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
CT2_FLOATS = (0, 4)
# Each layer's parts: ours, CTranslate2's, OpenAI's, transformers'. The last two keep query, key and value apart.
LAYER_PARTS = (
    ("norm_attention", "self_attention/layer_norm", "attn_ln", "self_attn_layer_norm"),
    ("attention_out", "self_attention/linear_1", "attn.out", "self_attn.out_proj"),
    ("norm_ffn", "ffn/layer_norm", "mlp_ln", "final_layer_norm"),
    ("ffn_in", "ffn/linear_0", "mlp.0", "fc1"),
    ("ffn_out", "ffn/linear_1", "mlp.2", "fc2"),
)
QUERY_KEY_VALUE = {
    "openai": ("attn.query", "attn.key", "attn.value"),
    "transformers": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
}
Weights = dict[str, Tensor]


def read_whisper(path: str | os.PathLike[str]) -> Weights:
    """All weights of a Whisper file in float32, under the names that they have there.

    Raises:
        CheckpointError: missing, damaged, or another format; in one line.
    """
    file = Path(path)
    try:
        if file.is_dir():
            file = next(f for f in (file / "model.bin", file / "model.safetensors", file) if f.is_file() or f == file)
        if file.suffix == ".safetensors":
            weights = load_tensors(file)
        elif file.suffix == ".bin":
            with file.open("rb") as stream:
                weights = _read_ctranslate2(stream, file.stat().st_size)
        else:
            content = load_safely(file)
            weights = content.get("model_state_dict", content) if isinstance(content, dict) else {}
            check_tensors(weights)
    except UnsafeFileError as error:
        raise CheckpointError(f"{file}: {error}") from error
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror or error}") from error
    except (struct.error, UnicodeDecodeError, ValueError) as error:
        raise CheckpointError(f"{file} is no Whisper model of CTranslate2, or cut short ({error})") from error
    return {name: tensor.float() for name, tensor in weights.items()}


def _read_ctranslate2(stream: BinaryIO, size: int) -> Weights:
    """The variables of a ``model.bin`` that are floating-point numbers."""

    def numbers(form: str) -> tuple[int, ...]:
        return struct.unpack("<" + form, stream.read(struct.calcsize("<" + form)))

    def text() -> str:
        (length,) = numbers("H")
        if length > MAX_NAME_BYTES:
            raise ValueError(f"a name of {length} bytes")
        return stream.read(length).rstrip(b"\0").decode("utf-8")

    version = numbers("I")[0]
    if version > 6:
        raise ValueError(f"format {version}; up to 6 are read")
    text(), numbers("I")  # the kind of model and its revision
    (count,) = numbers("I")
    if count > MAX_VARIABLES:
        raise ValueError(f"{count} variables")
    weights = {}
    for _ in range(count):
        name, (rank,) = text(), numbers("B")
        if rank > MAX_RANK:
            raise ValueError(f"{name} has {rank} dimensions")
        shape, (kind,), (length,) = numbers("I" * rank), numbers("B"), numbers("I")
        if kind not in CT2_TYPES or length > size - stream.tell():
            raise ValueError(f"{name} of type {kind} with {length} bytes")
        data = stream.read(length)
        if kind in CT2_FLOATS:
            array = np.frombuffer(data, CT2_TYPES[kind])
            if array.size != int(np.prod(shape, dtype=np.int64)):
                raise ValueError(f"{name} has {array.size} numbers for the shape {shape}")
            weights[name] = torch.from_numpy(array.reshape(shape).astype(np.float32))
    check_tensors(weights)
    return weights


def whisper_encoder(weights: Mapping[str, Tensor], layers: int | None = None, source: str = "the file") -> Weights:
    """Weights of an :class:`EchoStreamSpeechEncoder` with the front end ``whisper``.

    Args:
        weights: from :func:`read_whisper`.
        layers: how many the encoder has; of more in the file, evenly spaced ones are taken, the last among them. None:
            as many as the file has.
        source: what to call the file in messages.

    Returns:
        tensors by the names of the encoder's ``state_dict``.

    Raises:
        CheckpointError: these are no weights of Whisper, or too few layers.
    """
    if "encoder/conv1/weight" in weights:
        kind, prefix, layer, separator = "ctranslate2", "encoder/", "layer_{}/", "/"
        names = ("conv1", "conv2", "layer_norm")
    elif "encoder.conv1.weight" in weights:
        kind, prefix, layer, separator, names = "openai", "encoder.", "blocks.{}.", ".", ("conv1", "conv2", "ln_post")
    elif "model.encoder.conv1.weight" in weights:
        kind, prefix, layer, separator = "transformers", "model.encoder.", "layers.{}.", "."
        names = ("conv1", "conv2", "layer_norm")
    else:
        raise CheckpointError(
            f"{source} has no weights of Whisper's encoder under the names of CTranslate2, OpenAI or transformers"
        )

    def part(name: str, is_norm: bool = False) -> dict[str, Tensor]:
        kinds = ("gamma", "beta") if kind == "ctranslate2" and is_norm else ("weight", "bias")
        found = {
            ours: weights.get(f"{prefix}{name}{separator}{theirs}")
            for ours, theirs in zip(("weight", "bias"), kinds, strict=True)
        }
        if found["weight"] is None:
            raise CheckpointError(f"{source} has no {prefix}{name}{separator}{kinds[0]}: is it cut short?")
        return {ours: tensor for ours, tensor in found.items() if tensor is not None}

    pattern = re.compile(re.escape(prefix) + layer.format(r"(\d+)").replace(".", r"\."))
    there = {int(match[1]) for name in weights if (match := pattern.match(name))}
    count = max(there, default=-1) + 1
    layers = count if layers is None else layers
    if count < layers:
        raise CheckpointError(f"{source} has {count} encoder layers, the model {layers}: choose a smaller architecture")
    result: Weights = {}
    for ours, theirs in (("subsampler.first", names[0]), ("subsampler.second", names[1])):
        convolution = part(theirs)
        # (out, in, 3) -> (out, 3 * in), the earliest input first
        result[f"{ours}.weight"] = convolution["weight"].permute(0, 2, 1).flatten(1).contiguous()
        result[f"{ours}.bias"] = convolution["bias"]
    for index in range(layers):
        place = layer.format(round((index + 1) * count / layers) - 1)
        ours = f"emformer.layers.{index}."
        for name, *others in LAYER_PARTS:
            found = part(place + others[("ctranslate2", "openai", "transformers").index(kind)], "norm" in name)
            result |= {f"{ours}{name}.{key}": tensor for key, tensor in found.items()}
        if kind == "ctranslate2":
            joined = part(f"{place}self_attention/linear_0")
        else:
            parts = [part(place + name) for name in QUERY_KEY_VALUE[kind]]
            # Whisper's keys have no bias.
            joined = {
                "weight": torch.cat([one["weight"] for one in parts]),
                "bias": torch.cat([one.get("bias", torch.zeros(one["weight"].size(0))) for one in parts]),
            }
        result |= {f"{ours}query_key_value.{key}": tensor for key, tensor in joined.items()}
    result |= {f"emformer.norm_final.{key}": tensor for key, tensor in part(names[2], is_norm=True).items()}
    return result
