"""What bounds a step of the streaming encoder: operators, and the weights that it has to read."""

from __future__ import annotations

import copy
import time

import torch

from echostream.constants import FRAME_MS
from echostream.modules.fbank import SHIFT_SAMPLES
from echostream.modules.subsampling import STRIDE
from echostream.percentiles import percentile
from scripts.benchmarks.benchmarking import Noise, emit
from scripts.benchmarks.encoder_systems import StreamingEncoder
from scripts.benchmarks.figures import markdown_table

# Operators by kind, for the profile.
KINDS = {
    "matrix products": ("addmm", "mm", "bmm", "baddbmm", "addmv", "matmul", "linear", "mkl_linear", "mkldnn_linear"),
    "attention": ("scaled_dot_product", "softmax", "flash"),
    "convolution": ("conv", "thnn", "mkldnn_conv", "slow_conv"),
    "moving memory": (
        *("cat", "copy_", "clone", "stack", "gather", "index", "to", "fill_", "zero_", "slice", "select", "view"),
        *("transpose", "reshape", "unflatten", "flatten", "expand", "as_strided", "empty", "contiguous", "unbind"),
    ),
}


def profile(system: StreamingEncoder, segment_ms: int, steps: int = 60) -> None:
    """Print what a step spends its time on."""
    system.segment = segment_ms // FRAME_MS
    state, source = system.init_state(), Noise()
    for _ in range(round(4000 / segment_ms) + 3):  # until left context and memory are filled
        system.step(source.read(system.next_samples(state)), state)
    pieces = [source.read(system.segment * STRIDE * SHIFT_SAMPLES) for _ in range(steps)]
    fork = copy.deepcopy(state)
    times = []
    for samples in pieces:
        begun = time.perf_counter()
        system.step(samples, fork)
        times.append(1000 * (time.perf_counter() - begun))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], acc_events=True) as profiler:
        for samples in pieces:
            system.step(samples, state)
    events = sorted(profiler.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    shares: dict[str, float] = dict.fromkeys([*KINDS, "the rest"], 0.0)
    for event in events:
        shares[kind_of(event.key)] += event.self_cpu_time_total / total
    weights = sum(parameter.numel() * parameter.element_size() for parameter in system.parameters())
    speed = read_speed()
    table = markdown_table(
        ["operator", "calls a step", "us a step", "share %"],
        [
            [event.key, event.count / steps, event.self_cpu_time_total / steps, 100 * event.self_cpu_time_total / total]
            for event in events[:20]
        ],
    )
    calls = sum(event.count for event in events) / steps
    median, p95 = (percentile(times, percent, interpolated=True) for percent in (50, 95))
    print(
        f"A step of {segment_ms} ms with {torch.get_num_threads()} threads: "
        f"p50 {median:.2f} ms, p95 {p95:.2f} ms ({total / steps / 1000:.2f} ms under the profiler)\n"
        f"Weights read a step: {weights / 1e6:.1f} MB; a matrix-vector product reads {speed / 1e9:.1f} GB/s here, "
        f"so that no step can be faster than about {1000 * weights / speed:.2f} ms\n"
        f"Operators called a step: {calls:.0f}\n"
        + "".join(f"{name}: {100 * share:.1f} %\n" for name, share in shares.items())
        + f"\n{table}",
        flush=True,
    )
    emit({"kind": "profile", "segment_ms": segment_ms, "p50_ms": median, "weight_bytes": weights, "shares": shares})


def kind_of(operator: str) -> str:
    name = operator.removeprefix("aten::").lstrip("_")
    for kind, prefixes in KINDS.items():
        if name.startswith(prefixes):
            return kind
    return "the rest"


def read_speed(megabytes: int = 256) -> float:
    """Bytes a second that a matrix-vector product reads from main memory."""
    matrix = torch.ones(megabytes * 250, 1000)
    vector = torch.ones(1000)
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        torch.mv(matrix, vector)
        times.append(time.perf_counter() - begun)
    return matrix.numel() * matrix.element_size() / min(times)
