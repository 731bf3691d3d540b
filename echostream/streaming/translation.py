"""A stream from its first chunk to its end: each step's increment as it comes, or the whole."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from echostream.decoding.word_boundary import SourceWord
from echostream.streaming.recomposer import NO_SAMPLES, OutputWord
from echostream.streaming.state import StepOutput, by_sentence, join_words

if TYPE_CHECKING:
    from echostream.streaming.translator import StreamingTranslator

Samples = np.ndarray | Tensor
# Samples, chunks of them, or the path of a recording.
Source = Samples | Iterable[Samples] | str | os.PathLike[str]


@dataclass
class Translation:
    """All of a stream that has ended: what the :class:`StepOutput` of its steps give piece by piece.

    Attributes:
        samples: float32 ``(m,)``, the speech.
        sample_rate: of the speech in Hz.
        words: target words with times.
        source_words: source words with times.
        sentence_ends: for each sentence of the translation, how many of ``words`` come before its end.
        sentences: the words of each sentence of the translation.
        text, source_text: the words as text, without a space at either end.
    """

    samples: np.ndarray
    sample_rate: int
    words: list[OutputWord]
    source_words: list[SourceWord]
    sentence_ends: list[int] = field(default_factory=list)

    @property
    def sentences(self) -> list[Sequence[OutputWord]]:
        return [sentence for sentence in by_sentence(self.words, self.sentence_ends) if sentence]

    @property
    def text(self) -> str:
        return join_words(self.words).strip()

    @property
    def source_text(self) -> str:
        return join_words(self.source_words).strip()


def stream_outputs(translator: StreamingTranslator, source: Source) -> Iterator[StepOutput]:
    """An increment for each chunk of ``source``, and one for its end.

    If the chunks end in an error, what was heard before is translated to its end before the error is raised.
    """
    state = translator.init_state()
    failure = None
    chunks = _chunks_of(source)
    while failure is None:
        try:
            chunk = next(chunks)
        except StopIteration:
            break
        except Exception as error:
            failure = error
        else:
            yield translator.step(chunk, state)
    yield translator.step(NO_SAMPLES, state, is_last=True)
    if failure is not None:
        raise failure


def whole_translation(translator: StreamingTranslator, source: Source) -> Translation:
    """What all steps give together."""
    pieces, ends = [NO_SAMPLES], list[int]()
    words, source_words = list[OutputWord](), list[SourceWord]()
    for output in stream_outputs(translator, source):
        pieces.append(output.samples)
        ends += [len(words) + end for end in output.sentence_ends]
        words += output.words
        source_words += output.source_words
    return Translation(np.concatenate(pieces), translator.output_sample_rate, words, source_words, ends)


def _chunks_of(source: Source) -> Iterator[Samples]:
    if isinstance(source, np.ndarray | Tensor):
        yield source
    elif isinstance(source, str | os.PathLike):
        from echostream.audio.input import open_audio

        with open_audio(os.fspath(source)) as audio:
            yield from audio
    else:
        yield from source
