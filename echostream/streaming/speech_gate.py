"""A gate before everything else, which lets through what may be speech: silence and noise cost next to nothing.

The detector is Silero's (the package ``silero-vad``, MIT), an LSTM over windows of 32 ms. What the gate lets through
begins a little before the first window that sounds like speech, and ends with enough silence for the sentence to be
closed as without a gate. Windows are counted from the stream's start, so that what passes depends on the audio, not on
how it was pushed. The rest of the system hears a shorter stream; the state remembers what was left out, and gives times
on the clock of the source.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from echostream.constants import SAMPLE_RATE
from echostream.modules.state import State

INSTALL = "the speech gate needs the packages silero-vad and onnxruntime: pip install -e '.[vad]'"
MODEL_FILE = "data/silero_vad.onnx"
WINDOW = 512  # samples
CONTEXT = 64  # samples before a window, which the detector hears with it
HIDDEN = (2, 1, 128)  # the shape of its state
OPENS_AT = 0.5  # probability of speech
CLOSES_BELOW = 0.35  # Silero's own: 0.15 less
LEAD = 15 * WINDOW  # samples before the first window of speech; 0.48 s
TRAIL_S = 2.0  # of silence that passes; more than ends a sentence
CLOCK_S = 60.0  # times are known on the source's clock for so long after they were heard; no word is open longer


@dataclass
class SpeechGateState(State):
    """Where a stream's gate stands.

    Attributes:
        hidden: of the detector, float32 :data:`HIDDEN`.
        context: float32 ``(CONTEXT,)``, the last samples that it heard.
        rest: float32 ``(n,)``, less than a window.
        lead: float32 ``(n,)``, at most :data:`LEAD` samples that pass if speech follows.
        is_open: samples pass.
        silence: samples since the last speech.
        given, left_out: samples that passed, and that didn't.
        cuts: for each place where something was left out, the samples that had passed, and all that had been left out.
    """

    hidden: np.ndarray = field(default_factory=lambda: np.zeros(HIDDEN, np.float32))
    context: np.ndarray = field(default_factory=lambda: np.zeros(CONTEXT, np.float32))
    rest: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    lead: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    is_open: bool = False
    silence: int = 0
    given: int = 0
    left_out: int = 0
    cuts: tuple[tuple[int, int], ...] = ()

    def source_time_s(self, time_s: float, begins: bool = False) -> float:
        """From the clock of what passed to that of the source, in seconds.

        At a cut what ends there lies before it, and what ``begins`` there behind it.
        """
        cut = bisect_left(self.cuts, (round(time_s * SAMPLE_RATE) + begins,)) - 1
        return time_s + self.cuts[cut][1] / SAMPLE_RATE if cut >= 0 else time_s

    def since(self, time_s: float) -> SpeechGateState:
        """The state without the cuts that only matter before ``time_s``, on the clock of what passed."""
        first = max(0, bisect_left(self.cuts, (round(time_s * SAMPLE_RATE),)) - 1)
        return replace(self, cuts=self.cuts[first:]) if first else self

    def missing(self, samples: int) -> int:
        """How much of the source it takes until so many samples pass, if it is speech."""
        return -(-samples // WINDOW) * WINDOW - self.rest.size if samples else 0


class SpeechGate:
    """Holds back what is no speech. One serves any number of streams.

    Raises:
        ValueError: the packages are not installed, or hold no detector.
    """

    def __init__(self) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ValueError(INSTALL) from error
        package = find_spec("silero_vad")
        if package is None or not package.origin:
            raise ValueError(INSTALL)
        path = Path(package.origin).parent / MODEL_FILE
        if not path.is_file():
            raise ValueError(f"the package silero-vad holds no {MODEL_FILE}: pip install --force-reinstall silero-vad")
        options: Any = onnxruntime.SessionOptions()
        options.inter_op_num_threads = options.intra_op_num_threads = 1  # so little work is slower with several
        options.log_severity_level = 3
        self._detector = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._rate = np.array(SAMPLE_RATE, dtype=np.int64)

    def init_state(self) -> SpeechGateState:
        """The state of a fresh stream; nothing passes until there is speech."""
        return SpeechGateState()

    def step(
        self, samples: np.ndarray, state: SpeechGateState, trail_s: float = TRAIL_S, is_last: bool = False
    ) -> tuple[np.ndarray, SpeechGateState]:
        """Let through what may be speech.

        Args:
            samples: float32 ``(n,)`` @16 kHz.
            state: of the stream.
            trail_s: silence after speech that still passes.
            is_last: the source ends with them.

        Returns:
            the samples that pass, float32 ``(m,)``, and the next state.
        """
        state = replace(state)
        heard = np.concatenate([state.rest, samples])
        trail, whole = round(trail_s * SAMPLE_RATE), heard.size // WINDOW * WINDOW
        passed = [samples[:0]]
        for start in range(0, whole, WINDOW):
            passed.append(self._pass(heard[start : start + WINDOW], state, trail))
            state.given += passed[-1].size
        state.rest = heard[whole:].copy()
        if is_last and state.is_open:
            passed.append(state.rest)
        return np.concatenate(passed), state

    def _pass(self, window: np.ndarray, state: SpeechGateState, trail: int) -> np.ndarray:
        """What passes of the next window and those that wait before it; ``state``, the step's own, goes on."""
        probability = self._probability(window, state)
        if state.is_open:
            state.silence = 0 if probability >= CLOSES_BELOW else state.silence + WINDOW
            state.is_open = state.silence < trail
            return window
        waiting = np.concatenate([state.lead, window])
        if probability >= OPENS_AT:
            state.is_open, state.silence, state.lead = True, 0, window[:0]
            if state.left_out > (state.cuts[-1][1] if state.cuts else 0):
                state.cuts = (*state.cuts, (state.given, state.left_out))
            return waiting
        state.lead = waiting[max(0, waiting.size - LEAD) :].copy()
        state.left_out += waiting.size - state.lead.size
        return window[:0]

    def _probability(self, window: np.ndarray, state: SpeechGateState) -> float:
        """Of speech in the next window; the detector's part of ``state`` goes on."""
        heard = np.concatenate([state.context, window])
        given = {"input": heard[None], "state": state.hidden, "sr": self._rate}
        probability, state.hidden = self._detector.run(None, given)
        state.context = heard[-CONTEXT:]
        return float(probability[0, 0])
