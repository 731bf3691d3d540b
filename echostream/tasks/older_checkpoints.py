"""Training checkpoints of earlier versions: their weights and the state of their optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from echostream.checkpoints.older_weights import current_weights, is_dropped

BUFFERS = "fbank."  # the only tensors of a model of those versions that the optimizer doesn't hold


def current_checkpoint(state: dict[str, Any]) -> dict[str, Any]:
    """A fairseq checkpoint without the parameters that the model has no more; others are returned as they are."""
    weights = state.get("model")
    if not isinstance(weights, Mapping) or not any(map(is_dropped, weights)):
        return state
    state = {**state, "model": current_weights(weights)}
    optimizer = state.get("last_optimizer_state")
    if isinstance(optimizer, Mapping) and len(optimizer.get("param_groups", ())) == 1:
        parameters = {name: value for name, value in weights.items() if not name.startswith(BUFFERS)}
        state["last_optimizer_state"] = _without_dropped(optimizer, parameters)
    return state


def _without_dropped(optimizer: Mapping[str, Any], parameters: Mapping[str, Tensor]) -> dict[str, Any]:
    """The optimizer's state without the dropped ones of ``parameters``, which come first in it and in this order.

    Parameters of the criterion may follow. Half precision on a GPU joins all parameters into a single one.
    """
    (group,) = optimizer["param_groups"]
    dropped = [is_dropped(name) for name in parameters]
    if len(group["params"]) == 1:
        sizes = [value.numel() for value in parameters.values()]
        states = {key: _cut(entries, sizes, dropped) for key, entries in optimizer["state"].items()}
        return {**optimizer, "state": states}
    kept = [key for at, key in enumerate(group["params"]) if at >= len(dropped) or not dropped[at]]
    states = {new: optimizer["state"][old] for new, old in enumerate(kept) if old in optimizer["state"]}
    return {**optimizer, "state": states, "param_groups": [{**group, "params": list(range(len(kept)))}]}


def _cut(entries: Mapping[str, Any], sizes: list[int], dropped: list[bool]) -> dict[str, Any]:
    """State of all parameters in one, without the parts of the dropped ones; whatever else it holds stays."""

    def cut(value: Any) -> Any:
        if not isinstance(value, Tensor) or value.numel() < sum(sizes):
            return value
        parts = value.split([*sizes, value.numel() - sum(sizes)])
        return torch.cat([part for part, drop in zip(parts, [*dropped, False], strict=True) if not drop])

    return {name: cut(value) for name, value in entries.items()}
