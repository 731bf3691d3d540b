"""What a stream remembers: typed states that can be measured, copied, stacked and split.

Every stage of the runtime keeps its memory in a dataclass that derives from :class:`State` and is passed as an
argument; ``None`` stands for a fresh stream. Nothing is remembered in a module, so that one model serves any number
of streams, and ``copy.deepcopy`` of a state is a fork that continues identically.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor


def count_bytes(value: object) -> int:
    """Bytes held by the tensors, arrays and byte strings in ``value``, containers and dataclasses included."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, bytes | bytearray):
        return len(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return sum(count_bytes(getattr(value, field.name)) for field in dataclasses.fields(value))
    if isinstance(value, dict):
        return sum(count_bytes(item) for item in value.values())
    if isinstance(value, list | tuple | deque | set):
        return sum(count_bytes(item) for item in value)
    return 0


@dataclass
class State:
    """Base of all stream states."""

    @property
    def nbytes(self) -> int:
        """Size in bytes of every tensor and buffer in the state."""
        return count_bytes(self)


@dataclass
class BatchedState(State):
    """A state whose tensors all carry the batch in dimension 0, so that streams can share a forward pass.

    A field may itself be a :class:`BatchedState`. Non-tensor fields are not allowed: whatever differs between
    streams has to be a tensor, or the streams could not be stacked.
    """

    @property
    def batch_size(self) -> int:
        first = getattr(self, dataclasses.fields(self)[0].name)
        return first.batch_size if isinstance(first, BatchedState) else first.size(0)

    @classmethod
    def stack(cls, states: Sequence[Self]) -> Self:
        """Join ``B`` states into one of batch size ``sum(B_i)``; tensors must agree in all other dimensions."""
        merged = {}
        for field in dataclasses.fields(cls):
            parts = [getattr(state, field.name) for state in states]
            merged[field.name] = type(parts[0]).stack(parts) if isinstance(parts[0], BatchedState) else torch.cat(parts)
        return cls(**merged)

    def split(self) -> list[Self]:
        """Cut into states of batch size one; each owns its memory, so that dropping one frees it."""
        columns = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            columns[field.name] = (
                value.split() if isinstance(value, BatchedState) else [row.clone() for row in value.split(1)]
            )
        return [type(self)(**{name: rows[i] for name, rows in columns.items()}) for i in range(self.batch_size)]


def stack(states: Sequence[Any]) -> Any:
    """States of several streams as one state of a batch; a single state is taken as it is."""
    return states[0] if len(states) == 1 else type(states[0]).stack(states)


def unstack(state: Any) -> list:
    """The states of the single streams of a batch."""
    return [state] if state.batch_size == 1 else state.split()
