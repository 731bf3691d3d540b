"""What a person sees while a stream is translated: a line for each language that has news."""

from __future__ import annotations

from collections.abc import Callable

from echostream.constants import DOUBTFUL
from echostream.printing import printable
from echostream.streaming.recomposer import OutputWord, SentenceRecomposer
from echostream.streaming.state import EchoStreamState, StepOutput, Word, by_sentence


def _line(time_s: float, verb: str, text: str) -> str:
    """A line, ended, with what was heard or said until ``time_s``; empty if that was nothing."""
    return f"  {time_s:6.2f} s  {verb:6} {text.strip()}\n" if text.strip() else ""


def silence_ms(state: EchoStreamState) -> float:
    """How long the speaker has been silent."""
    return state.frame_ms * state.silence_frames


class LiveView:
    """What each step heard and said, with source words kept whole, and a line where a sentence of the translation ends.

    A pause ends a word, but its rest may follow: such a word is held back until another begins, or the silence is
    that of a sentence end.

    Its text is printable but for what ``mark`` adds.

    Args:
        recomposer: knows how long that silence is.
        mark: makes a word of the translation that the model is not sure of look like one; None: it stays as it is.
    """

    def __init__(self, recomposer: SentenceRecomposer, mark: Callable[[str], str] | None = None) -> None:
        self._recomposer, self._mark = recomposer, mark
        self._held = ""

    def add(self, output: StepOutput, state: EchoStreamState, time_s: float) -> str:
        """Lines of a step that left the stream in ``state``; ``time_s`` is the source time at its end."""
        heard = self._held + output.source_text
        self._held = ""
        if not state.finished and self._may_go_on(state):
            start = max(heard.rfind(" "), 0)
            heard, self._held = heard[:start], heard[start:]
        parts = by_sentence(output.words, output.sentence_ends)
        said = (_line(time_s, "said", "".join(map(self._said, part))) for part in parts)
        return _line(time_s, "heard", printable(heard)) + f"  {time_s:6.2f} s  end\n".join(said)

    def _said(self, word: OutputWord) -> str:
        text = printable(word.text)
        if self._mark is not None and word.confidence < DOUBTFUL:
            text = self._mark(text)
        return text if word.joined else f" {text}"

    def _may_go_on(self, state: EchoStreamState) -> bool:
        """Whether what comes next may belong to the last finished word."""
        begun = state.recogniser.boundaries.words.open
        if begun is not None:
            return begun.joined
        return not self._recomposer.ends_sentence(silence_ms(state), "")


class PlainText:
    """The text alone as it comes, a line a sentence.

    Args:
        recomposer: knows where sentences end.
        of_source: the transcript instead of the translation.
    """

    def __init__(self, recomposer: SentenceRecomposer, of_source: bool) -> None:
        self._recomposer, self._of_source = recomposer, of_source
        self._line_is_open = False

    def add(self, output: StepOutput, state: EchoStreamState, time_s: float) -> str:
        """What to print after a step that left the stream in ``state``."""
        text = ""
        if not self._of_source:
            for number, part in enumerate(by_sentence(output.words, output.sentence_ends)):
                text += (self.end() if number else "") + "".join(map(self._next, part))
        for word in output.source_words if self._of_source else ():
            text += self._next(word)
            if self._recomposer.ends_sentence(0, word.text):
                text += self.end()
        if state.finished or (self._of_source and self._recomposer.ends_sentence(silence_ms(state), "")):
            text += self.end()
        return text

    def _next(self, word: Word) -> str:
        is_first, self._line_is_open = not self._line_is_open, True
        return word.text if word.joined or is_first else f" {word.text}"

    def end(self) -> str:
        """What ends the open line, if there is one."""
        ending, self._line_is_open = "\n" if self._line_is_open else "", False
        return ending
