"""What a stream remembers, what a step gives out, and what may come in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from echostream.constants import FRAME_MS
from echostream.decoding.word_boundary import SourceWord
from echostream.models.speech_encoder import SpeechEncoderState
from echostream.modules.fbank import FbankState
from echostream.modules.state import State
from echostream.streaming.recogniser import RecogniserState
from echostream.streaming.recomposer import NO_SAMPLES, OutputWord
from echostream.streaming.sentence_stage import SentenceStageState


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
        text, source_text: the new words as text; a leading space separates them from the text before.
    """

    samples: np.ndarray = field(default_factory=lambda: NO_SAMPLES)
    words: list[OutputWord] = field(default_factory=list)
    source_words: list[SourceWord] = field(default_factory=list)
    evidence: str = ""

    @property
    def text(self) -> str:
        return join_words(self.words)

    @property
    def source_text(self) -> str:
        return join_words(self.source_words)


def join_words(words: Sequence[OutputWord] | Sequence[SourceWord]) -> str:
    """Words as text, each but a joined one with a space before it."""
    return "".join(word.text if word.joined else f" {word.text}" for word in words)


def check_samples(samples: np.ndarray | Tensor, state: EchoStreamState) -> np.ndarray:
    """``samples`` as a float32 array.

    Raises:
        ValueError: more than one channel, a type that isn't floating point, NaN or infinity, or an ended stream.
    """
    array = samples.detach().cpu().numpy() if isinstance(samples, Tensor) else np.asarray(samples)
    if array.ndim != 1:
        raise ValueError(f"samples must be one channel of shape (n,), got {array.shape}: mix down to mono first")
    if array.size and not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"samples must be floating point in [-1, 1], got {array.dtype}: divide integers by 32768")
    array = array.astype(np.float32, copy=True)
    if not np.isfinite(array).all():
        raise ValueError("samples hold NaN or infinity: repair the recording")
    if state.finished:
        raise ValueError("this stream has ended with is_last; start another with init_state()")
    return array
