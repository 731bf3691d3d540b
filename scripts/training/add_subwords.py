"""Give a trained model's text decoder more of Whisper's subwords, which it can write from then on.

    python scripts/training/add_subwords.py runs/mine/checkpoint_average.pt --whisper model.bin --count 19000 \\
        --output runs/mine/checkpoint_subwords.pt

For a model that began with --init-mt-decoder-from-whisper. Training needs only the subwords that its texts have, and a
softmax over others would teach it never to write them. But they are how Whisper writes what people speak about and the
texts don't: without them it chooses other words. Their embeddings are Whisper's; the ST CTC and the policy don't know
them, and the unit decoder is given words that hold them in the subwords that it learned. It is the last step before the
release: such a checkpoint can't be trained further, or used with the data's dictionary.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from echostream.checkpoints.errors import CheckpointError
from echostream.checkpoints.initialisation import EMBEDDING
from echostream.checkpoints.whisper_files import read_whisper, read_whisper_tokens
from echostream.checkpoints.whisper_names import further_subwords
from scripts.files import atomic_path
from scripts.training.average_checkpoints import load


def add_subwords(state: dict[str, Any], whisper: Path, count: int) -> list[str]:
    """Add ``count`` subwords of Whisper's to a fairseq checkpoint, in place; the new symbols.

    Raises:
        ValueError: the model's text decoder is not of Whisper's size, or has been given further subwords already, or
            Whisper has not so many.
        CheckpointError: the files can't be used.
    """
    options, task, weights = state["cfg"]["model"], state["task_state"], state["model"]
    if options.get("mt_further_tokens"):
        raise ValueError(f"it has {options['mt_further_tokens']} further subwords already: take the checkpoint before")
    known = list(task["target_symbols"])
    symbols, rows = further_subwords(read_whisper(whisper), read_whisper_tokens(whisper), known, count, str(whisper))
    embedding = weights[EMBEDDING]
    if rows.size(1) != embedding.size(1):
        raise ValueError(f"its text decoder has the size {embedding.size(1)}, that of {whisper} {rows.size(1)}")
    weights[EMBEDDING] = torch.cat([embedding, rows.to(embedding)])
    task["target_symbols"] = known + symbols
    options["mt_further_tokens"] = count
    state.pop("last_optimizer_state", None)
    return symbols


def main() -> None:
    parser = argparse.ArgumentParser(description="Give a trained model's text decoder more of Whisper's subwords.")
    parser.add_argument("checkpoint", type=Path, help="of a model that began with --init-mt-decoder-from-whisper")
    parser.add_argument("--whisper", type=Path, required=True, metavar="FILE", help="weights, tokenizer.json beside")
    parser.add_argument("--count", type=int, default=19_000, help="how many (default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="file to write")
    args = parser.parse_args()
    if args.count < 1:
        parser.error(f"--count is {args.count}; it must be at least 1")
    try:
        state = load(args.checkpoint)
        symbols = add_subwords(state, args.whisper, args.count)
    except CheckpointError as error:
        raise SystemExit(f"error: {error}") from None
    except ValueError as error:
        raise SystemExit(f"error: {args.checkpoint}: {error}") from None
    with atomic_path(args.output) as temporary:
        torch.save(state, temporary)
    print(f"{args.output}: {len(symbols)} further subwords, {len(state['task_state']['target_symbols'])} in all")


if __name__ == "__main__":
    main()
