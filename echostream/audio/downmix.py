"""Several channels to one, so that nothing is lost where they are in opposite phase.

The mean of two channels of which one is upside down, as a microphone wired the wrong way gives them, is silence. Where
the channels cancel each other, those that oppose the loudest one are turned round, until they cancel in that way.
"""

from __future__ import annotations

import numpy as np

FRAME_S = 0.01  # what is judged at a time
CANCELLED = 0.1  # of the power that the mean of unrelated channels has: 10 dB below it


class Downmix:
    """Mixes a recording down as it comes. What comes out does not depend on the pieces it comes in.

    Args:
        channels: number of channels.
        rate: sample rate in Hz.
    """

    def __init__(self, channels: int, rate: int) -> None:
        self._frame = max(1, round(FRAME_S * rate))
        self._signs = np.ones(channels, dtype=np.float32)
        self._left = np.zeros((0, channels), dtype=np.float32)

    def push(self, chunk: np.ndarray) -> np.ndarray:
        """Mono ``(m,)`` of all frames that are whole with ``chunk``, float32 ``(n, channels)``."""
        audio = np.concatenate([self._left, chunk]) if len(self._left) else chunk
        whole = len(audio) - len(audio) % self._frame
        self._left = audio[whole:].copy()
        return self._mix(audio[:whole])

    def flush(self) -> np.ndarray:
        """Mono of the rest, at the end."""
        rest, self._left = self._left, self._left[:0]
        return self._mix(rest)

    def _mix(self, audio: np.ndarray) -> np.ndarray:
        pieces = [np.zeros(0, dtype=np.float32)]
        while len(audio):
            whole = len(audio) - len(audio) % self._frame or len(audio)  # the rest of a recording is a frame of its own
            frames = audio[:whole].reshape(-1, min(self._frame, whole), audio.shape[1])  # (k, n, channels)
            mono = self._mean(frames)
            power = np.einsum("knc,knc->kc", frames, frames, dtype=np.float64)
            cancelled = np.einsum("kn,kn->k", mono, mono, dtype=np.float64) < CANCELLED * power.mean(1) / power.shape[1]
            good = int(cancelled.argmax()) if cancelled.any() else len(frames)
            pieces.append(mono[:good].reshape(-1))
            if good < len(frames):
                frame = frames[good]
                loudest = frame[:, power[good].argmax()].astype(np.float64)
                self._signs = np.where(loudest @ frame < 0, -1, 1).astype(np.float32)
                pieces.append(self._mean(frame))
                good += 1
            audio = audio[good * frames.shape[1] :]
        return np.concatenate(pieces)

    def _mean(self, frames: np.ndarray) -> np.ndarray:
        # Without a channel turned round, this is the plain mean to the bit.
        return frames.mean(axis=-1) if (self._signs > 0).all() else (frames * self._signs).mean(axis=-1)


def mix_down(samples: np.ndarray, rate: int) -> np.ndarray:
    """A whole recording, float32 ``(n, channels)`` at ``rate`` Hz, to mono ``(n,)``."""
    if samples.shape[1] == 1:
        return samples[:, 0]
    mixer = Downmix(samples.shape[1], rate)
    return np.concatenate([mixer.push(samples), mixer.flush()])
