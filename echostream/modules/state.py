"""Typed states of streams, which can be measured, copied, stacked and split.

The state of every stage of the runtime is a dataclass derived from :class:`State` that is passed as an argument;
``None`` stands for a new stream. Modules themselves hold no state, so that one model serves any number of streams and a
``copy.deepcopy`` of a state continues exactly as the original does.
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
    """Total bytes of the tensors, arrays and byte strings in ``value``, which may be nested."""
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
        """Total size of all tensors and buffers in the state, in bytes."""
        return count_bytes(self)


class StatePart:
    """Marks a dataclass that states hold, but that is no state itself; it is saved with them."""

    __slots__ = ()


@dataclass
class BatchedState(State):
    """A state whose tensors all have the batch as dimension 0, so that streams can share a forward pass.

    Fields are tensors or are themselves of type :class:`BatchedState`; anything else could not be stacked.
    """

    @property
    def batch_size(self) -> int:
        first = getattr(self, dataclasses.fields(self)[0].name)
        return first.batch_size if isinstance(first, BatchedState) else first.size(0)

    @classmethod
    def stack(cls, states: Sequence[Self]) -> Self:
        """Concatenate states along the batch dimension; tensors must agree in all other dimensions."""
        merged = {}
        for field in dataclasses.fields(cls):
            parts = [getattr(state, field.name) for state in states]
            merged[field.name] = type(parts[0]).stack(parts) if isinstance(parts[0], BatchedState) else torch.cat(parts)
        return cls(**merged)

    def split(self, sizes: Sequence[int] | None = None) -> list[Self]:
        """Split into states of the batch sizes ``sizes``, by default of one each.

        Each is a copy, so that its memory is freed when it is dropped.
        """
        sizes = [1] * self.batch_size if sizes is None else list(sizes)
        columns = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            columns[field.name] = (
                value.split(sizes) if isinstance(value, BatchedState) else [rows.clone() for rows in value.split(sizes)]
            )
        return [type(self)(**{name: rows[i] for name, rows in columns.items()}) for i in range(len(sizes))]


def stack(states: Sequence[Any]) -> Any:
    """Join the states of several streams into the state of a batch; a single state is returned unchanged."""
    return states[0] if len(states) == 1 else type(states[0]).stack(states)


def unstack(state: Any, sizes: Sequence[int] | None = None) -> list:
    """Split the state of a batch into one state per stream; ``sizes``: how many rows each has, by default one."""
    count = state.batch_size if sizes is None else len(sizes)
    return [state] if count == 1 else state.split(sizes)
