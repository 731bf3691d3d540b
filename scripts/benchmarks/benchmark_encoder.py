"""Speech encoder with carried state against re-encoding the whole prefix: time, memory and their growth.

    python scripts/benchmarks/benchmark_encoder.py --threads 1 2 --json encoder.json --plot encoder.png
    python scripts/benchmarks/benchmark_encoder.py --flatness-hours 1 --threads 1
    python scripts/benchmarks/benchmark_encoder.py --profile --threads 1

Both systems have the published size, random weights and the same CTC heads; with the same layers the Conformer has more
parameters, and `--arch echostream_conformer_size` has as many. Ours really runs each stream. Running the
other for each chunk of a long stream would take hours: single re-encodes are measured at a grid of prefix lengths and
summed over the chunks, and one stream is run for real to check that sum. Ctrl-C keeps what was measured.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from echostream.constants import FRAME_MS
from echostream.models.config import ARCHITECTURES, architecture_config
from echostream.modules.subsampling import STRIDE
from echostream.percentiles import percentile
from scripts.benchmarks.benchmarking import (
    SAMPLE_RATE,
    Noise,
    Progress,
    Record,
    available_bytes,
    count_parameters,
    emit,
    peak_bytes,
    prefix_grid,
    run_benchmark,
    settle_memory,
    stream_marks,
    time_prefixes,
)
from scripts.benchmarks.encoder_report import FLATNESS_SEGMENT_MS, draw, report, summarise
from scripts.benchmarks.encoder_systems import ReencodingConformer, StreamingEncoder, build_reencoding, build_streaming
from scripts.benchmarks.figures import chunk_schedule
from scripts.benchmarks.step_profile import profile

FRAME_SAMPLES = FRAME_MS * SAMPLE_RATE // 1000
TRAINING_SEGMENTS = (8, 32, 0)  # 40 ms frames; 0: whole utterance


def main() -> None:
    args = parse_arguments()
    run_benchmark(Path(__file__).resolve(), args, measure, summarise, report, draw)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--arch", choices=sorted(ARCHITECTURES), default="echostream", help="ours")
    parser.add_argument(
        "--reencoding-arch", choices=sorted(ARCHITECTURES), default="echostream", help="whose sizes the Conformer has"
    )
    parser.add_argument("--vocab", type=int, default=6000, help="classes of each CTC head")
    parser.add_argument("--lengths-s", type=float, nargs="+", default=[5, 15, 30, 60, 300], help="stream lengths (s)")
    parser.add_argument(
        "--segments-ms", type=int, nargs="+", default=[320, 160, 640, 40], help=f"segments, multiples of {FRAME_MS} ms"
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="threads, each in a process of its own")
    parser.add_argument("--max-stream-s", type=float, default=300, help="longest stream of ours (s)")
    parser.add_argument("--max-steps", type=int, default=0, help="most steps of one of our streams; 0: no limit")
    parser.add_argument("--max-prefix-s", type=float, default=300, help="longest prefix re-encoded (s)")
    parser.add_argument("--repetitions", type=int, default=4, help="re-encodes a prefix length, if it takes below 2 s")
    parser.add_argument(
        "--validate-s", type=float, default=15, help="stream that the re-encoder runs for real (s); 0: none"
    )
    parser.add_argument("--validate-segment-ms", type=int, default=320, help="its chunk (ms)")
    parser.add_argument(
        "--training-batch", type=int, default=4, help="utterances of the training batch; 0: no training"
    )
    parser.add_argument("--training-s", type=float, default=10, help="length of each of them (s)")
    parser.add_argument("--flatness-hours", type=float, default=0, help="only stream ours for so long (h)")
    parser.add_argument("--profile", action="store_true", help="only show what bounds a step of the shortest segment")
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--plot", type=Path, help="draw a PNG there (needs matplotlib)")
    parser.add_argument("--worker", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    for segment in [*args.segments_ms, args.validate_segment_ms]:
        if segment < FRAME_MS or segment % FRAME_MS:
            parser.error(f"a segment must be a positive multiple of {FRAME_MS} ms, not {segment}")
    if min(args.lengths_s) <= 0 or min(args.threads) < 1:
        parser.error("lengths and thread counts must be positive")
    return args


# --- measurements, in a process of their own ---------------------------------------------------------------------


def measure(args: argparse.Namespace) -> None:
    cfg = architecture_config(args.arch)
    ours = build_streaming(cfg, args.vocab)
    if args.profile:
        profile(ours, min(args.segments_ms))
        return
    if args.flatness_hours:
        measure_flatness(ours, args.flatness_hours, args.worker)
        return
    emit({"kind": "size", "system": "ours", "parameters": count_parameters(ours)})
    warm_up(ours)
    lengths = [length for length in args.lengths_s if length <= args.max_stream_s]
    for segment_ms in args.segments_ms:
        ours.segment = segment_ms // FRAME_MS
        progress = Progress(f"{args.worker} threads, ours, {segment_ms} ms")
        for mark in stream_marks(ours, lengths, segment_ms, progress, args.max_steps) if lengths else ():
            emit({"kind": "stream", "segment_ms": segment_ms, **vars(mark)})
    if args.training_batch:
        for segment in TRAINING_SEGMENTS:
            emit({"kind": "training", "system": "ours", "segment": segment, **time_training(ours, segment, args)})
    del ours

    theirs = build_reencoding(architecture_config(args.reencoding_arch), args.vocab)
    emit({"kind": "size", "system": "theirs", "parameters": count_parameters(theirs)})
    theirs.run(Noise().read(SAMPLE_RATE))
    if args.training_batch:
        emit({"kind": "training", "system": "theirs", "segment": 0, **time_training(theirs, 0, args)})
    measure_prefixes(theirs, args)
    if args.validate_s:
        emit(
            {
                "kind": "executed",
                "stream_s": args.validate_s,
                "segment_ms": args.validate_segment_ms,
                "seconds": execute(theirs, args),
            }
        )


def warm_up(system: StreamingEncoder, steps: int = 3) -> None:
    state = system.init_state()
    for _ in range(steps):
        system.step(Noise().read(system.next_samples(state)), state)


def measure_prefixes(system: ReencodingConformer, args: argparse.Namespace) -> None:
    """Time and memory of re-encoding a prefix, at a grid of lengths."""
    grid = prefix_grid([*args.lengths_s, args.validate_s or min(args.lengths_s)], args.max_prefix_s)
    progress = Progress(f"{args.worker} threads, re-encoding prefixes")

    def work(up_to_s: float) -> float:  # in percent: the cost grows with the square of the length
        return 100 * sum(at**2 for at in grid if at <= up_to_s) / sum(at**2 for at in grid)

    def once(samples: np.ndarray) -> float:
        begun = time.perf_counter()
        system.run(samples)
        return time.perf_counter() - begun

    peak, last_s = 0, grid[0]
    for prefix_s in grid:
        base = settle_memory()
        expected = peak * (prefix_s / last_s) ** 2  # attention scores of all pairs of frames
        if expected > available_bytes():
            print(
                f"a prefix of {prefix_s:g} s would need about {expected / 1e9:.0f} GB: skipped with all longer ones",
                file=sys.stderr,
            )
            break
        seconds = percentile(time_prefixes(once, prefix_s, args.repetitions, 400, FRAME_SAMPLES), 50, interpolated=True)
        peak = max(0, peak_bytes() - base)
        last_s = prefix_s
        emit({"kind": "prefix", "prefix_s": prefix_s, "seconds": seconds, "peak_bytes": peak})
        progress.update(round(work(prefix_s), 2), round(work(grid[-1]), 2), "% of the work")


def execute(system: ReencodingConformer, args: argparse.Namespace) -> float:
    """Seconds of compute of a stream that is really re-encoded at every chunk."""
    samples = Noise().read(round(args.validate_s * SAMPLE_RATE))
    progress = Progress(f"{args.worker} threads, re-encoding for real")
    total = 0.0
    for there_s in chunk_schedule(args.validate_s, args.validate_segment_ms):
        begun = time.perf_counter()
        system.run(samples[: round(there_s * SAMPLE_RATE)])
        total += time.perf_counter() - begun
        progress.update(round(float(there_s), 2), args.validate_s, "s of audio")
    return total


def time_training(system: torch.nn.Module, segment: int, args: argparse.Namespace, repetitions: int = 3) -> Record:
    """Seconds of a forward and of a backward pass over one batch, with the losses of both CTC heads."""
    system.train()
    random = torch.Generator().manual_seed(0)
    features = torch.randn(args.training_batch, round(100 * args.training_s), 80, generator=random)
    lengths = torch.full((args.training_batch,), features.size(1))
    # three subwords a second
    shape = (args.training_batch, max(1, round(3 * args.training_s)))
    targets = torch.randint(4, args.vocab, shape, generator=random)
    target_lengths = torch.full((args.training_batch,), targets.size(1))
    forward, backward = [], []
    for _ in range(1 + repetitions):
        begun = time.perf_counter()
        *scores, frame_lengths = system(features, lengths, segment)
        loss = sum(
            F.ctc_loss(logits.log_softmax(-1).transpose(0, 1), targets, frame_lengths, target_lengths)
            for logits in scores
        )
        middle = time.perf_counter()
        loss.backward()
        forward.append(middle - begun)
        backward.append(time.perf_counter() - middle)
        system.zero_grad(set_to_none=True)
    system.eval()
    audio_s = args.training_batch * args.training_s
    # the first pass is the warm-up
    return {
        "forward_per_audio_s": percentile(forward[1:], 50, interpolated=True) / audio_s,
        "backward_per_audio_s": percentile(backward[1:], 50, interpolated=True) / audio_s,
        "audio_frames": int(features.size(1) // STRIDE * args.training_batch),
    }


def measure_flatness(system: StreamingEncoder, hours: float, threads: int) -> None:
    """Stream for hours; what a second of audio costs and what is remembered, minute by minute."""
    system.segment = FLATNESS_SEGMENT_MS // FRAME_MS
    progress = Progress(f"{threads} threads, {hours:g} h at {FLATNESS_SEGMENT_MS} ms", interval_s=10)
    state, source = system.init_state(), Noise()
    base = settle_memory()
    total_s, done_s, minute = 3600 * hours, 0.0, 0
    spent, heard = 0.0, 0.0
    while done_s < total_s:
        samples = source.read(system.next_samples(state))
        begun = time.perf_counter()
        system.step(samples, state)
        spent += time.perf_counter() - begun
        heard += samples.size / SAMPLE_RATE
        done_s += samples.size / SAMPLE_RATE
        progress.update(round(done_s, 1), total_s, "s of audio")
        if done_s >= 60 * (minute + 1):
            minute += 1
            emit(
                {
                    "kind": "minute",
                    "minute": minute,
                    "compute_per_audio_s": spent / heard,
                    "state_bytes": state.nbytes,
                    "peak_bytes": max(0, peak_bytes() - base),
                }
            )
            spent, heard = 0.0, 0.0


if __name__ == "__main__":
    main()
