"""What a full training needs -- updates, hours, memory -- by calculation from training steps measured here.

    python scripts/training/train_requirements.py --arch echostream --threads 2

A step is everything that fairseq's trainer does with a batch once it is loaded: the model with all four losses and the
policy's alignment, backward, clipping, Adam. Reading audio is not in it; on a GPU worker processes do that meanwhile.
Batches are made of noise, with as many pieces and units as speech has.

The default corpus is CVSS-C French-English (Jia et al. 2022), whose source speech is CoVoST 2's: 264 h of training
data in 207,374 utterances (Wang et al. 2020). The default batch is that of StreamSpeech's training script: 4
GPUs of 22,000 frames, 2 batches to an update. How many updates are enough is not published; 50,000 are 93 epochs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from fairseq.data import Dictionary

from echostream.criterions import EchoStreamMultiTaskCriterion, EchoStreamMultiTaskCriterionConfig
from echostream.models import ARCHITECTURES, EchoStreamModel, architecture_config
from echostream.percentiles import percentile
from echostream.tasks.segments import parse_segment_sizes, segment_name
from echostream.text import WORD_MARK
from scripts.benchmarks.benchmarking import (
    FRAMES_PER_S,
    Progress,
    Record,
    collect,
    count_parameters,
    describe_machine,
    emit,
    machine_facts,
    peak_bytes,
    run_worker,
    settle_memory,
)

PIECES_PER_S = 3  # subwords of speech, source and target
UNITS_PER_S = 25  # after repeats have been merged
STREAMSPEECH_UPDATE_FRAMES = 4 * 22000 * 2


def positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text} is not a positive whole number")
    return int(text)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--arch", default="echostream", choices=list(ARCHITECTURES), help="architecture")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=count, default=1, help="processor threads")
    parser.add_argument("--batch-frames", type=count, help="10 ms frames in a batch (default 1500, 22000 on a GPU)")
    parser.add_argument("--utterance-s", type=positive, default=4.6, help="seconds of an utterance: 264 h / 207374")
    parser.add_argument("--segment-sizes", default="1,2,4,8,16,32,0", help="sizes that training draws, 40 ms frames")
    parser.add_argument("--repetitions", type=count, default=3, help="steps timed at each segment size")
    parser.add_argument("--vocabulary", type=count, default=6000, help="pieces of either text")
    parser.add_argument("--units", type=count, default=1000, help="unit inventory")
    parser.add_argument("--hours", type=positive, default=264, help="source speech in the corpus")
    parser.add_argument("--updates", type=count, nargs="+", default=[10000, 50000], help="lengths of training")
    parser.add_argument("--update-frames", type=count, default=STREAMSPEECH_UPDATE_FRAMES, help="frames in an update")
    parser.add_argument("--devices", type=count, default=1, help="devices like this one; communication is not counted")
    parser.add_argument("--json", type=Path, help="write measurements and results to this file as well")
    parser.add_argument("--worker", type=count, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    try:
        args.sizes = parse_segment_sizes(args.segment_sizes)
    except ValueError as error:
        parser.error(f"--segment-sizes: {error}")
    args.batch_frames = args.batch_frames or (1500 if args.device == "cpu" else 22000)
    if args.batch_frames < FRAMES_PER_S * args.utterance_s:
        parser.error(f"--batch-frames {args.batch_frames} holds no utterance of {args.utterance_s:g} s")
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU here")
    return args


# --- measuring, in a process of its own --------------------------------------------------------------------------


def make_batch(args: argparse.Namespace) -> dict[str, Any]:
    """A batch of equal utterances as the data set would collate it."""
    random = torch.Generator().manual_seed(0)
    frames = round(FRAMES_PER_S * args.utterance_s)
    size = args.batch_frames // frames
    pieces = max(1, round(PIECES_PER_S * args.utterance_s))
    units = max(1, min(round(UNITS_PER_S * args.utterance_s), 20 * pieces))

    def draw(low: int, high: int, length: int) -> torch.Tensor:
        return torch.randint(low, high, (size, length), generator=random)

    target = draw(4, args.vocabulary, pieces + 1)
    target[:, -1] = 2  # end of sentence
    lengths = {
        name: torch.full((size,), length)
        for name, length in (("source_text", pieces), ("target_text", pieces + 1), ("units", units))
    }
    batch = {
        "net_input": {
            "src_tokens": torch.randn(size, frames, 80, generator=random),
            "src_lengths": torch.full((size,), frames),
            "prev_text_tokens": torch.cat([target[:, -1:], target[:, :-1]], dim=1),
        },
        "source_text": draw(4, args.vocabulary, pieces),
        "source_text_lengths": lengths["source_text"],
        "target_text": target,
        "target_text_lengths": lengths["target_text"],
        "word_ids": (torch.arange(pieces + 1) // 2).expand(size, -1),
        "units": draw(0, args.units, units),
        "unit_lengths": lengths["units"],
        "ntokens": size * units,
        "nsentences": size,
    }
    return _moved(batch, args.device)


def _moved(value: Any, device: str) -> Any:
    if isinstance(value, dict):
        return {name: _moved(part, device) for name, part in value.items()}
    return value.to(device) if isinstance(value, torch.Tensor) else value


def dictionary(size: int) -> Dictionary:
    """So many symbols; every other one begins a word."""
    result = Dictionary()
    for number in range(size - result.nspecial):
        result.add_symbol(f"{WORD_MARK if number % 2 else ''}{number}")
    return result


def measure(args: argparse.Namespace) -> None:
    """Print a record for the model and one for each segment size."""
    torch.manual_seed(0)
    base = settle_memory()
    names = dictionary(args.vocabulary)
    model = EchoStreamModel(architecture_config(args.arch), args.vocabulary, args.vocabulary, args.units)
    model = model.to(args.device).train()
    task = SimpleNamespace(
        source_dictionary=names,
        target_text_dictionary=names,
        target_dictionary=names,
        texts={},
        frame_ms=model.frame_ms,
    )
    criterion = EchoStreamMultiTaskCriterion(EchoStreamMultiTaskCriterionConfig(), task).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5, betas=(0.9, 0.98))
    batch = make_batch(args)
    audio_s = batch["nsentences"] * args.utterance_s
    emit({"kind": "model", "parameters": count_parameters(model), "audio_s": audio_s})

    def step(segment: int) -> None:
        with torch.autocast(args.device, enabled=args.device == "cuda"):
            loss, size, *_ = criterion(model, {**batch, "segment": segment})
        loss.div(size).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if args.device == "cuda":
            torch.cuda.synchronize()

    progress = Progress(f"{args.arch} on {args.device}")
    sizes = sorted(set(args.sizes), key=lambda size: size or float("inf"))
    step(sizes[0])  # allocates Adam's state
    for done, segment in enumerate(sizes, start=1):
        step(segment)
        times = []
        for _ in range(args.repetitions):
            begun = time.perf_counter()
            step(segment)
            times.append(time.perf_counter() - begun)
        peak = torch.cuda.max_memory_allocated() if args.device == "cuda" else peak_bytes() - base
        emit(
            {
                "kind": "step",
                "segment": segment,
                "seconds": percentile(times, 50, interpolated=True),
                "peak_bytes": peak,
            }
        )
        progress.update(done, len(sizes), "segment sizes")


# --- calculating -------------------------------------------------------------------------------------------------


def requirements(args: argparse.Namespace, model: Record, steps: dict[int, Record]) -> list[Record]:
    """What each number of updates needs, from the mean of the segment sizes as training draws them."""
    step_s = sum(steps[size]["seconds"] for size in args.sizes) / len(args.sizes)
    update_audio_s = args.update_frames / FRAMES_PER_S
    update_s = step_s * update_audio_s / model["audio_s"] / args.devices
    return [
        {
            "updates": updates,
            "epochs": updates * update_audio_s / (3600 * args.hours),
            "audio_h": updates * update_audio_s / 3600,
            "update_s": update_s,
            "hours": updates * update_s / 3600,
        }
        for updates in args.updates
    ]


def report(args: argparse.Namespace, facts: Record, model: Record, steps: dict[int, Record]) -> str:
    """Both tables, in markdown."""
    lines = [
        f"{args.arch}, {model['parameters'] / 1e6:.1f} M parameters, on {args.device}, {args.threads} threads: "
        f"{describe_machine(facts)}",
        "",
        f"| segment | step of {model['audio_s']:.0f} s of audio | audio a second | peak memory without libraries |",
        "|---|---|---|---|",
    ]
    for size, step in steps.items():
        lines.append(
            f"| {segment_name(size)} | {step['seconds']:.2f} s | {model['audio_s'] / step['seconds']:.1f} s "
            f"| {step['peak_bytes'] / 1e9:.2f} GB |"
        )
    if set(steps) == set(args.sizes):
        lines += [
            "",
            f"| updates of {args.update_frames / 6000:.1f} min of audio | epochs of {args.hours:g} h | an update "
            f"| in all, {args.devices} such device{'s' if args.devices > 1 else ''} |",
            "|---|---|---|---|",
        ]
        lines += [
            f"| {row['updates']} | {row['epochs']:.0f} | {row['update_s']:.1f} s | {row['hours']:.0f} h |"
            for row in requirements(args, model, steps)
        ]
        size_gb = 12 * model["parameters"] / 1e9
        lines += ["", f"A checkpoint with Adam's state takes {size_gb:.2f} GB, one for inference {size_gb / 3:.2f} GB."]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    if args.worker:
        run_worker(lambda: measure(args), args.worker)
        return
    facts = machine_facts()
    records, problem = collect(Path(__file__), list(sys.argv[1:] if argv is None else argv), [args.threads])
    model = next((record for record in records if record["kind"] == "model"), None)
    steps = {record["segment"]: record for record in records if record["kind"] == "step"}
    if model and steps:
        print(report(args, facts, model, steps))
        if args.json:
            rows = requirements(args, model, steps) if set(steps) == set(args.sizes) else []
            content = {"machine": facts, "records": records, "requirements": rows}
            try:
                args.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
            except OSError as error:
                raise SystemExit(f"error: cannot write --json {args.json}: {error.strerror}") from error
    if problem:
        raise SystemExit(f"error: {problem}")


if __name__ == "__main__":
    main()
