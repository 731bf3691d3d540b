"""Continuous batching of many streams on one model: all streams with a complete segment share a step.

Steps run in a worker thread. A step takes at most one segment of each stream, so that a stream with much waiting audio
does not delay the others. There is no timer: a batch consists of the streams that became ready during the previous
step. On an idle machine a stream is processed at once and alone, and batches grow with the load.
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

from echostream.constants import FRAME_S
from echostream.serve.metrics import Metrics
from echostream.serve.protocol import Settings
from echostream.streaming import EchoStreamState, StepOutput, StreamingTranslator
from echostream.streaming.recomposer import NO_SAMPLES

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """Result of a step for one stream.

    Attributes:
        output: words and samples.
        source_s: length of the source audio processed so far, in seconds.
        reaction_s: time in seconds since the last sample of this audio arrived.
        rtf: real-time factor of the stream so far: its share of the compute time of all batches, divided by the length
            of its audio.
        is_last: whether this is the last step.
    """

    output: StepOutput
    source_s: float
    reaction_s: float
    rtf: float
    is_last: bool


class Stream:
    """Input queue and translator state of one session; to be used in the event loop only.

    Args:
        translator: translator that all streams share.
        settings: settings of this stream.
        on_step: called with the result of each step.
        on_failure: called if a step failed; the stream can't be used afterwards.
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
        self._arrivals: deque[tuple[int, float]] = deque()  # (samples received so far, time) of each push
        self._needed = self.translator.missing_samples(self.state)

    @property
    def waiting_samples(self) -> int:
        return self.received_samples - self.used_samples

    @property
    def waiting_s(self) -> float:
        return self.waiting_samples / self.translator.sample_rate

    @property
    def is_ready(self) -> bool:
        """Whether a step is due: a segment is complete, or the source has ended."""
        return not self.closed and (self.ended or self.waiting_samples >= self._needed)

    @property
    def waiting(self) -> np.ndarray:
        """Samples that were pushed and not yet used, float32 ``(n,)``."""
        return np.concatenate([NO_SAMPLES, *self._pieces])

    def go_on(
        self, state: EchoStreamState, used_samples: int, waiting: np.ndarray, ended: bool, compute_s: float
    ) -> None:
        """Go on where another stream was, of this or another process."""
        if state.task != self.translator.task:
            raise ValueError(f"a stream for {state.task} can't go on for {self.translator.task}")
        self.state, self.compute_s = state, compute_s
        self.received_samples = self.used_samples = used_samples
        self._needed = self.translator.missing_samples(state)
        self.push(waiting)
        if ended:
            self.end()

    def push(self, samples: np.ndarray) -> None:
        """Queue samples, float32 ``(n,)`` @16 kHz."""
        if samples.size:
            self._pieces.append(samples)
            self.received_samples += samples.size
            self._arrivals.append((self.received_samples, time.perf_counter()))

    def end(self) -> None:
        """Mark the end of the source."""
        self.ended = True
        self._arrivals.append((self.received_samples, time.perf_counter()))

    def take(self) -> tuple[np.ndarray, bool]:
        """Remove the samples of the next step from the queue; returns them, and whether the step is the last."""
        is_last = self.ended and self.waiting_samples < self._needed
        missing = self.waiting_samples if is_last else self._needed
        parts = []
        while missing:
            piece = self._pieces.popleft()
            if piece.size > missing:
                self._pieces.appendleft(piece[missing:])
                piece = piece[:missing]
            parts.append(piece)
            missing -= piece.size
            self.used_samples += piece.size
        return np.concatenate([NO_SAMPLES, *parts]), is_last

    def finish_step(self, output: StepOutput, is_last: bool, compute_s: float) -> Step:
        """Update times and counters after a step of ``compute_s`` seconds; returns its result."""
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
        return Step(output, source_s, now - arrived, self.compute_s / max(source_s, FRAME_S), is_last)


class Batcher:
    """Runs the steps of all streams; streams with equal settings share a step.

    Args:
        max_batch: maximum number of streams per step; 1: no batching.
        metrics: updated after every step.
    """

    def __init__(self, max_batch: int, metrics: Metrics) -> None:
        self.max_batch, self.metrics = max_batch, metrics
        self.streams: set[Stream] = set()
        self._ready: dict[Stream, None] = {}  # an ordered set: streams in the order in which they became ready
        self._in_step: list[Stream] = []
        self._wake = asyncio.Event()
        # torch's number of threads is a setting of each thread, so the worker thread has to copy it.
        self._executor = ThreadPoolExecutor(1, "translator", torch.set_num_threads, (torch.get_num_threads(),))
        metrics.waiting_s.set_function(lambda: sum(stream.waiting_s for stream in self.streams))

    def add(self, stream: Stream) -> None:
        """Register a stream."""
        self.streams.add(stream)

    def remove(self, stream: Stream) -> None:
        """Remove a stream, even during a step; the result of that step is then discarded."""
        stream.closed = True
        self.streams.discard(stream)
        self._ready.pop(stream, None)

    def notify(self, stream: Stream) -> None:
        """Schedule a stream that has received audio or has ended, if a step is due."""
        if stream.is_ready and stream not in self._in_step:
            self._ready.setdefault(stream)
            self._wake.set()

    def is_stepping(self, stream: Stream) -> bool:
        """Whether a step of this stream is under way."""
        return stream in self._in_step

    async def run(self) -> None:
        """Run steps until cancelled."""
        try:
            while True:
                await self._wake.wait()
                await self._step()
                if not self._ready:
                    self._wake.clear()
        finally:
            self._executor.shutdown(wait=True)

    async def _step(self) -> None:
        batch, pieces, is_last = [], [], []
        for stream in self._next_batch():
            try:
                piece, last = stream.take()
            except Exception:  # whatever is wrong with one stream, the others go on
                self._fail(stream, "the audio of a session could not be taken")
                continue
            batch.append(stream)
            pieces.append(piece)
            is_last.append(last)
        self._in_step = batch
        if not batch:
            return
        states = [stream.state for stream in batch]
        start = time.perf_counter()
        try:
            outputs = await asyncio.get_running_loop().run_in_executor(
                self._executor, self._step_all, batch, pieces, states, is_last
            )
        finally:
            self._in_step = []
        duration_s = time.perf_counter() - start
        self.metrics.step_s.observe(duration_s)
        self.metrics.batch_size.observe(len(batch))
        for stream, output, last in zip(batch, outputs, is_last, strict=True):
            if output is None:
                self._fail(stream)
                continue
            if stream.closed:
                continue
            try:
                step = stream.finish_step(output, last, duration_s / len(batch))
                self.metrics.reaction_s.observe(step.reaction_s)
                if last:
                    self.remove(stream)
                stream.on_step(step)
                self.notify(stream)
            except Exception:
                self._fail(stream, "the output of a session could not be given out")

    def _fail(self, stream: Stream, what: str | None = None) -> None:
        """End one stream; ``what`` went wrong is logged with the exception that is being handled."""
        if what is not None:
            log.exception("%s", what)
        self.remove(stream)
        try:
            stream.on_failure()
        except Exception:
            log.exception("a session could not be told that it has failed")

    @staticmethod
    def _step_all(
        batch: list[Stream], pieces: list[np.ndarray], states: list[EchoStreamState], is_last: list[bool]
    ) -> list[StepOutput | None]:
        """Run one step of all streams together or, if that fails, of each one alone; None for streams that fail."""
        translator = batch[0].translator
        try:
            return list(translator.step_batch(pieces, states, is_last))
        except Exception:  # a failed step changes no state, so the other streams can continue
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
        """The stream that has waited longest and others with equal settings, up to ``max_batch``."""
        batch: list[Stream] = []
        for stream in self._ready:
            if (not batch or stream.settings == batch[0].settings) and len(batch) < self.max_batch:
                batch.append(stream)
        for stream in batch:
            del self._ready[stream]
        return batch
