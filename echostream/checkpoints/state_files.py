"""The format of saved states: safetensors with a version, and without any code.

Tensors and arrays are stored as they are. What holds them (dataclasses, tuples, numbers, texts) stands as JSON in the
header. Only dataclasses that this process knows as states, or as parts of states, are made again, and only with fields
that they have.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from echostream.modules.state import State, StatePart

FORMAT, VERSION = "echostream-state", 1
SEQUENCES = {"list": list, "tuple": tuple, "deque": deque}
FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
DTYPES = (*FLOATS, torch.int64, torch.int32, torch.int16, torch.uint8, torch.bool)
MAX_BYTES = 1 << 28  # a state has a few MB; more is no state of a stream
HEADER_BYTES = 8  # safetensors: length of the JSON header, little-endian


class StateError(ValueError):
    """The bytes are no state, or a state of another model; the message says which."""


def pack(content: dict[str, Any], facts: dict[str, str]) -> bytes:
    """Serialise a state together with other values, and ``facts`` that are compared when it is read.

    Raises:
        TypeError: a value of a type that a state can't hold.
    """
    tensors: list[Tensor] = []
    structure = json.dumps(_encode(content, tensors), separators=(",", ":"))
    header = {"format": FORMAT, "version": str(VERSION), **facts, "structure": structure}
    return safetensors.torch.save({str(index): tensor for index, tensor in enumerate(tensors)}, header)


def unpack(
    data: bytes, facts: dict[str, str], device: str | torch.device = "cpu"
) -> tuple[dict[str, Any], dict[str, str]]:
    """Read what :func:`pack` has written; returns the content and the header.

    Raises:
        StateError: damaged, of another version, or with other ``facts``.
    """
    if len(data) > MAX_BYTES:
        raise StateError(f"it has {len(data)} bytes, more than any state of a stream")
    try:
        header = _header(data)
        if header.get("format") != FORMAT:
            raise StateError("it is no state of a stream")
        if header.get("version") != str(VERSION):
            raise StateError(f"it is of version {header.get('version')!r:.20}, this program reads version {VERSION}")
        for name, value in facts.items():
            if header.get(name) != value:
                raise StateError(f"it is of another {name}, which alone can go on with it")
        tensors = safetensors.torch.load(data)
        decoder = _Decoder(tensors, torch.device(device))
        content = decoder.decode(json.loads(header["structure"]))
    except StateError:
        raise
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StateError(f"it is damaged ({type(error).__name__}: {str(error)[:80]})") from error
    if not isinstance(content, dict):
        raise StateError("it is damaged: its content has no names")
    return content, header


def _header(data: bytes) -> dict[str, str]:
    size = int.from_bytes(data[:HEADER_BYTES], "little")
    if len(data) < HEADER_BYTES or size > len(data) - HEADER_BYTES:
        raise StateError("it is cut short")
    header = json.loads(data[HEADER_BYTES : HEADER_BYTES + size]).get("__metadata__", {})
    if not isinstance(header, dict):
        raise StateError("it is no state of a stream")
    return header


def _classes() -> Iterator[type]:
    """All classes that a state may consist of: those of the package, and those of code of one's own."""
    waiting: list[type] = [State, StatePart]
    while waiting:
        kind = waiting.pop()
        yield kind
        waiting += kind.__subclasses__()


def _name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _encode(value: Any, tensors: list[Tensor]) -> Any:
    """Turn ``value`` into JSON and append its tensors to ``tensors``. What isn't plain is an object of one name."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, np.generic):
        return _encode(value.item(), tensors)
    if isinstance(value, Tensor | np.ndarray):
        kind = "tensor" if isinstance(value, Tensor) else "array"
        tensor = value if isinstance(value, Tensor) else torch.from_numpy(np.ascontiguousarray(value))
        tensors.append(tensor.detach().cpu().contiguous().clone())  # of its own: safetensors stores no shared memory
        return {kind: len(tensors) - 1}
    if isinstance(value, bytes):
        tensors.append(torch.frombuffer(bytearray(value), dtype=torch.uint8) if value else torch.empty(0).byte())
        return {"bytes": len(tensors) - 1}
    for name, sequence in SEQUENCES.items():
        if type(value) is sequence:
            return {name: [_encode(item, tensors) for item in value]}
    if type(value) is dict and all(isinstance(key, str) for key in value):
        return {"dict": {key: _encode(item, tensors) for key, item in value.items()}}
    if isinstance(value, State | StatePart) and dataclasses.is_dataclass(value):
        fields = {field.name: _encode(getattr(value, field.name), tensors) for field in dataclasses.fields(value)}
        return {"class": _name(type(value)), "fields": fields}
    raise TypeError(f"a state can't hold {_name(type(value))}: derive it from State, or use tensors and plain values")


class _Decoder:
    """Makes values of JSON and tensors again."""

    def __init__(self, tensors: dict[str, Tensor], device: torch.device) -> None:
        for name, tensor in tensors.items():
            if tensor.dtype not in DTYPES:
                raise StateError(f"it holds a tensor of {tensor.dtype} ({name[:20]!r})")
        self._tensors, self._device = tensors, device
        self._classes: dict[str, type] = {}
        for kind in _classes():
            # Of several classes of one name, which slots=True of a dataclass makes too, the latest comes first.
            self._classes.setdefault(_name(kind), kind)

    def decode(self, value: Any) -> Any:
        if not isinstance(value, dict):
            if isinstance(value, list):
                raise StateError("it is damaged: a list without its kind")
            return value
        if "class" in value:
            return self._make(value["class"], value["fields"])
        ((kind, content),) = value.items()
        if kind in SEQUENCES:
            return SEQUENCES[kind](self.decode(item) for item in content)
        if kind == "dict":
            return {key: self.decode(item) for key, item in content.items()}
        if kind == "float":
            return float(content)
        tensor = self._tensors[str(content)]
        if kind == "tensor":
            return tensor.to(self._device)
        if kind in ("array", "bytes"):
            return tensor.numpy() if kind == "array" else tensor.numpy().tobytes()
        raise StateError(f"it holds a {kind[:20]!r}, which is not known")

    def _make(self, name: str, fields: dict[str, Any]) -> Any:
        kind = self._classes.get(name)
        if kind is None:
            raise StateError(f"it holds a {str(name)[:80]}, which is no state that is known here")
        names = {field.name: field for field in dataclasses.fields(kind)}
        lacking = [field for name, field in names.items() if name not in fields]
        # A field that is younger than the bytes has its default, if it has one.
        if not fields.keys() <= names.keys() or any(field.default is dataclasses.MISSING for field in lacking):
            raise StateError(f"its {kind.__name__} has other fields than this program's")
        return kind(**{field: self.decode(value) for field, value in fields.items()})
