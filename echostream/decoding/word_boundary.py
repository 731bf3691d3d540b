"""Source words, with their times, as the ASR CTC finishes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from echostream.constants import FRAME_S
from echostream.decoding.words import WordBoundaryState, end_words, read_words
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

    @property
    def frames(self) -> tuple[int, int]:
        """Its first and its last encoder frame, counted from the stream's start."""
        return round(self.start_s / FRAME_S), round(self.end_s / FRAME_S) - 1


@dataclass
class WordBoundaryDetectorState(State):
    """Reading positions of the ASR CTC."""

    words: WordBoundaryState = field(default_factory=WordBoundaryState)
    reader: CTCReader = field(default_factory=CTCReader)
    tokens: list[int] = field(default_factory=list)  # frames of the symbols that were read last
    bare: bool = False  # the last word was a mark alone, whose letters may follow

    @property
    def silence_frames(self) -> int:
        """Frames since the last symbol."""
        return self.words.silence


class WordBoundaryDetector:
    """Reads the frame classes of the ASR CTC as words.

    Args:
        symbols: the source dictionary; a subword that begins a word starts with SentencePiece's mark.
    """

    def __init__(self, symbols: Sequence[str]) -> None:
        self.symbols = list(symbols)
        self.begins = [symbol.startswith(WORD_MARK) for symbol in self.symbols]

    def init_state(self) -> WordBoundaryDetectorState:
        return WordBoundaryDetectorState()

    def read(self, classes: Sequence[int], state: WordBoundaryDetectorState, is_last: bool = False) -> list[SourceWord]:
        """Words that the new frame ``classes`` finish; all there are when the source ends. Changes ``state``.

        The text is empty where a pause came right after the mark of a word's beginning. It counts, as it does in
        training; what comes after the pause then begins a word.
        """
        first = state.words.frame
        state.tokens = [first + frame for frame, _ in state.reader.read(list(classes))]
        state.words, spans = read_words(classes, self.begins, state.words)
        if is_last:
            state.words, rest = end_words(state.words)
            spans += rest
        words = []
        for span in spans:
            text = pieces_to_text([self.symbols[symbol] for symbol in span.symbols]).strip()
            joined = span.joined and not state.bare
            start_s, end_s = span.start_frame * FRAME_S, (span.end_frame + 1) * FRAME_S
            words.append(SourceWord(text, start_s, end_s, joined, span.symbols))
            state.bare = not text
        return words
