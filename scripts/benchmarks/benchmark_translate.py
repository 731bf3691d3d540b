"""Speech-to-speech translation with carried state against recomputing every stage: time, delay, memory, growth.

    python scripts/benchmarks/benchmark_translate.py --threads 2 --json translate.json --plot translate.png

The published size with random weights, biased so that a subword is written every 320 ms, each as five units of 60 ms:
about 16 units a second and nearly as much speech out as in. Ours really runs the stream. The other way
would take hours on a long one: single writes are measured at a grid of prefix lengths and summed over the schedule,
and one short stream is run for real to check that sum. Ctrl-C keeps what was measured.
"""

from __future__ import annotations

import argparse
import time
from bisect import bisect_right
from pathlib import Path

from echostream.constants import DEFAULT_SEGMENT_MS, FRAME_S
from echostream.models.config import ARCHITECTURES
from echostream.percentiles import percentile
from echostream.streaming import EchoStreamState, StepOutput
from scripts.benchmarks.benchmarking import (
    SAMPLE_RATE,
    Noise,
    Progress,
    count_parameters,
    emit,
    peak_bytes,
    prefix_grid,
    run_benchmark,
    settle_memory,
    stream_marks,
    time_prefixes,
)
from scripts.benchmarks.figures import chunk_schedule
from scripts.benchmarks.translation_report import draw, is_write, report, summarise
from scripts.benchmarks.translation_systems import (
    FRAME_MS,
    STAGES,
    TOKEN_MS,
    RecomputedTranslation,
    StreamedTranslation,
    build_translator,
)

WRITE_SAMPLES = TOKEN_MS * SAMPLE_RATE // 1000  # the least audio that gives a subword


def main() -> None:
    args = parse_arguments()
    run_benchmark(
        Path(__file__).resolve(), args, measure, summarise, lambda records, rows: report(records, rows, args), draw
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--arch", choices=sorted(ARCHITECTURES), default="echostream", help="size of the model")
    parser.add_argument("--lengths-s", type=float, nargs="+", default=[10, 30, 60, 300], help="stream lengths (s)")
    parser.add_argument(
        "--segment-ms", type=int, default=DEFAULT_SEGMENT_MS, help=f"encoder segment, a multiple of {FRAME_MS} ms"
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[2], help="threads, each in a process of its own")
    parser.add_argument("--max-stream-s", type=float, default=300, help="longest stream of ours (s)")
    parser.add_argument("--max-prefix-s", type=float, default=300, help="longest prefix recomputed (s)")
    parser.add_argument("--repetitions", type=int, default=4, help="writes a prefix length, if one takes below 2 s")
    parser.add_argument("--validate-s", type=float, default=10, help="stream really recomputed (s); 0: none")
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--plot", type=Path, help="draw a PNG there (needs matplotlib)")
    parser.add_argument("--worker", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.segment_ms < FRAME_MS or args.segment_ms % FRAME_MS:
        parser.error(f"the segment must be a positive multiple of {FRAME_MS} ms, not {args.segment_ms}")
    if min(args.lengths_s) <= 0 or min(args.threads) < 1:
        parser.error("lengths and thread counts must be positive")
    return args


# --- measurements, in a process of their own ---------------------------------------------------------------------


def measure(args: argparse.Namespace) -> None:
    translator = build_translator(args.arch, args.segment_ms)
    emit(
        {
            "kind": "size",
            "model": count_parameters(translator.model),
            "vocoder": count_parameters(translator.vocoder),
        }
    )
    # The other way first: ours watches the modules, which would go on counting.
    other = RecomputedTranslation(translator)
    other.run(Noise().read(SAMPLE_RATE))
    measure_prefixes(other, args)
    if args.validate_s:
        seconds = execute(other, args)
        emit({"kind": "executed", "stream_s": args.validate_s, "segment_ms": args.segment_ms, "seconds": seconds})
    measure_stream(StreamedTranslation(translator), args)


def measure_prefixes(system: RecomputedTranslation, args: argparse.Namespace) -> None:
    """Time, by stage, and memory of a write when everything is recomputed, at a grid of prefix lengths."""
    grid = prefix_grid([*args.lengths_s, args.validate_s or min(args.lengths_s)], args.max_prefix_s)
    progress = Progress(f"{args.worker} threads, recomputing prefixes")
    for prefix_s in grid:
        base = settle_memory()
        runs = time_prefixes(
            lambda samples: system.run(samples)[0], prefix_s, args.repetitions, WRITE_SAMPLES, WRITE_SAMPLES
        )
        peak = max(0, peak_bytes() - base)
        stages = {stage: percentile([run[stage] for run in runs], 50, interpolated=True) for stage in STAGES}
        emit({"kind": "prefix", "prefix_s": prefix_s, "stages": stages, "peak_bytes": peak})
        progress.update(round(100 * sum(g for g in grid if g <= prefix_s) / sum(grid), 2), 100, "% of the work")


def execute(system: RecomputedTranslation, args: argparse.Namespace) -> float:
    """Seconds of compute of a stream in which every stage is really recomputed at each write."""
    samples = Noise().read(round(args.validate_s * SAMPLE_RATE))
    progress = Progress(f"{args.worker} threads, recomputing for real")
    schedule = chunk_schedule(args.validate_s, args.segment_ms)
    total = 0.0
    for there_s, writes in zip(schedule, is_write(schedule, args.segment_ms), strict=True):
        prefix = samples[: round(there_s * SAMPLE_RATE)]
        begun = time.perf_counter()
        if writes:
            system.run(prefix)
        else:
            system.read(prefix)
        total += time.perf_counter() - begun
        progress.update(round(float(there_s), 2), args.validate_s, "s of audio")
    return total


class WordDelays:
    """From the push that lets a word be written to the one that gives its first sample."""

    def __init__(self) -> None:
        self.heard_at: dict[int, float] = {}  # encoder frames after a push -> seconds of audio pushed
        self.sent: list[int] = []  # samples given after each push
        self.given_at: list[float] = []  # seconds at which they were: audio pushed and the compute of that push
        self.waiting: list[tuple[int, float]] = []  # first sample of a word, seconds of audio that allowed it
        self.delays_ms: list[float] = []

    @property
    def speech_s(self) -> float:
        return self.sent[-1] / SAMPLE_RATE if self.sent else 0.0

    def push(self, seconds: float, heard_s: float, output: StepOutput, state: EchoStreamState) -> None:
        """Take in what a push gave: it took ``seconds`` and ended ``heard_s`` from the start of the stream."""
        self.heard_at[state.frames] = heard_s
        self.sent.append((self.sent[-1] if self.sent else 0) + output.samples.size)
        self.given_at.append(heard_s + seconds)
        # A word is reported when its end is known, perhaps after its first sample was given.
        for word in output.words:
            allowed_s = self.heard_at[round(word.source_time_s / FRAME_S)]
            self.waiting.append((round(word.start_s * SAMPLE_RATE), allowed_s))
        for first, allowed_s in self.waiting:
            if first < self.sent[-1]:
                self.delays_ms.append(1000 * (self.given_at[bisect_right(self.sent, first)] - allowed_s))
        self.waiting = [(first, allowed_s) for first, allowed_s in self.waiting if first >= self.sent[-1]]


def measure_stream(system: StreamedTranslation, args: argparse.Namespace) -> None:
    """Ours, for real."""
    lengths = [length for length in args.lengths_s if length <= args.max_stream_s]
    if not lengths:
        return
    warm, noise = system.init_state(), Noise()
    for _ in range(4):
        system.step(noise.read(system.next_samples(warm)), warm)
    delays = WordDelays()
    progress = Progress(f"{args.worker} threads, ours, {args.segment_ms} ms")
    for mark in stream_marks(system, lengths, args.segment_ms, progress, on_step=delays.push):
        delay = {
            f"first_sample_p{p}_ms": percentile(delays.delays_ms or [float("nan")], p, interpolated=True)
            for p in (50, 95)
        }
        emit(
            {
                "kind": "stream",
                **vars(mark),
                **delay,
                "stages": system.flushed,
                "units_per_s": system.num_units / mark.length_s,
                "speech_s": delays.speech_s,
            }
        )


if __name__ == "__main__":
    main()
