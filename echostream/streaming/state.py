"""What a stream remembers, what a step gives out, and what may come in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from echostream.decoding.prefix_beam_search import TranscriberState
from echostream.decoding.sentence_breaks import SentenceBreakState
from echostream.decoding.word_boundary import SourceWord, WordBoundaryDetectorState
from echostream.models.speech_encoder import SpeechEncoderState
from echostream.modules.ctc import CTCReader
from echostream.modules.fbank import FbankState
from echostream.modules.state import State
from echostream.modules.transformer import TransformerState
from echostream.streaming.recomposer import NO_SAMPLES, OutputWord, RecomposerState
from echostream.streaming.word_level_translator import SentenceState
from echostream.vocoders.interface import VocoderState


@dataclass
class EchoStreamState(State):
    """Everything one stream remembers, stage by stage."""

    samples: list[np.ndarray]  # pushed, not yet used
    fbank: FbankState
    encoder: SpeechEncoderState
    st: TransformerState | None
    st_reader: CTCReader
    source: WordBoundaryDetectorState
    sentence: SentenceState | None
    vocoder: VocoderState | None
    output: RecomposerState
    transcript: TranscriberState | None = None  # with a language model of the source
    breaks: SentenceBreakState | None = None  # likewise
    frames: int = 0  # encoder frames so far
    finished: bool = False

    @property
    def waiting_samples(self) -> int:
        return sum(piece.size for piece in self.samples)


@dataclass
class StepOutput:
    """What a step adds; nothing of it is ever taken back.

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
        return _join(self.words)

    @property
    def source_text(self) -> str:
        return _join(self.source_words)


def _join(words: Sequence[OutputWord] | Sequence[SourceWord]) -> str:
    return "".join(word.text if word.joined else f" {word.text}" for word in words)


def stack(states: Sequence[Any]) -> Any:
    """Stack stream states; a single one is taken as it is."""
    return states[0] if len(states) == 1 else type(states[0]).stack(states)


def unstack(state: Any) -> list:
    """States of the single streams."""
    return [state] if state.batch_size == 1 else state.split()


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
