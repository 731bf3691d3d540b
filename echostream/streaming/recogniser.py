"""What is recognised in encoder frames: source words, and the evidence that the policy counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from echostream.decoding.prefix_beam_search import SourceTranscriber, TranscriberState
from echostream.decoding.word_boundary import SourceWord, WordBoundaryDetector, WordBoundaryDetectorState
from echostream.models.ctc_decoder import CTCDecoder
from echostream.modules.ctc import CTCReader, ExpectedCounter
from echostream.modules.state import State, stack, unstack
from echostream.modules.transformer import TransformerState
from echostream.text import pieces_to_text


@dataclass
class RecogniserState(State):
    """Where both CTC decoders stand.

    Attributes:
        boundaries: of the source words on the greedy path.
        transcript: of the prefix beam search, with a language model of the source.
        st: of the ST CTC decoder's layers, if it has any.
        st_reader: reads the ST CTC's greedy path.
        st_counter: counts the symbols that the ST CTC lets expect.
    """

    boundaries: WordBoundaryDetectorState
    transcript: TranscriberState | None = None
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
        source_logits, _ = self.asr(frames)
        source_classes = source_logits.argmax(dim=-1).tolist()
        target_rows: Sequence[Tensor | None] = [None] * len(states)
        st_states = [state.st for state in states]
        if with_target:
            stacked = stack(st_states) if st_states[0] is not None else None
            target_logits, stacked = self.st(frames, stacked)
            target_rows = list(target_logits)
            st_states = unstack(stacked) if stacked is not None else st_states
        rows = zip(source_logits, source_classes, target_rows, st_states, states, strict=True)
        return [self._read(*row, is_last) for row in rows]

    def read_greedily(
        self, source_classes: Sequence[int], target_logits: Tensor | None, state: RecogniserState, is_last: bool
    ) -> tuple[Recognition, RecogniserState]:
        """The same for one stream without the prefix beam search.

        Args:
            source_classes: of the ASR CTC's greedy path, one for each frame.
            target_logits: ``(n, classes)`` of the ST CTC; None: it isn't read.
            state: of the stream.
            is_last: the stream ends with these frames.
        """
        words, source_tokens, boundaries = self.detector.process_segment(source_classes, state.boundaries, is_last)
        symbols: list[tuple[int, int]] = []
        expected: list[int] = []
        st_reader, st_counter = state.st_reader, state.st_counter
        if target_logits is not None:
            symbols, st_reader = st_reader.read(target_logits.argmax(dim=-1).tolist())
            expected, st_counter = st_counter.read(target_logits)
        recognition = Recognition(
            [word for word in words if word.text],
            words,
            source_tokens,
            [frame for frame, _ in symbols],
            expected,
            pieces_to_text([self.target_symbols[symbol] for _, symbol in symbols]),
            boundaries.silence_frames,
        )
        return recognition, RecogniserState(boundaries, state.transcript, state.st, st_reader, st_counter)

    def _read(
        self,
        source_logits: Tensor,
        source_classes: list[int],
        target_logits: Tensor | None,
        st: TransformerState | None,
        state: RecogniserState,
        is_last: bool,
    ) -> tuple[Recognition, RecogniserState]:
        recognition, following = self.read_greedily(source_classes, target_logits, state, is_last)
        following.st = st
        if self.transcriber is not None and state.transcript is not None:
            log_probs = source_logits.float().log_softmax(dim=-1)
            words, following.transcript = self.transcriber.step(log_probs, state.transcript, is_last)
            recognition = replace(recognition, words=words)
        return recognition, following
