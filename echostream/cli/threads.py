"""How many processor threads a translator gets, measured when it is loaded.

A step is small work. With torch's default of a thread for every core, the threads of a small model wait for each other
longer than they compute, and as soon as anything else runs on the machine they wait for the one that doesn't run. One
thread is taken where it keeps up easily; otherwise more, as long as each doubling is worth it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from echostream.constants import DEFAULT_SEGMENT_MS, SAMPLE_RATE

if TYPE_CHECKING:
    from echostream.streaming import StreamingTranslator

EASY = 0.2  # real-time factor at which one thread leaves room for everything else
WORTH_IT = 0.8  # of the time that half as many threads take
ROUNDS = 3  # interleaved; the fastest of each counts
STEPS = 2  # segments that are timed together


@dataclass(frozen=True)
class ThreadChoice:
    """What was chosen, and the real-time factors that it was chosen by."""

    threads: int
    factors: dict[int, float]

    def __str__(self) -> str:
        measured = ", ".join(f"{count}: {factor:.2f}" for count, factor in self.factors.items())
        return f"{self.threads} (real-time factor by threads: {measured})" if measured else str(self.threads)


def choose_threads(translator: StreamingTranslator, most: int | None = None) -> ThreadChoice:
    """Set torch's threads to the number that serves ``translator`` best on a processor.

    Args:
        translator: of which segments of noise are encoded and recognised.
        most: threads to consider; None: as many as there are cores for this process.
    """
    most = len(os.sched_getaffinity(0)) if most is None else most
    view = translator.view(task="asr", segment_ms=translator.segment_ms or DEFAULT_SEGMENT_MS)
    noise = np.random.default_rng(0).normal(0, 0.05, view.segment_ms * SAMPLE_RATE // 1000).astype(np.float32)
    state = replace(view.init_state(), gate=None)  # noise would not pass
    for _ in range(2):  # until segments come with the right context that they wait for
        view.step(noise, state)

    def factor(threads: int) -> float:
        torch.set_num_threads(threads)
        started = time.perf_counter()
        for _ in range(STEPS):
            view.step(noise, state)
        return (time.perf_counter() - started) / (STEPS * len(noise) / SAMPLE_RATE)

    return _choose(factor, most)


def _choose(factor: Callable[[int], float], most: int) -> ThreadChoice:
    alone = min(factor(1) for _ in range(ROUNDS))
    if alone < EASY or most < 2:
        torch.set_num_threads(1)
        return ThreadChoice(1, {1: alone})
    counts = [1]
    while counts[-1] * 2 <= most:
        counts.append(counts[-1] * 2)
    rounds = [[factor(count) for count in counts] for _ in range(ROUNDS)]
    factors = dict(zip(counts, map(min, zip(*rounds, strict=True)), strict=True))
    best = 1
    for count in counts[1:]:
        if factors[count] < WORTH_IT * factors[best]:
            best = count
    torch.set_num_threads(best)
    return ThreadChoice(best, factors)
