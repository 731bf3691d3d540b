"""Source words, with their times, as the ASR CTC finishes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from echostream.constants import FRAME_MS
from echostream.decoding.words import PAUSE_MS, WordBoundaryState, end_words, read_words
from echostream.modules.ctc import CTCReader
from echostream.modules.state import State
from echostream.text import WORD_MARK, pieces_to_text


@dataclass(frozen=True)
class SourceWord:
    """A recognised word and the source time, in seconds, from its first subword to its last one.

    ``joined``: it goes on from the word before, without a space. ``symbols``: its subwords as the ASR CTC read them.
    """

    text: str
    start_s: float
    end_s: float
    joined: bool = False
    symbols: tuple[int, ...] = field(default=(), repr=False, compare=False)

    def frames(self, frame_ms: int) -> tuple[int, int]:
        """Its first and its last encoder frame of ``frame_ms``, counted from the stream's start."""
        return round(1000 * self.start_s / frame_ms), round(1000 * self.end_s / frame_ms) - 1


@dataclass
class WordBoundaryDetectorState(State):
    """Reading positions of the ASR CTC."""

    words: WordBoundaryState = field(default_factory=WordBoundaryState)
    reader: CTCReader = field(default_factory=CTCReader)
    after_mark: bool = False  # the last word was the mark of a word's beginning alone, whose letters may follow

    @property
    def silence_frames(self) -> int:
        """Frames since the last symbol."""
        return self.words.silence


class WordBoundaryDetector:
    """Reads the frame classes of the ASR CTC as words.

    Args:
        symbols: the source dictionary; a subword that begins a word starts with SentencePiece's mark.
        frame_ms: duration of an encoder frame.
    """

    def __init__(self, symbols: Sequence[str], frame_ms: int = FRAME_MS) -> None:
        self.symbols, self.frame_ms = list(symbols), frame_ms
        self.starts_word = [symbol.startswith(WORD_MARK) for symbol in self.symbols]

    def init_state(self) -> WordBoundaryDetectorState:
        return WordBoundaryDetectorState()

    def process_segment(
        self, classes: Sequence[int], state: WordBoundaryDetectorState, is_last: bool = False
    ) -> tuple[list[SourceWord], list[int], WordBoundaryDetectorState]:
        """Read the classes of new frames.

        Args:
            classes: greedy class of each new frame.
            state: of the frames before.
            is_last: the source ends with these frames: the open word is finished.

        Returns:
            the words that were finished, the frames (counted from the stream's start) at which symbols were read, and
            the next state. A word's text is empty where a pause came right after the mark of its beginning: it counts,
            as it does in training, and what comes after the pause begins a word.
        """
        symbols, reader = state.reader.read(classes)
        symbol_frames = [state.words.frame + frame for frame, _ in symbols]
        boundary, spans = read_words(classes, self.starts_word, state.words, PAUSE_MS // self.frame_ms)
        if is_last:
            boundary, rest = end_words(boundary)
            spans += rest
        words, after_mark, frame_s = [], state.after_mark, self.frame_ms / 1000
        for span in spans:
            text = pieces_to_text([self.symbols[symbol] for symbol in span.symbols]).strip()
            joined = span.joined and not after_mark
            start_s, end_s = span.start_frame * frame_s, (span.end_frame + 1) * frame_s
            words.append(SourceWord(text, start_s, end_s, joined, span.symbols))
            after_mark = not text
        return words, symbol_frames, WordBoundaryDetectorState(boundary, reader, after_mark)
