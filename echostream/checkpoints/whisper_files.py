"""Weights of Whisper (Radford et al. 2022), as others store them.

Three formats are read: CTranslate2's ``model.bin``, OpenAI's ``.pt``, and ``.safetensors`` with the names of the
``transformers`` library. What they are called here: :mod:`echostream.checkpoints.whisper_names`.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from echostream.checkpoints.errors import CheckpointError, UnsafeFileError
from echostream.checkpoints.safe_loading import check_tensors, load_safely, load_tensors
from echostream.checkpoints.text_files import read_json

MAX_VARIABLES, MAX_NAME_BYTES, MAX_RANK = 20_000, 1_000, 8
CT2_TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
CT2_FLOATS = (0, 4)
TOKENIZER_NAME = "tokenizer.json"
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


def read_whisper_tokens(path: str | os.PathLike[str]) -> dict[str, int]:
    """Whisper's tokens and their numbers, from ``tokenizer.json`` beside its weights; bytes are written as characters.

    Raises:
        CheckpointError: there is no such file, or it is none of Whisper's.
    """
    file = Path(path)
    file = (file if file.is_dir() else file.parent) / TOKENIZER_NAME
    if not file.is_file():
        raise CheckpointError(f"no {file}: the text decoder needs the names of its tokens, from the same model")
    try:
        content = read_json(file)
        tokens = {**content["model"]["vocab"], **{one["content"]: one["id"] for one in content["added_tokens"]}}
        if not all(isinstance(name, str) and isinstance(number, int) for name, number in tokens.items()):
            raise TypeError
    except (UnsafeFileError, KeyError, TypeError, OSError) as error:
        raise CheckpointError(f"{file} is no table of tokens as Whisper's tokenizer.json is") from error
    return tokens
