"""Many streams, one model: whichever streams have a segment waiting are stepped together, in a worker thread.

A step takes at most one segment of a stream, so that one with much audio behind it waits its turn like all others.
There is no timer: a batch is whatever became ready while the last one was computed. On an idle machine a session
is stepped at once and alone; the busier it is, the larger the batches grow.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from echostream.serve.metrics import Metrics
from echostream.serve.protocol import Settings
from echostream.streaming import EchoStreamState, StepOutput, StreamingTranslator
from echostream.streaming.recomposer import NO_SAMPLES

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """What a step gave a stream.

    Attributes:
        output: words and samples.
        source_s: source audio used up so far, in seconds.
        reaction_s: since the last sample of it had arrived.
        rtf: compute time of the stream, its share of each batch, for a second of audio so far.
        is_last: nothing follows.
    """

    output: StepOutput
    source_s: float
    reaction_s: float
    rtf: float
    is_last: bool


class Stream:
    """One session's audio on its way into the translator; only the event loop touches it.

    Args:
        translator: shared by all streams.
        settings: of this one.
        on_step: takes what each step gives.
        on_failure: called instead if the step failed; the stream is dead then.
    """

    def __init__(
        self,
        translator: StreamingTranslator,
        settings: Settings,
        on_step: Callable[[Step], None],
        on_failure: Callable[[], None],
    ) -> None:
        self.translator, self.settings = settings.apply(translator), settings
        self.on_step, self.on_failure = on_step, on_failure
        self.state = self.translator.init_state()
        self.received_samples = self.used_samples = 0
        self.compute_s = 0.0
        self.ended = self.closed = False
        self._pieces: deque[np.ndarray] = deque()
        self._arrivals: deque[tuple[int, float]] = deque()  # samples received by then, time
        self._needed = self.translator.missing_samples(self.state)

    @property
    def waiting_samples(self) -> int:
        return self.received_samples - self.used_samples

    @property
    def waiting_s(self) -> float:
        return self.waiting_samples / self.translator.sample_rate

    @property
    def is_ready(self) -> bool:
        """Whether a step would bring something."""
        return not self.closed and (self.ended or self.waiting_samples >= self._needed)

    def push(self, samples: np.ndarray) -> None:
        """Queue float32 ``(n,)`` @16 kHz."""
        if samples.size:
            self._pieces.append(samples)
            self.received_samples += samples.size
            self._arrivals.append((self.received_samples, time.perf_counter()))

    def end(self) -> None:
        """The source has ended."""
        self.ended = True
        self._arrivals.append((self.received_samples, time.perf_counter()))

    def take(self) -> tuple[np.ndarray, bool]:
        """The samples of the next step, and whether it is the last."""
        is_last = self.ended and self.waiting_samples < self._needed
        wanted = self.waiting_samples if is_last else self._needed
        parts = []
        while wanted:
            piece = self._pieces.popleft()
            if piece.size > wanted:
                self._pieces.appendleft(piece[wanted:])
                piece = piece[:wanted]
            parts.append(piece)
            wanted -= piece.size
            self.used_samples += piece.size
        return np.concatenate([NO_SAMPLES, *parts]), is_last

    def give(self, output: StepOutput, is_last: bool, compute_s: float) -> Step:
        """Account for a step that has been made."""
        now = arrived = time.perf_counter()
        while self._arrivals and self._arrivals[0][0] < self.used_samples:
            self._arrivals.popleft()
        if is_last:
            arrived = self._arrivals[-1][1]
            self.closed = True
        else:
            arrived = self._arrivals[0][1]
            self._needed = self.translator.missing_samples(self.state)
        self.compute_s += compute_s
        source_s = self.used_samples / self.translator.sample_rate
        return Step(output, source_s, now - arrived, self.compute_s / max(source_s, 0.04), is_last)


class Batcher:
    """Steps streams that have audio, together where their settings agree.

    Args:
        max_batch: most streams in a step; 1: one by one.
        metrics: told of every step.
    """

    def __init__(self, max_batch: int, metrics: Metrics) -> None:
        self.max_batch, self.metrics = max_batch, metrics
        self.streams: set[Stream] = set()
        self._ready: dict[Stream, None] = {}  # in the order in which they became ready
        self._stepping: list[Stream] = []
        self._wake = asyncio.Event()
        # How many threads torch may use is known to each thread by itself.
        self._executor = ThreadPoolExecutor(1, "translator", torch.set_num_threads, (torch.get_num_threads(),))
        metrics.waiting_s.set_function(lambda: sum(stream.waiting_s for stream in self.streams))

    def add(self, stream: Stream) -> None:
        """Take a stream in."""
        self.streams.add(stream)

    def remove(self, stream: Stream) -> None:
        """Forget a stream, whatever it was doing."""
        stream.closed = True
        self.streams.discard(stream)
        self._ready.pop(stream, None)

    def notify(self, stream: Stream) -> None:
        """A stream has got audio or has ended."""
        if stream.is_ready and stream not in self._stepping:
            self._ready.setdefault(stream)
            self._wake.set()

    async def run(self) -> None:
        """Step until cancelled."""
        try:
            while True:
                await self._wake.wait()
                await self._step()
                if not self._ready:
                    self._wake.clear()
        finally:
            self._executor.shutdown(wait=True)

    async def _step(self) -> None:
        batch = self._stepping = self._next_batch()
        if not batch:
            return
        pieces, is_last = map(list, zip(*(stream.take() for stream in batch), strict=True))
        states = [stream.state for stream in batch]
        began = time.perf_counter()
        try:
            outputs = await asyncio.get_running_loop().run_in_executor(
                self._executor, self._step_all, batch, pieces, states, is_last
            )
        finally:
            self._stepping = []
        took = time.perf_counter() - began
        self.metrics.step_s.observe(took)
        self.metrics.batch_size.observe(len(batch))
        for stream, output, last in zip(batch, outputs, is_last, strict=True):
            if output is None:
                self.remove(stream)
                stream.on_failure()
            if stream.closed or output is None:
                continue
            step = stream.give(output, last, took / len(batch))
            self.metrics.reaction_s.observe(step.reaction_s)
            if last:
                self.remove(stream)
            stream.on_step(step)
            self.notify(stream)

    @staticmethod
    def _step_all(
        batch: list[Stream], pieces: list[np.ndarray], states: list[EchoStreamState], is_last: list[bool]
    ) -> list[StepOutput | None]:
        """One step of all streams; if it fails, each by itself. None for a stream whose step fails."""
        translator = batch[0].translator
        try:
            return list(translator.step_batch(pieces, states, is_last))
        except Exception:  # whatever went wrong, no state has changed, and the other streams go on
            log.exception("a step of %d sessions failed", len(batch))
        if len(batch) == 1:
            return [None]
        outputs: list[StepOutput | None] = []
        for piece, state, last in zip(pieces, states, is_last, strict=True):
            try:
                outputs.append(translator.step(piece, state, last))
            except Exception:
                log.exception("the step of one of them failed by itself, too")
                outputs.append(None)
        return outputs

    def _next_batch(self) -> list[Stream]:
        """The stream that has waited longest, and others of the same settings."""
        batch: list[Stream] = []
        for stream in self._ready:
            if (not batch or stream.settings == batch[0].settings) and len(batch) < self.max_batch:
                batch.append(stream)
        for stream in batch:
            del self._ready[stream]
        return batch
