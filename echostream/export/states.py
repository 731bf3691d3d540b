"""States as tensors by name, for a graph that knows tensors alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

NEXT = "next."  # begins the name of the output that is the input of the same name in the next call


def tensors_of(state: Any, name: str) -> dict[str, Tensor]:
    """All tensors of a state, called by the way to them: ``encoder.emformer.left``; empty ones hold nothing."""
    if isinstance(state, Tensor):
        return {name: state} if state.numel() else {}
    if dataclasses.is_dataclass(state):
        parts = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    elif isinstance(state, list):
        parts = {str(index): part for index, part in enumerate(state)}
    else:
        return {}  # a fact of the stream that no step changes any more
    found: dict[str, Tensor] = {}
    for own_name, part in parts.items():
        found |= tensors_of(part, f"{name}.{own_name}")
    return found


def with_tensors(state: Any, name: str, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse: a state like ``state`` that holds these tensors."""
    if isinstance(state, Tensor):
        return tensors[name] if state.numel() else state
    if dataclasses.is_dataclass(state) and not isinstance(state, type):
        parts = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
        made = {own_name: with_tensors(part, f"{name}.{own_name}", tensors) for own_name, part in parts.items()}
        return dataclasses.replace(state, **made)
    if isinstance(state, list):
        return [with_tensors(part, f"{name}.{index}", tensors) for index, part in enumerate(state)]
    return state


def next_of(state: Any, name: str) -> dict[str, Tensor]:
    """:func:`tensors_of` a step's next state, as its outputs are called."""
    return {NEXT + own_name: tensor for own_name, tensor in tensors_of(state, name).items()}
