"""Words to subtitle cues that can be read: how long a cue is, how long it is shown, and how its lines are broken.

The limits are those that broadcasters and film festivals commonly give: two lines of 42 characters, 17 characters a
second, at least 0.8 s and at most 7 s. The page of ``echostream serve`` follows the same rules
(``serve/static/subtitles.js``), and a test compares the two.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from echostream.constants import DOUBTFUL
from echostream.decoding.word_boundary import SourceWord
from echostream.streaming.recomposer import OutputWord, SentenceRecomposer

LINE_CHARACTERS = 42
MAX_CHARACTERS = 2 * LINE_CHARACTERS
MIN_DURATION_S = 0.8
MAX_DURATION_S = 7.0
READING_CHARACTERS_S = 17.0
MAX_LATE_S = 1.0  # a cue may come so much after its first word, so that the one before it can be read
SOURCE, TRANSLATION = "source", "translation"


@dataclass(frozen=True)
class Cue:
    """A piece of text on one of the tracks, shown from ``start_s`` to ``end_s``.

    ``doubtful``: numbers, from 0, of those of its words, which spaces divide, that the model is not sure of.
    """

    start_s: float
    end_s: float
    track: str
    text: str
    doubtful: frozenset[int] = frozenset()


@dataclass(frozen=True)
class _Token:
    """What has no space in it: a word, or several without a space between them, or a piece of a very long one."""

    text: str
    start_s: float
    end_s: float
    joined: bool
    doubtful: bool


class Track:
    """Makes the cues of one kind; they never overlap.

    Until it is known when the next words come, a finished cue is kept: it is shown as long as reading takes if there is
    time for that, and else until the next one.

    Args:
        name: :data:`SOURCE` or :data:`TRANSLATION`.
        recomposer: knows where sentences end.
    """

    def __init__(self, name: str, recomposer: SentenceRecomposer) -> None:
        self._name, self._recomposer = name, recomposer
        self._tokens: list[_Token] = []  # of the cue that is being made
        self._finished: Cue | None = None
        self._free_s = 0.0  # the cue before ends here

    @property
    def earliest_s(self) -> float | None:
        """Start of the first cue that has not been given out yet; None if there is none."""
        if self._finished is not None:
            return self._finished.start_s
        return max(self._tokens[0].start_s, self._free_s) if self._tokens else None

    def add(self, words: Iterable[SourceWord | OutputWord]) -> list[Cue]:
        """Take in words; gives the cues that they complete."""
        cues: list[Cue] = []
        for word in itertools.chain.from_iterable(map(_pieces, words)):
            if word.joined and self._tokens:
                last = self._tokens[-1]
                doubtful = last.doubtful or word.doubtful
                grown = replace(last, text=last.text + word.text, end_s=word.end_s, doubtful=doubtful)
                self._tokens.pop()
                if self._tokens and not self._has_room(grown):
                    cues += self.end_sentence()  # the token goes on in the next cue as a whole
                    self._tokens = [grown]
                elif self._has_room(grown):
                    self._tokens.append(grown)
                else:
                    self._tokens.append(last)
                    cues += self.end_sentence()
                    self._tokens = [word]
            else:
                # A translation may well wait inside a sentence; a speaker who does has ended it.
                pause_s = word.start_s - self._tokens[-1].end_s if self._tokens and self._name == SOURCE else 0.0
                if not self._has_room(word) or self._recomposer.ends_sentence(1000 * pause_s, ""):
                    cues += self.end_sentence()
                self._tokens.append(word)
            if self._recomposer.ends_sentence(0, word.text):
                cues += self.end_sentence()
        return cues

    def end_sentence(self) -> list[Cue]:
        """What follows is another cue; gives the one before the one that this finishes."""
        tokens, self._tokens = self._tokens, []
        text = " ".join(token.text for token in tokens).strip()
        if not text:
            return []
        cues = self._give_out(tokens[0].start_s)
        start_s = max(tokens[0].start_s, self._free_s)
        reading_s = max(MIN_DURATION_S, len(text) / READING_CHARACTERS_S)
        end_s = min(max(tokens[-1].end_s, start_s + reading_s), start_s + MAX_DURATION_S)
        doubtful = frozenset(number for number, token in enumerate(tokens) if token.doubtful)
        self._finished = Cue(start_s, end_s, self._name, text, doubtful)
        return cues

    def settle(self, time_s: float) -> list[Cue]:
        """Words that are still to come start at this time or later; gives the cue whose end that decides, if any."""
        next_s = self._tokens[0].start_s if self._tokens else time_s
        if self._finished is None or (not self._tokens and self._finished.end_s > time_s + MAX_LATE_S):
            return []
        return self._give_out(next_s)

    def _give_out(self, next_s: float) -> list[Cue]:
        """The finished cue, if there is one, when the one after it has its first word at ``next_s``."""
        cue, self._finished = self._finished, None
        if cue is None:
            return []
        self._free_s = min(cue.end_s, max(cue.start_s + MIN_DURATION_S, next_s + MAX_LATE_S))
        return [replace(cue, end_s=self._free_s)]

    def _has_room(self, word: _Token) -> bool:
        text = " ".join(token.text for token in [*self._tokens, word])
        began_s = self._tokens[0].start_s if self._tokens else word.start_s
        is_alone = not self._tokens
        return fits(text) and (is_alone or word.end_s - began_s <= MAX_DURATION_S)


def _pieces(word: SourceWord | OutputWord) -> Iterator[_Token]:
    """A word as a token; one that is longer than a line in pieces that are not."""
    doubtful = isinstance(word, OutputWord) and word.confidence < DOUBTFUL
    for at in range(0, len(word.text), LINE_CHARACTERS):
        text = word.text[at : at + LINE_CHARACTERS]
        yield _Token(text, word.start_s, word.end_s, word.joined or at > 0, doubtful)


def fits(text: str) -> bool:
    """Whether a text fits on two lines."""
    return all(len(line) <= LINE_CHARACTERS for line in lines(text))


def lines(text: str) -> list[str]:
    """One line or two, broken so that the longer one is as short as possible; a word alone is cut if it must be."""
    if len(text) <= LINE_CHARACTERS:
        return [text]
    spaces = [at for at, character in enumerate(text) if character == " "]
    if not spaces:
        return [text[:LINE_CHARACTERS], text[LINE_CHARACTERS:]]
    at = min(spaces, key=lambda space: max(space, len(text) - space - 1))
    return [text[:at], text[at + 1 :]]


def marked_lines(cue: Cue) -> list[list[tuple[str, bool]]]:
    """The lines of a cue in pieces that are doubtful or not, from left to right; spaces stand between the pieces."""
    broken = lines(cue.text)
    if " " not in cue.text:  # one word, which may have been cut
        return [[(line, 0 in cue.doubtful)] for line in broken]
    numbered = itertools.count()
    marked = []
    for line in broken:
        words = [(word, next(numbered) in cue.doubtful) for word in line.split(" ")]
        runs = itertools.groupby(words, key=lambda word: word[1])
        marked.append([(" ".join(text for text, _ in run), is_doubtful) for is_doubtful, run in runs])
    return marked


def whole_cues(
    source: Iterable[SourceWord],
    translation: Iterable[Iterable[SourceWord | OutputWord]],
    recomposer: SentenceRecomposer,
) -> list[Cue]:
    """The cues of a stream that is over, in the order of their starts.

    Args:
        source: words with their times on the clock of the subtitles.
        translation: the words of each sentence, with times on the same clock.
        recomposer: knows where sentences of the source end.
    """
    heard, said = (Track(name, recomposer) for name in (SOURCE, TRANSLATION))
    cues = [*heard.add(source), *heard.end_sentence()]
    for sentence in translation:
        cues += [*said.add(sentence), *said.end_sentence()]
    for track in (heard, said):
        cues += track.settle(float("inf"))
    return sorted(cues, key=lambda cue: cue.start_s)  # those of one moment as they came
