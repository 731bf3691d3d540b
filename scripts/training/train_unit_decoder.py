"""Train the unit decoder of a checkpoint alone, on what its text decoder says; everything else stays as it is.

    python scripts/training/train_unit_decoder.py --checkpoint runs/people/checkpoint_last.pt --data runs/everyday \\
        --output runs/people/checkpoint_units.pt --minutes 20

Beside the large parts of a model the unit decoder is small, and it learns how words sound more slowly than the others
learn what they mean. Here the text states of each training utterance are computed once (whole utterance, the text as it
is in the data set) and kept in memory in half precision, so that a second of training hears many sentences. How English
sounds doesn't depend on the French: with ``--heard N`` only N utterances are encoded, which takes most of the time, and
every sentence is read as text alone as well, as `echostream speak` reads it. The rate rises over the first 5 % of the
time and then falls to zero with it.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from echostream.criterions.losses import ctc_sum
from echostream.models.echostream_model import EchoStreamModel
from scripts.command_line import require
from scripts.files import atomic_path
from scripts.training.average_checkpoints import load

WARM_UP = 0.05
LOG_S = 30.0
T = TypeVar("T")
Utterance = tuple[Tensor, Tensor, Tensor]  # text states (N, mt_dim), word numbers (N,), units (U,)


def load_task(checkpoint: Path, data: Path) -> tuple[EchoStreamModel, Any]:
    """The model of a checkpoint, and its task with the training set.

    Raises:
        ValueError, OSError: a checkpoint or data set that is none, or that don't belong together.
    """
    from fairseq import checkpoint_utils

    import echostream.tasks  # noqa: F401  # registers them

    (model,), _, task = checkpoint_utils.load_model_ensemble_and_task([str(checkpoint)], {"data": str(data)})
    task.load_dataset("train")
    return model.eval().requires_grad_(False), task


def take_unit_decoder(model: EchoStreamModel, checkpoint: Path) -> None:
    """Give the model the unit decoder of another checkpoint.

    Raises:
        ValueError: one of other sizes, or none.
    """
    prefix = "unit_decoder."
    weights = load(checkpoint)["model"]
    found = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    own = model.unit_decoder.state_dict()
    if {name: value.shape for name, value in found.items()} != {name: value.shape for name, value in own.items()}:
        raise ValueError(f"{checkpoint} has no unit decoder of the sizes of --checkpoint (--start-from)")
    model.unit_decoder.load_state_dict(found)


def grouped(items: Sequence[T], size: Callable[[T], int], limit: int) -> list[list[T]]:
    """Batches of items of about one size, which have at most ``limit`` with padding; a larger item is alone."""
    batches: list[list[T]] = [[]]
    for item in sorted(items, key=size):
        if batches[-1] and size(item) * (len(batches[-1]) + 1) > limit:
            batches.append([])
        batches[-1].append(item)
    return batches


def text_states(model: EchoStreamModel, task: Any, limit: int, max_tokens: int, heard: int = 0) -> list[Utterance]:
    """What the unit decoder reads of the utterances that have units.

    Args:
        limit: utterances that are taken, those with most units a second first; 0: all.
        max_tokens: features that are encoded at a time.
        heard: utterances of these that are heard, spread evenly; every sentence is then read as text alone as well. 0:
            all are heard, and none is read alone.
    """
    data = task.dataset("train")
    spoken = [index for index in range(len(data)) if len(data.utterances[index].units)]
    spoken.sort(key=lambda index: data.utterances[index].n_frames / len(data.utterances[index].units))
    spoken = spoken[: limit or None]
    chosen = spoken[:: max(1, len(spoken) // heard)][:heard] if heard else spoken
    found: list[Utterance] = []
    for batch in _progress(grouped(chosen, data.num_tokens, max_tokens), "heard"):
        sample = data.collater([data[index] for index in batch])
        source = sample["net_input"]
        with torch.inference_mode():
            frames, lengths, _ = model.encoder(source["src_tokens"], source["src_lengths"], segment=0)
        found += _states(model, sample, frames, lengths)
    if heard:
        sentences = {data.target_texts[index].tobytes(): index for index in spoken}
        nothing = torch.zeros(1, data.reader.num_features)
        for batch in _progress(
            grouped(list(sentences.values()), lambda index: data.size(index)[1], max_tokens), "read"
        ):
            sample = data.collater([data.example(index, nothing) for index in batch])
            # One frame of zeros, as in echostream/streaming/text_to_speech.py.
            frames = torch.zeros(len(batch), 1, model.cfg.encoder_dim)
            found += _states(model, sample, frames, torch.ones(len(batch), dtype=torch.int64))
    return found


def _progress(batches: list[list[int]], what: str) -> Any:
    return require("tqdm").tqdm(batches, desc=f"text states, {what}", unit="batch", mininterval=5)


@torch.inference_mode()
def _states(model: EchoStreamModel, sample: dict[str, Any], frames: Tensor, lengths: Tensor) -> Iterator[Utterance]:
    """Text states of a batch over these encoder frames."""
    target = sample["target_text"]
    memory, mask = model.mt_decoder.attended(frames, lengths, lengths[:, None].expand_as(target))
    hidden, _, _ = model.mt_decoder(sample["net_input"]["prev_text_tokens"], memory, mask)
    states = model.text_states(hidden, target).half()
    sizes = zip(sample["target_text_lengths"].tolist(), sample["unit_lengths"].tolist(), strict=True)
    for row, (tokens, units) in enumerate(sizes):
        numbers = sample["word_ids"][row, :tokens]
        yield states[row, :tokens].clone(), numbers.clone(), sample["units"][row, :units].clone()


def batches_of(utterances: list[Utterance], tokens: int, generator: random.Random) -> Iterator[list[Utterance]]:
    """Without end: batches of about ``tokens`` text tokens, of utterances of about one length."""
    while True:
        shuffled = generator.sample(utterances, len(utterances))  # those of one length come together anew each time
        batches = grouped(shuffled, lambda utterance: len(utterance[0]), tokens)
        generator.shuffle(batches)
        yield from batches


def loss_of(model: EchoStreamModel, batch: list[Utterance]) -> tuple[Tensor, int]:
    """CTC loss of the units, summed, and the number of units."""
    states, words, units = zip(*batch, strict=True)
    lengths = torch.tensor([len(row) for row in states])
    unit_lengths = torch.tensor([len(row) for row in units])
    numbers = pad_sequence(list(words), batch_first=True, padding_value=int(max(row[-1] for row in words)) + 1)
    decoder = model.unit_decoder
    logits, _ = decoder(pad_sequence([row.float() for row in states], batch_first=True), numbers)
    targets = pad_sequence(list(units), batch_first=True) + 1
    loss, infeasible = ctc_sum(logits, lengths * decoder.frames_per_token, targets, unit_lengths)
    return loss, int((unit_lengths * ~infeasible).sum())


def train(
    model: EchoStreamModel, utterances: list[Utterance], minutes: float, rate: float, tokens: int, seed: int
) -> list[float]:
    """Train the unit decoder in place; the mean losses in nats a unit, one for every half minute."""
    decoder = model.unit_decoder.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    began = logged = time.monotonic()
    losses: list[float] = []
    total, units, updates = 0.0, 0, 0
    for batch in batches_of(utterances, tokens, random.Random(seed)):
        share = (time.monotonic() - began) / (60 * minutes)
        if share >= 1 and updates:
            break
        for group in optimizer.param_groups:
            group["lr"] = rate * min(share / WARM_UP + 0.01, (1 - share) / (1 - WARM_UP), 1.0)
        loss, count = loss_of(model, batch)
        optimizer.zero_grad()
        (loss / max(1, count)).backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
        total, units, updates = total + float(loss.detach()), units + count, updates + 1
        if time.monotonic() - logged > LOG_S:
            losses.append(total / max(1, units))
            print(f"{share * 100:3.0f} %  {updates} updates  {losses[-1]:.3f} nats a unit", flush=True)
            total, units, logged = 0.0, 0, time.monotonic()
    decoder.requires_grad_(False).eval()
    losses.append(total / max(1, units))
    return losses


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the unit decoder of a checkpoint, and nothing else of it.")
    parser.add_argument("--checkpoint", type=Path, required=True, help="of fairseq-train")
    parser.add_argument("--data", type=Path, required=True, help="data set with units")
    parser.add_argument("--output", type=Path, required=True, help="checkpoint to write, without optimizer state")
    parser.add_argument(
        "--start-from", type=Path, help="checkpoint whose unit decoder is gone on with (default: that of --checkpoint)"
    )
    parser.add_argument("--minutes", type=float, default=20, help="after the states (default %(default)s)")
    parser.add_argument("--utterances", type=int, default=0, help="the ones with most units a second; 0: all (default)")
    parser.add_argument(
        "--heard", type=int, default=0, help="utterances of these to hear, the others are read alone; 0: all (default)"
    )
    parser.add_argument("--lr", type=float, default=1e-3, help="(default %(default)s)")
    parser.add_argument("--batch-tokens", type=int, default=1000, help="text tokens in a batch (default %(default)s)")
    parser.add_argument("--max-tokens", type=int, default=6000, help="frames encoded at a time (default %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="(default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="(default %(default)s)")
    args = parser.parse_args()
    if not (0 < args.minutes < float("inf") and 0 < args.lr < float("inf")):
        parser.error("--minutes and --lr must be positive numbers")
    if min(args.batch_tokens, args.max_tokens, args.threads) < 1 or min(args.utterances, args.heard) < 0:
        parser.error(
            "--batch-tokens, --max-tokens and --threads must be at least 1, --utterances and --heard at least 0"
        )
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    try:
        state = load(args.checkpoint)
        model, task = load_task(args.checkpoint, args.data)
        if args.start_from is not None:
            take_unit_decoder(model, args.start_from)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    utterances = text_states(model, task, args.utterances, args.max_tokens, args.heard)
    if not utterances:
        raise SystemExit(f"error: no utterance in {args.data} has units (the column tgt_audio of train.tsv)")
    losses = train(model, utterances, args.minutes, args.lr, args.batch_tokens, args.seed)
    for name, value in model.unit_decoder.state_dict().items():
        state["model"][f"unit_decoder.{name}"] = value
    state.pop("last_optimizer_state", None)
    with atomic_path(args.output) as temporary:
        torch.save(state, temporary)
    print(f"{args.output}: {len(utterances)} utterances, {losses[0]:.3f} to {losses[-1]:.3f} nats a unit", flush=True)


if __name__ == "__main__":
    main()
