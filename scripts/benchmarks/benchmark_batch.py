"""What a step of N sessions costs: in one batch, and one session after the other.

    python scripts/benchmarks/benchmark_batch.py --threads 2 --sessions 1 2 4 8
    python scripts/benchmarks/benchmark_batch.py --model models/fr-en --audio models/fr-en/samples

All sessions hear the recordings of --audio over and over, each from a place of its own on, so that they speak, pause
and end sentences at different times. Every step is taken twice, one session after the other and in a batch, in turns,
and both have to give the same words; in a lower --precision, whose rounding depends on the size of a product, the
steps with other words are counted instead. Without --model: the published size with random weights, which hears noise
and writes a subword each 320 ms, all sessions at the same time.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from echostream.constants import DEFAULT_SEGMENT_MS, FULL_PRECISION, PRECISIONS, SAMPLE_RATE
from echostream.models.config import ARCHITECTURES
from echostream.streaming import StreamingTranslator
from scripts.benchmarks.benchmarking import Noise, describe_machine, machine_facts, read_recordings
from scripts.benchmarks.figures import markdown_table, write_json
from scripts.benchmarks.translation_systems import FRAME_MS, StageClock, build_translator

PAUSE_S = 0.5  # between two recordings
WARM_UP_STEPS = 3  # not counted
STAGES = {
    "_features": "features",
    "_encode": "encode",
    "_recognise": "recognise",
    "_decide_and_write": "decide and write",
    "_speak_and_recompose": "speak and recompose",
}


@dataclass
class Trial:
    """Milliseconds of a step of so many sessions, one by one and batched, and of its stages."""

    sessions: int
    single_ms: float = 0.0
    batched_ms: float = 0.0
    other_words: int = 0  # steps in which a session got other words in the batch
    single_stages_ms: dict[str, float] = field(default_factory=dict)
    batched_stages_ms: dict[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        return self.batched_ms / self.single_ms


def charge(clock: StageClock, stages_ms: dict[str, float], steps: int, call: Callable[[], Any]) -> tuple[Any, float]:
    """What ``call`` gives, and its milliseconds; its share of the mean over ``steps`` goes to ``stages_ms``."""
    clock.reset()
    begun = time.perf_counter()
    result = call()
    took = time.perf_counter() - begun
    for stage, seconds in clock.seconds.items():
        stages_ms[stage] = stages_ms.get(stage, 0.0) + 1000 * seconds / steps
    return result, 1000 * took / steps


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    facts = machine_facts()
    print(describe_machine(facts), file=sys.stderr)
    translator = load(args)
    clock, tape = StageClock(list(STAGES.values())), read_tape(args.audio)
    for method, stage in STAGES.items():
        clock.watch(translator, method, stage)
    trials = [measure(translator, clock, tape, sessions, args) for sessions in args.sessions]
    print(f"{describe_machine(facts)}\n\n{report(trials, translator.segment_ms)}")
    if args.json:
        options = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
        write_json(args.json, {"machine": facts, "options": options, "trials": [asdict(trial) for trial in trials]})


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--arch", choices=sorted(ARCHITECTURES), default="echostream", help="size, random weights")
    parser.add_argument("--model", type=Path, help="model to measure instead of random weights")
    parser.add_argument("--audio", type=Path, help="folder of 16 kHz recordings to hear, wav or flac (noise)")
    parser.add_argument(
        "--segment-ms", type=int, default=DEFAULT_SEGMENT_MS, help=f"encoder segment, a multiple of {FRAME_MS} ms"
    )
    parser.add_argument("--threads", type=int, default=2, help="threads (2)")
    parser.add_argument("--device", default="cpu", help="where it is computed: cpu, cuda (cpu)")
    parser.add_argument("--precision", choices=PRECISIONS, default=FULL_PRECISION, help=f"({FULL_PRECISION})")
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 2, 4, 8], help="sessions in a step")
    parser.add_argument("--steps", type=int, default=60, help="steps of each number of sessions")
    parser.add_argument("--json", type=Path, help="write all figures there")
    args = parser.parse_args()
    if args.segment_ms < FRAME_MS or args.segment_ms % FRAME_MS:
        parser.error(f"the segment must be a positive multiple of {FRAME_MS} ms, not {args.segment_ms}")
    if min(args.threads, args.steps, *args.sessions) < 1:
        parser.error("--threads, --sessions and --steps must be positive")
    return args


def load(args: argparse.Namespace) -> StreamingTranslator:
    if not args.model:
        return build_translator(args.arch, args.segment_ms, args.device, args.precision)
    try:
        return StreamingTranslator.from_pretrained(
            args.model, segment_ms=args.segment_ms, device=args.device, precision=args.precision
        )
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error


def read_tape(folder: Path | None) -> np.ndarray:
    """What is heard, float32 ``(n,)`` @16 kHz: the recordings of a folder with pauses between them, or noise.

    Raises:
        SystemExit: see :func:`read_recordings`.
    """
    if folder is None:
        return Noise().read(30 * SAMPLE_RATE)
    pause = np.zeros(round(PAUSE_S * SAMPLE_RATE), np.float32)
    return np.concatenate([piece for samples in read_recordings(folder) for piece in (samples, pause)])


def measure(
    translator: StreamingTranslator, clock: StageClock, tape: np.ndarray, sessions: int, args: argparse.Namespace
) -> Trial:
    """Step the sessions ``args.steps`` times both ways.

    Raises:
        SystemExit: in full precision a session did not get the same words both ways.
    """
    trial, num_steps = Trial(sessions), args.steps
    alone, batch = ([translator.init_state() for _ in range(sessions)] for _ in range(2))
    places = [index * tape.size // sessions for index in range(sessions)]
    for step in range(-WARM_UP_STEPS, num_steps):
        pieces = []
        for index, state in enumerate(alone):
            size = translator.missing_samples(state)
            pieces.append(np.take(tape, range(places[index], places[index] + size), mode="wrap"))
            places[index] += size
        into = trial if step >= 0 else Trial(sessions)

        def step_alone(pieces: list[np.ndarray] = pieces) -> list:
            return [translator.step(*one) for one in zip(pieces, alone, strict=True)]

        def step_together(pieces: list[np.ndarray] = pieces) -> list:
            return translator.step_batch(pieces, batch, [False] * sessions)

        single, single_ms = charge(clock, into.single_stages_ms, num_steps, step_alone)
        batched, batched_ms = charge(clock, into.batched_stages_ms, num_steps, step_together)
        into.single_ms, into.batched_ms = into.single_ms + single_ms, into.batched_ms + batched_ms
        if [(one.words, one.source_words) for one in single] != [(one.words, one.source_words) for one in batched]:
            if args.precision == FULL_PRECISION:
                raise SystemExit("error: a session got other words in a batch than alone")
            into.other_words += 1
    return trial


def report(trials: list[Trial], segment_ms: int) -> str:
    """Tables in Markdown: all trials, and the stages of the last one."""
    header = [f"sessions, {segment_ms} ms segments", "one by one (ms)", "batched (ms)", "ratio"]
    rows = [[trial.sessions, trial.single_ms, trial.batched_ms, trial.ratio] for trial in trials]
    last = trials[-1]
    shares = [
        [stage, single, last.batched_stages_ms[stage], last.batched_stages_ms[stage] / single if single else None]
        for stage, single in last.single_stages_ms.items()
    ]
    stage_header = [f"stages, {last.sessions} sessions", *header[1:]]
    tables = f"{markdown_table(header, rows)}\n\n{markdown_table(stage_header, shares)}"
    others = ", ".join(f"{trial.other_words} with {trial.sessions}" for trial in trials if trial.other_words)
    return f"{tables}\n\nSteps with other words in the batch: {others}." if others else tables


if __name__ == "__main__":
    main()
