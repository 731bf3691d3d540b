"""What is recognised in encoder frames: source words, and the evidence that the policy counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from echostream.decoding.prefix_beam_search import SourceTranscriber, TranscriberState
from echostream.decoding.word_boundary import SourceWord, WordBoundaryDetector, WordBoundaryDetectorState
from echostream.models.ctc_decoder import CTCDecoder
from echostream.modules.ctc import CTCReader, ExpectedCounter, count_expected
from echostream.modules.state import State, stack, unstack
from echostream.modules.transformer import TransformerState
from echostream.text import pieces_to_text


@dataclass
class RecogniserState(State):
    """Where both CTC decoders stand.

    Attributes:
        boundaries: of the source words on the greedy path.
        transcript: of the prefix beam search, with a language model of the source.
        asr: of the ASR CTC decoder's layers, if it has any.
        st: of the ST CTC decoder's layers, if it has any.
        st_reader: reads the ST CTC's greedy path.
        st_counter: counts the symbols that the ST CTC lets expect.
    """

    boundaries: WordBoundaryDetectorState
    transcript: TranscriberState | None = None
    asr: TransformerState | None = None
    st: TransformerState | None = None
    st_reader: CTCReader = field(default_factory=CTCReader)
    st_counter: ExpectedCounter = field(default_factory=ExpectedCounter)


@dataclass(frozen=True)
class Recognition:
    """What one segment brought.

    Attributes:
        words: source words to be shown, by the prefix beam search where there is a language model.
        counted_words: source words of the greedy path, which policy and sentence breaks count.
        source_tokens: frames, from the stream's start, at which the ASR CTC read a symbol.
        target_tokens: frames, from the segment's start, at which the ST CTC read a symbol.
        expected_tokens: those at which it lets one symbol more expect.
        evidence: what the ST CTC read, as text.
        silence_frames: frames since the last symbol of the ASR CTC.
    """

    words: list[SourceWord]
    counted_words: list[SourceWord]
    source_tokens: list[int]
    target_tokens: list[int]
    expected_tokens: list[int]
    evidence: str
    silence_frames: int


class Recogniser:
    """Reads both CTC decoders of a model.

    Args:
        asr, st: the CTC decoders of source and target text.
        target_symbols: the target dictionary.
        detector: finds words on the greedy path of the ASR CTC.
        transcriber: prefix beam search with a language model; None: the greedy words are shown.
    """

    def __init__(
        self,
        asr: CTCDecoder,
        st: CTCDecoder,
        target_symbols: Sequence[str],
        detector: WordBoundaryDetector,
        transcriber: SourceTranscriber | None = None,
    ) -> None:
        self.asr, self.st, self.target_symbols = asr, st, list(target_symbols)
        self.detector, self.transcriber = detector, transcriber

    def init_state(self) -> RecogniserState:
        """The state of a fresh stream."""
        return RecogniserState(
            self.detector.init_state(),
            self.transcriber.init_state() if self.transcriber is not None else None,
            self.asr.init_state(),
            self.st.init_state(),
        )

    def step(
        self, frames: Tensor, states: Sequence[RecogniserState], is_last: bool = False, with_target: bool = True
    ) -> list[tuple[Recognition, RecogniserState]]:
        """Read the next segment of several streams.

        Args:
            frames: ``(B, n, D)`` encoder frames, a row for each stream.
            states: ``B`` of them.
            is_last: the streams end with this segment.
            with_target: read the ST CTC as well.

        Returns:
            for each stream, what was recognised and the next state.
        """
        source_logits, asr_states = _read_head(self.asr, frames, [state.asr for state in states])
        target_logits: Tensor | None = None
        st_states: Sequence[TransformerState | None] = [state.st for state in states]
        if with_target:
            target_logits, st_states = _read_head(self.st, frames, st_states)
        recognised = self.read_greedily(source_logits.argmax(dim=-1).tolist(), target_logits, states, is_last)
        for (_, following), asr, st in zip(recognised, asr_states, st_states, strict=True):
            following.asr, following.st = asr, st
        transcripts = [state.transcript for state in states if state.transcript is not None]
        if self.transcriber is None or not transcripts:
            return recognised
        log_probs = source_logits.float().log_softmax(dim=-1)
        for row, (words, transcript) in enumerate(self.transcriber.step_batch(log_probs, transcripts, is_last)):
            recognition, following = recognised[row]
            recognised[row] = replace(recognition, words=words), replace(following, transcript=transcript)
        return recognised

    def read_greedily(
        self,
        source_classes: Sequence[Sequence[int]],
        target_logits: Tensor | None,
        states: Sequence[RecogniserState],
        is_last: bool,
    ) -> list[tuple[Recognition, RecogniserState]]:
        """The same without the prefix beam search.

        Args:
            source_classes: of the ASR CTC's greedy path, ``n`` for each stream.
            target_logits: ``(B, n, classes)`` of the ST CTC; None: it isn't read.
            states: ``B`` of them.
            is_last: the streams end with these frames.
        """
        target_classes: Sequence[Sequence[int]] = [()] * len(states)
        counted: Sequence[tuple[list[int], ExpectedCounter]] = [([], state.st_counter) for state in states]
        if target_logits is not None:
            target_classes = target_logits.argmax(dim=-1).tolist()
            counted = count_expected(target_logits, [state.st_counter for state in states])
        recognised = []
        for labels, targets, (expected, st_counter), state in zip(
            source_classes, target_classes, counted, states, strict=True
        ):
            words, source_tokens, boundaries = self.detector.process_segment(labels, state.boundaries, is_last)
            symbols, st_reader = state.st_reader.read(targets)
            recognition = Recognition(
                [word for word in words if word.text],
                words,
                source_tokens,
                [frame for frame, _ in symbols],
                expected,
                pieces_to_text([self.target_symbols[symbol] for _, symbol in symbols]),
                boundaries.silence_frames,
            )
            following = RecogniserState(boundaries, state.transcript, state.asr, state.st, st_reader, st_counter)
            recognised.append((recognition, following))
        return recognised


def _read_head(
    head: CTCDecoder, frames: Tensor, states: Sequence[TransformerState | None]
) -> tuple[Tensor, Sequence[TransformerState | None]]:
    """Logits ``(B, n, classes)`` of a CTC decoder, and the next state of each stream."""
    present = [state for state in states if state is not None]
    if not present:
        return head(frames)[0], states
    logits, stacked = head(frames, stack(present))
    assert stacked is not None  # a state came in
    return logits, unstack(stacked)
