"""Words in the output of a CTC head over subwords: where they begin, and when they are known to be finished.

SentencePiece marks the subword that begins a word, so a word is finished when the next one begins, when a long
blank follows (the speaker pauses), or when the source ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from echostream.constants import FRAME_MS
from echostream.modules.ctc import BLANK
from echostream.modules.state import State, StatePart

PAUSE_MS = 400  # of blank end a word
PAUSE_FRAMES = PAUSE_MS // FRAME_MS


@dataclass(frozen=True)
class WordSpan(StatePart):
    """Subwords of one word and the frames of the first and the last of them, counted from the stream's start.

    ``joined`` marks a rest that came after its word had been ended by a pause.
    """

    symbols: tuple[int, ...]
    start_frame: int
    end_frame: int
    joined: bool = False


@dataclass
class WordBoundaryState(State):
    """The open word, if any, and how long it has been silent."""

    frame: int = 0  # frames read
    last: int = BLANK  # class of the last frame
    silence: int = 0  # blanks since the last symbol
    open: WordSpan | None = None


def read_words(
    classes: Sequence[int], begins: Sequence[bool], state: WordBoundaryState, pause_frames: int = PAUSE_FRAMES
) -> tuple[WordBoundaryState, list[WordSpan]]:
    """Read more frame classes.

    Args:
        classes: greedy class of each new frame.
        begins: for each class, whether it begins a word.
        state: of the frames before.
        pause_frames: blanks that end a word.

    Returns:
        the next state and the words that were finished.
    """
    frame, last, silence, word = state.frame, state.last, state.silence, state.open
    finished = []
    for label in classes:
        if label == BLANK:
            silence += 1
            if word is not None and silence == pause_frames:
                finished.append(word)
                word = None
        elif label == last:
            silence = 0
            if word is not None:
                word = replace(word, end_frame=frame)
        else:
            silence = 0
            if word is not None and not begins[label]:
                word = replace(word, symbols=(*word.symbols, label), end_frame=frame)
            else:
                if word is not None:
                    finished.append(word)
                word = WordSpan((label,), frame, frame, joined=not begins[label])
        last = label
        frame += 1
    return WordBoundaryState(frame, last, silence, word), finished


def end_words(state: WordBoundaryState) -> tuple[WordBoundaryState, list[WordSpan]]:
    """The source ends: the open word is finished."""
    return replace(state, open=None), [state.open] if state.open is not None else []
