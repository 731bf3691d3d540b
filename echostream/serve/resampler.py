"""From a client's sample rate to the model's, in pieces; it can be saved and goes on in another process."""

from __future__ import annotations

import math

import numpy as np
import soxr

from echostream.streaming.recomposer import NO_SAMPLES

HISTORY_S = 0.25  # of the source; soxr's filters are much shorter


class Resampler:
    """Resamples one stream.

    soxr's own state can't be read. But its filters are short: a fresh one that hears the last quarter of a second again
    goes on as the old one would have, to 2e-7 of full scale. Streams at the model's rate are passed on as they are.

    Args:
        source_rate, target_rate: in Hz.
        history: the last samples of the source, float32 ``(n,)``, of a resampler that is to be continued.
        heard_samples, given_samples: what that one had taken in and given out.
    """

    def __init__(
        self,
        source_rate: int,
        target_rate: int,
        history: np.ndarray = NO_SAMPLES,
        heard_samples: int = 0,
        given_samples: int = 0,
    ) -> None:
        self.heard_samples, self.given_samples = heard_samples, given_samples
        self.history = history
        divisor = math.gcd(source_rate, target_rate)
        self._period, self._periods_samples = source_rate // divisor, target_rate // divisor
        self._keep = round(HISTORY_S * source_rate) + self._period
        self._skip = 0
        self._early = NO_SAMPLES  # given by a fresh resampler sooner than by the one before
        self._soxr: soxr.ResampleStream | None = None
        if source_rate == target_rate:
            return
        self._soxr = soxr.ResampleStream(source_rate, target_rate, 1, dtype="float32")
        if heard_samples:
            # Both clocks meet once in a period, so that is where the fresh one has to begin.
            begin = -(-(heard_samples - history.size) // self._period)
            self._skip = given_samples - begin * self._periods_samples
            again = history[begin * self._period - (heard_samples - history.size) :]
            self._early = self._drop(self._soxr.resample_chunk(again))

    def push(self, samples: np.ndarray, is_last: bool = False) -> np.ndarray:
        """Resample more samples, float32 ``(n,)``; gives ``(m,)`` of those that are certain by now."""
        self.heard_samples += samples.size
        if self._soxr is None:
            return samples
        self.history = np.concatenate([self.history, samples])[-self._keep :]
        given = np.concatenate([self._early, self._drop(self._soxr.resample_chunk(samples, last=is_last))])
        self._early = NO_SAMPLES
        self.given_samples += given.size
        return given

    def _drop(self, samples: np.ndarray) -> np.ndarray:
        """What was not given out before the resampler was saved."""
        skipped = min(self._skip, samples.size)
        self._skip -= skipped
        return samples[skipped:]
