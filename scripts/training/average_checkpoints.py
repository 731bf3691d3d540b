"""Average the weights of several checkpoints of one run, which usually beats the last one alone.

A model and what further training made of it can be averaged as well: what the first could do and the second has
forgotten is kept (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models"), and ``--weights`` says how much of
either. A part that only the second has learned is given by ``--keep``.

The result is a fairseq checkpoint without optimizer state: load it, evaluate it, fine-tune from it.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from echostream.checkpoints.errors import UnsafeFileError
from echostream.checkpoints.safe_loading import load_safely
from scripts.files import atomic_path

# fairseq may store its command line; naming the type keeps torch's safe loader on
torch.serialization.add_safe_globals([argparse.Namespace])


def last_checkpoints(folder: Path, count: int) -> list[Path]:
    """The ``count`` checkpoints of the most updates, named ``checkpoint_{epoch}_{updates}.pt``.

    Raises:
        ValueError: there are fewer.
    """
    found = []
    for path in folder.glob("checkpoint_*.pt"):
        match = re.fullmatch(r"checkpoint_\d+_(\d+)\.pt", path.name)
        if match:
            found.append((int(match.group(1)), path))
    if len(found) < count:
        raise ValueError(f"{folder} has {len(found)} checkpoint_EPOCH_UPDATES.pt, {count} are needed; train longer")
    return [path for _, path in sorted(found)[-count:]]


def load(path: Path) -> dict[str, Any]:
    """A fairseq checkpoint, through torch's safe loader; ValueError if it isn't one."""
    try:
        state = load_safely(path)
    except UnsafeFileError as error:
        raise ValueError(f"{path} can't be loaded as a checkpoint: {error}") from error
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error.strerror or error}") from error
    if not isinstance(state, dict) or not {"model", "cfg", "task_state"} <= state.keys():
        raise ValueError(f"{path} is not a checkpoint of fairseq-train")
    return state


def average(paths: list[Path], keep: Sequence[str] = (), weights: Sequence[float] = ()) -> dict[str, Any]:
    """The checkpoint whose weights are the means of those in ``paths``; everything else is the last one's.

    Whole-number tensors, such as counters, are the last one's as well, and the parts of the model named in ``keep``
    (``st_head``). Sums are in float64.

    Args:
        paths: of the checkpoints.
        keep: parts of the model.
        weights: how much each checkpoint counts, whatever their sum; none: all the same.

    Raises:
        ValueError: no paths, models that differ in names, shapes or dictionaries, or that have no such part; weights
            that are not one for each, or negative, or all zero.
    """
    if not paths:
        raise ValueError("no checkpoints to average")
    if weights and len(weights) != len(paths):
        raise ValueError(f"{len(weights)} weights for {len(paths)} checkpoints: give one for each")
    if weights and not (all(0 <= weight < float("inf") for weight in weights) and sum(weights)):
        raise ValueError(f"weights {', '.join(f'{weight:g}' for weight in weights)}: none may be negative, nor all 0")
    shares = [weight / sum(weights) for weight in weights] or [1 / len(paths)] * len(paths)
    state = load(paths[0])
    task = state["task_state"]
    sums = {name: shares[0] * weight.double() for name, weight in state["model"].items()}
    for path, share in zip(paths[1:], shares[1:], strict=True):
        state = load(path)
        shapes = {name: weight.shape for name, weight in state["model"].items()}
        if shapes != {name: weight.shape for name, weight in sums.items()} or state["task_state"] != task:
            raise ValueError(f"{path} is of another model, or has other dictionaries, than {paths[0]}")
        for name, weight in state["model"].items():
            sums[name] += share * weight.double()
    for part in keep:
        if not any(name.startswith(f"{part}.") for name in sums):
            raise ValueError(f"{paths[-1]} has no part {part!r}: it has {', '.join(sorted(parts_of(sums)))}")
    kept = tuple(f"{part}." for part in keep)
    for name, weight in state["model"].items():
        if weight.is_floating_point() and not name.startswith(kept):
            state["model"][name] = sums[name].to(weight.dtype)
    state.pop("last_optimizer_state", None)
    return state


def parts_of(weights: Iterable[str]) -> set[str]:
    """The first words of weights' names."""
    return {name.partition(".")[0] for name in weights}


def main() -> None:
    parser = argparse.ArgumentParser(description="Average the weights of several checkpoints of one run.")
    parser.add_argument("checkpoints", nargs="*", type=Path, help="checkpoints; or give --save-dir")
    parser.add_argument("--save-dir", type=Path, help="folder of a run whose last checkpoints are averaged")
    parser.add_argument("--last", type=int, default=5, help="how many of the run's checkpoints (default 5)")
    parser.add_argument("--output", type=Path, help="file to write (default: checkpoint_average.pt beside them)")
    parser.add_argument(
        "--weights", nargs="+", type=float, default=[], metavar="W", help="how much each counts (default: all the same)"
    )
    parser.add_argument("--keep", nargs="+", default=[], metavar="PART", help="parts (st_head) that are the last one's")
    args = parser.parse_args()
    if bool(args.checkpoints) == bool(args.save_dir):
        parser.error("give either checkpoints or --save-dir")
    if args.last < 1:
        parser.error(f"--last is {args.last}; it must be at least 1")
    try:
        paths = args.checkpoints or last_checkpoints(args.save_dir, args.last)
        state = average(paths, args.keep, args.weights)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    output = args.output or paths[0].parent / "checkpoint_average.pt"
    with atomic_path(output) as temporary:
        torch.save(state, temporary)
    print(f"{output}: average of {', '.join(path.name for path in paths)}")


if __name__ == "__main__":
    main()
