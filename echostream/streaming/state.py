"""What a stream remembers, what a step gives out, and what may come in."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from echostream.constants import FRAME_MS, MAX_PEAK
from echostream.decoding.word_boundary import SourceWord
from echostream.models.speech_encoder import SpeechEncoderState
from echostream.modules.fbank import FbankState
from echostream.modules.state import State
from echostream.streaming.recogniser import RecogniserState
from echostream.streaming.recomposer import NO_SAMPLES, OutputWord
from echostream.streaming.sentence_stage import SentenceStageState
from echostream.streaming.speech_gate import SpeechGateState

SAMPLE_TYPES = (torch.float16, torch.float32, torch.float64)
AnyWord = TypeVar("AnyWord")
# States that are being stepped, by whichever translator and thread.
_STEPPING: set[int] = set()
_LOCK = threading.Lock()


@dataclass
class EchoStreamState(State):
    """Everything that one stream remembers, stage by stage.

    Attributes:
        samples: pushed, not yet used.
        fbank, encoder, recogniser: of the stages up to the recognised words.
        translation: of the stage that writes and speaks; None for the task ``asr``.
        task: for which the stream was started.
        frames: encoder frames so far.
        frame_ms: duration of one.
        finished: the source has ended.
        gate: of the speech gate before all stages, with whose clock all others go; None: everything is heard.
    """

    samples: list[np.ndarray]
    fbank: FbankState
    encoder: SpeechEncoderState
    recogniser: RecogniserState
    translation: SentenceStageState | None
    task: str
    frames: int = 0
    frame_ms: int = FRAME_MS
    finished: bool = False
    gate: SpeechGateState | None = None

    def source_time_s(self, frame: int, begins: bool = False) -> float:
        """Where ``frame`` encoder frames end in the source, or the next one ``begins``, in seconds.

        What a speech gate has left out counts.
        """
        time_s = frame * self.frame_ms / 1000
        return time_s if self.gate is None else self.gate.source_time_s(time_s, begins)

    @property
    def waiting_samples(self) -> int:
        """Samples that were pushed and have not gone into a segment yet."""
        return sum(piece.size for piece in self.samples)

    @property
    def silence_frames(self) -> int:
        """Frames since the last recognised symbol."""
        return self.recogniser.boundaries.silence_frames


@dataclass
class StepOutput:
    """The increment of a step: what it adds to those before. Nothing of it is ever taken back.

    The whole of a stream is a :class:`~echostream.streaming.translation.Translation`.

    Attributes:
        samples: float32 ``(m,)`` speech at the translator's ``output_sample_rate``, to be played after all before.
        words: target words committed, with times.
        source_words: source words recognised, with times.
        evidence: what the ST CTC read anew, as text; the policy counts its tokens, nothing of it is spoken.
        sentence_ends: for each sentence of the translation that ended, how many of ``words`` come before its end; 0: it
            ended with the last word of an earlier step.
        text, source_text: the new words as text; a leading space separates them from the text before.
    """

    samples: np.ndarray = field(default_factory=lambda: NO_SAMPLES)
    words: list[OutputWord] = field(default_factory=list)
    source_words: list[SourceWord] = field(default_factory=list)
    evidence: str = ""
    sentence_ends: list[int] = field(default_factory=list)

    @property
    def text(self) -> str:
        return join_words(self.words)

    @property
    def source_text(self) -> str:
        return join_words(self.source_words)


class Word(Protocol):
    """A word as it is written, whatever else is known of it."""

    @property
    def text(self) -> str: ...

    @property
    def joined(self) -> bool: ...


def join_words(words: Sequence[Word]) -> str:
    """Words as text, each but a joined one with a space before it."""
    return "".join(word.text if word.joined else f" {word.text}" for word in words)


def by_sentence(words: Sequence[AnyWord], ends: Sequence[int]) -> list[Sequence[AnyWord]]:
    """``words`` cut at each of ``ends``: all parts but the last one end a sentence, and any part may be empty."""
    return [words[start:end] for start, end in pairwise([0, *ends, len(words)])]


@contextmanager
def in_use(states: Sequence[EchoStreamState]) -> Iterator[None]:
    """While it is entered, the states belong to one step: what is done to them elsewhere would be lost.

    Raises:
        ValueError: one of them is given twice, or is being stepped by another thread.
    """
    mine = {id(state) for state in states}
    if len(mine) < len(states):
        raise ValueError("the same state was given twice in one step: each stream needs a state of its own")
    with _LOCK:
        if mine & _STEPPING:
            raise ValueError("this stream is being stepped by another thread: wait for it, or make another state")
        _STEPPING.update(mine)
    try:
        yield
    finally:
        with _LOCK:
            _STEPPING.difference_update(mine)


def check_state(state: EchoStreamState, task: str) -> None:
    """Refuse what can't be stepped.

    Raises:
        ValueError: no state of a stream, one of another task, or one that has ended.
    """
    if not isinstance(state, EchoStreamState):
        raise ValueError(f"a stream's state comes from init_state(), not {type(state).__name__}")
    if state.task != task:
        raise ValueError(
            f"this stream was started for the task {state.task} and can't be stepped for {task}: "
            "start another with init_state()"
        )
    if state.finished:
        raise ValueError("this stream has ended with is_last; start another with init_state()")


def check_samples(samples: np.ndarray | Tensor) -> np.ndarray:
    """``samples`` as a float32 array of their own.

    Raises:
        ValueError: more than one channel, a type that isn't floating point, NaN, infinity, or numbers far outside
            [-1, 1], which a stream would remember; in one line.
    """
    array = _as_array(samples)
    if array.ndim != 1:
        raise ValueError(f"samples must be one channel of shape (n,), got {array.shape}: mix down to mono first")
    if array.size and not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"samples must be floating point in [-1, 1], got {array.dtype}: divide integers by 32768")
    if array.size:
        peak = float(np.abs(array).max())
        if not math.isfinite(peak):
            raise ValueError("samples hold NaN or infinity: repair the recording")
        if peak > MAX_PEAK:
            raise ValueError(
                f"samples reach {peak:.4g}: floating point must lie in [-1, 1]; divide integers by 32768, or repair "
                "the recording"
            )
    return array.astype(np.float32, copy=True)


def _as_array(samples: np.ndarray | Tensor) -> np.ndarray:
    if isinstance(samples, Tensor):
        plain = samples.layout is torch.strided and not samples.is_nested and samples.device.type != "meta"
        if not plain or samples.dtype not in SAMPLE_TYPES:
            kind = f"{samples.dtype} {samples.layout} on {samples.device.type}".replace("torch.", "")
            raise ValueError(
                f"samples must be a dense tensor of floating point in [-1, 1], got {kind}: convert them to float32"
            )
        return samples.detach().resolve_neg().cpu().numpy()
    try:
        return np.asarray(samples)
    except (ValueError, TypeError, RuntimeError) as error:  # lists of lists of different lengths, objects of others
        raise ValueError("samples must be an array of floating point, one channel of shape (n,)") from error
