"""What the benchmarks share: clean processes, streams timed step by step, prefixes recomputed, memory.

A benchmark runs its measurements in a process of its own for each number of threads, because thread pools cannot be
resized cleanly. That process prints a record as a line of JSON whenever something is measured, so that Ctrl-C loses
only what was under way; what else it prints is passed on.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import gc
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import soundfile
import torch

from echostream.constants import SAMPLE_RATE
from echostream.percentiles import percentile
from scripts.benchmarks.figures import require_plotting, write_json
from scripts.training.train_progress import minutes

Record = dict[str, Any]
FRAMES_PER_S = 100  # of the features


# --- processes ---------------------------------------------------------------------------------------------------


def emit(record: Record) -> None:
    """Hand a record to the process that collects them."""
    print(json.dumps(record), flush=True)


def collect(script: Path, arguments: Sequence[str], threads: Sequence[int]) -> tuple[list[Record], str | None]:
    """Run ``script`` with ``--worker N`` for each number of threads; its records, and why it stopped early if so."""
    records: list[Record] = []
    for count in threads:
        limits = {name: str(count) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        command = [sys.executable, str(script), *arguments, "--worker", str(count)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **limits}) as worker:
            interrupted = False
            while True:
                try:
                    for line in worker.stdout:
                        if line.startswith("{"):
                            records.append({"threads": count, **json.loads(line)})
                        else:
                            print(line, end="", flush=True)
                    break
                except KeyboardInterrupt:
                    interrupted = True
                    worker.send_signal(signal.SIGINT)  # a terminal tells both, kill only one
        if interrupted:
            return records, "interrupted: the figures are those measured so far"
        if worker.returncode:
            return records, f"the measurements with {count} threads ended early (exit status {worker.returncode})"
    return records, None


def run_worker(work: Callable[[], None], threads: int) -> None:
    """Measure in this process with so many threads; Ctrl-C ends it quietly."""
    torch.set_num_threads(threads)
    try:
        work()
    except KeyboardInterrupt:
        sys.exit(130)


class Progress:
    """Says on stderr how far a measurement is and how long it will go on."""

    def __init__(self, label: str, interval_s: float = 2.0) -> None:
        self.label, self.interval_s = label, interval_s
        self.begun = time.monotonic()
        self.told = 0.0

    def update(self, done: float, total: float, unit: str) -> None:
        now = time.monotonic()
        if now - self.told < self.interval_s and done < total:
            return
        self.told = now
        rest = "" if done < total else f", took {minutes(now - self.begun)}"
        if 0.02 * total < done < total:
            rest = f", about {minutes((now - self.begun) * (total - done) / done)} left"
        print(f"{self.label}: {done:g} of {total:g} {unit}{rest}", file=sys.stderr, flush=True)


def machine_facts() -> Record:
    """What the figures were measured on, and how busy it was before the measurement began."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load_average": round(os.getloadavg()[0], 2),
    }


def describe_machine(facts: Record) -> str:
    """One line, with a warning if something else was running."""
    text = (
        f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_gb']} GB; "
        f"Python {facts['python']}, torch {facts['torch']}"
    )
    if facts["load_average"] > 0.5:
        text += f". CAUTION: load average {facts['load_average']} at the start, so the times are not to be trusted"
    return text


def run_benchmark(
    script: Path,
    args: argparse.Namespace,
    measure: Callable[[argparse.Namespace], None],
    summarise: Callable[[list[Record], argparse.Namespace], list[Record]],
    report: Callable[[list[Record], list[Record]], str],
    draw: Callable[[Path, list[Record]], None],
) -> None:
    """What a benchmark does: measure in workers, one for each of ``args.threads``, then tables, JSON and plot.

    Raises:
        SystemExit: a worker ended early; what was measured till then is reported first.
    """
    if args.worker:
        run_worker(lambda: measure(args), args.worker)
        return
    if args.plot:
        require_plotting()
    facts = machine_facts()
    print(describe_machine(facts), file=sys.stderr)
    records, stopped = collect(script, sys.argv[1:], args.threads)
    rows = summarise(records, args)
    print(f"{describe_machine(facts)}\n")
    print(report(records, rows))
    if args.json:
        options = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
        write_json(args.json, {"machine": facts, "options": options, "rows": rows, "records": records})
    if args.plot and rows:
        draw(args.plot, rows)
    if stopped:
        raise SystemExit(f"error: {stopped}")


# --- memory ------------------------------------------------------------------------------------------------------


def _status_bytes(key: str) -> int | None:
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
    return None


def settle_memory() -> int:
    """Give freed memory back to the system, restart the peak; resident bytes now."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # Linux: resets the peak of resident memory
    except (OSError, AttributeError):
        pass  # elsewhere the peak is that of the whole process: an upper bound
    return _status_bytes("VmRSS") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def peak_bytes() -> int:
    """Peak of resident memory since :func:`settle_memory`."""
    return _status_bytes("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def available_bytes() -> float:
    """Memory that can be had without swapping; infinite where the system doesn't say."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return float("inf")


def count_parameters(module: torch.nn.Module) -> int:
    """Number of weights of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


# --- audio and streams -------------------------------------------------------------------------------------------


def read_recordings(folder: Path) -> list[np.ndarray]:
    """The wav and flac files of a folder by name, each float32 `(n,)` @16 kHz.

    Raises:
        SystemExit: a folder without recordings, or with others than 16 kHz mono.
    """
    recordings = []
    for path in sorted([*folder.glob("*.wav"), *folder.glob("*.flac")]):
        samples, rate = soundfile.read(path, dtype="float32")
        if rate != SAMPLE_RATE or samples.ndim != 1:
            raise SystemExit(f"error: {path} is not 16 kHz mono")
        recordings.append(samples)
    if not recordings:
        raise SystemExit(f"error: no wav or flac files in {folder}")
    return recordings


class Noise:
    """Endless pseudo-random audio, made as it is read."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)

    def read(self, num_samples: int) -> np.ndarray:
        """float32 ``(num_samples,)`` @16 kHz."""
        return 0.1 * self.random.standard_normal(num_samples, dtype=np.float32)


class StreamingSystem(Protocol):
    """Whatever can be stepped from segment to segment; states have ``nbytes`` and can be deep-copied."""

    def init_state(self) -> Any: ...

    def next_samples(self, state: Any) -> int:
        """Samples that complete the next segment and its look-ahead."""

    def step(self, samples: np.ndarray, state: Any, is_last: bool = False) -> Any: ...


@dataclass
class Mark:
    """Where a stream stands at one of the lengths asked for."""

    length_s: float
    compute_s: float  # all steps, and the flush that would end the stream here
    steps: int
    p50_ms: float
    p95_ms: float
    last_step_ms: float  # median over the last 2.5 s
    state_bytes: int
    peak_bytes: int


def stream_marks(
    system: StreamingSystem,
    lengths_s: Sequence[float],
    segment_ms: int,
    progress: Progress,
    max_steps: int = 0,
    on_step: Callable[[float, float, Any, Any], None] | None = None,
) -> Iterator[Mark]:
    """Run one stream for real and report it at several lengths.

    A shorter stream is the beginning of a longer one, so a single run serves all lengths; the end of each is made on
    a copy of the state.

    Args:
        system: what is measured.
        lengths_s: stream lengths in seconds.
        segment_ms: of the system, for the window of ``last_step_ms``.
        progress: told after each step.
        max_steps: stop there; 0: no limit.
        on_step: called with the seconds a step took, the seconds of audio so far, what the step gave and the state.
    """
    ends = [round(length * SAMPLE_RATE) for length in sorted(lengths_s)]
    source, state, times, consumed = Noise(), system.init_state(), [], 0
    base = settle_memory()
    while ends:
        needed = system.next_samples(state)
        chunk = source.read(needed)
        while ends and consumed + needed > ends[0]:
            end = ends.pop(0)
            fork = copy.deepcopy(state)
            begun = time.perf_counter()
            system.step(chunk[: end - consumed], fork, is_last=True)
            flush_s = time.perf_counter() - begun
            seen = times or [flush_s]
            recent = seen[-max(3, round(2500 / segment_ms)) :]
            yield Mark(
                length_s=end / SAMPLE_RATE,
                compute_s=sum(times) + flush_s,
                steps=len(times),
                p50_ms=1000 * percentile(seen, 50, interpolated=True),
                p95_ms=1000 * percentile(seen, 95, interpolated=True),
                last_step_ms=1000 * percentile(recent, 50, interpolated=True),
                state_bytes=state.nbytes,
                peak_bytes=max(0, peak_bytes() - base),
            )
        if not ends or (max_steps and len(times) >= max_steps):
            return
        begun = time.perf_counter()
        output = system.step(chunk, state)
        times.append(time.perf_counter() - begun)
        consumed += needed
        if on_step is not None:
            on_step(times[-1], consumed / SAMPLE_RATE, output, state)
        progress.update(consumed / SAMPLE_RATE, max(lengths_s), "s of audio")


# --- recomputation -----------------------------------------------------------------------------------------------


def prefix_grid(lengths_s: Sequence[float], longest_s: float) -> list[float]:
    """Prefix lengths to measure at, 0.1 s to the longest, those of the streams among them."""
    usual = [0.1, 0.3, 1, 2, 5, 10, 20, 40, 120]
    top = min(max(lengths_s), longest_s)
    return sorted({float(at) for at in [*usual, *lengths_s, top] if at <= top})


def time_prefixes(
    run: Callable[[np.ndarray], Any], prefix_s: float, repetitions: int, least_samples: int, apart_samples: int
) -> list[Any]:
    """What ``run`` measures on prefixes of about ``prefix_s``.

    A growing prefix never has the same length twice, and libraries prepare anew for each shape. So the repetitions
    are by multiples of ``apart_samples`` longer or shorter, after a first run that warms up; what takes longer than
    2 s is run once.
    """
    centre = round(prefix_s * SAMPLE_RATE)
    samples = Noise().read(max(least_samples, centre + apart_samples * repetitions))
    begun = time.perf_counter()
    first = run(samples[: max(least_samples, centre)])
    if time.perf_counter() - begun > 2 or not repetitions:
        return [first]
    offsets = [apart_samples * (index // 2 + 1) * (-1 if index % 2 else 1) for index in range(repetitions)]
    return [run(samples[: max(least_samples, centre + offset)]) for offset in offsets]
