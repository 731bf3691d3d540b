"""WebVTT subtitles, written sentence by sentence while the stream goes on.

Format: W3C, "WebVTT: The Web Video Text Tracks Format".
"""

from __future__ import annotations

import heapq
import itertools
import math
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from echostream.constants import SUBTITLE_CLOCKS
from echostream.decoding.word_boundary import SourceWord
from echostream.printing import printable
from echostream.streaming.live import silence_ms
from echostream.streaming.recomposer import SentenceRecomposer
from echostream.streaming.state import EchoStreamState, StepOutput

LINES, LINE_CHARACTERS = 2, 42  # the usual limits of subtitles
MIN_DURATION_S = 1.0
READING_CHARACTERS_S = 20.0
SOURCE, TRANSLATION = "source", "translation"


@dataclass(frozen=True)
class Cue:
    """A piece of text on one of the tracks, shown from ``start_s`` to ``end_s``."""

    start_s: float
    end_s: float
    track: str
    text: str


class _Track:
    """Words to sentences, and sentences that are too long for the screen to several cues."""

    def __init__(self, name: str, recomposer: SentenceRecomposer) -> None:
        self._name, self._recomposer = name, recomposer
        self.open: Cue | None = None

    def add(self, words: Iterable[SourceWord]) -> list[Cue]:
        """Take in words; gives the cues that they complete."""
        cues: list[Cue] = []
        for word in words:
            cue = self.open
            if cue is not None and not word.joined:
                is_full = len(lines_of(f"{cue.text} {word.text}")) > LINES
                # A translation may well wait inside a sentence; a speaker who does has ended it.
                pause_ms = 1000 * (word.start_s - cue.end_s) if self._name == SOURCE else 0
                if is_full or self._recomposer.ends_sentence(pause_ms, ""):
                    cues += self.end()
            if self.open is None:
                self.open = Cue(word.start_s, word.end_s, self._name, word.text)
            else:
                text = self.open.text + ("" if word.joined else " ") + word.text
                self.open = replace(self.open, end_s=word.end_s, text=text)
            if self._recomposer.ends_sentence(0, word.text):
                cues += self.end()
        return cues

    def end(self) -> list[Cue]:
        """The sentence ends; gives its cue, if there is one, long enough to be read."""
        cue, self.open = self.open, None
        if cue is None or not cue.text.strip():
            return []
        needed_s = max(MIN_DURATION_S, len(cue.text) / READING_CHARACTERS_S)
        return [replace(cue, end_s=max(cue.end_s, cue.start_s + needed_s))]


class _Schedule:
    """Cues in the order of their start, those of a track one after the other.

    A cue is shown until the next one of its track begins, and that waits until it was there for a second.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, Cue]] = []  # by start; those of one moment as they came
        self._queued = itertools.count()
        self._free_s = dict.fromkeys((SOURCE, TRANSLATION), 0.0)  # from when a track has room for its next cue

    def add(self, cues: Iterable[Cue]) -> None:
        """Take in cues."""
        for cue in cues:
            heapq.heappush(self._waiting, (cue.start_s, next(self._queued), cue))

    def due(self, time_s: float) -> Iterator[Cue]:
        """Cues that are settled when none that is still to come starts before ``time_s``."""
        while self._waiting and self._waiting[0][0] <= time_s:
            _, number, cue = heapq.heappop(self._waiting)
            late_s = self._free_s[cue.track] - cue.start_s
            if late_s > 0:
                cue = replace(cue, start_s=cue.start_s + late_s, end_s=cue.end_s + late_s)
                heapq.heappush(self._waiting, (cue.start_s, number, cue))
                continue
            following = min((other[:2] for other in self._waiting if other[2].track == cue.track), default=None)
            if following is None and cue.end_s > time_s:
                heapq.heappush(self._waiting, (cue.start_s, number, cue))
                return
            if following is not None:
                cue = replace(cue, end_s=min(cue.end_s, max(following[0], cue.start_s + MIN_DURATION_S)))
            self._free_s[cue.track] = cue.end_s
            yield cue


class SubtitleWriter:
    """Subtitles of a stream: what was said, at the top, and its translation.

    Cues are written in the order of their start, each as soon as none can come that starts earlier, or would end it.
    Times are those
    of the source: a word of the translation lies where it was committed, so the lag is seen. On the clock
    ``speech``, which is that of the spoken translation, there is the translation alone.

    Args:
        path: of the file, overwritten; its folder is made.
        recomposer: knows where sentences end.
        clock: ``source`` or ``speech``.

    Raises:
        OSError: a place that can't be written to.
    """

    def __init__(self, path: Path, recomposer: SentenceRecomposer, clock: str = "source") -> None:
        if clock not in SUBTITLE_CLOCKS:
            raise ValueError(f"unknown clock '{clock}': choose one of {', '.join(SUBTITLE_CLOCKS)}")
        self._recomposer, self._clock = recomposer, clock
        self._tracks = {name: _Track(name, recomposer) for name in (SOURCE, TRANSLATION)}
        self._schedule = _Schedule()
        self._at_top = ""  # of a source cue that has a translation below it
        self._count = dict.fromkeys(self._tracks, 0)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w", encoding="utf-8")
        self._file.write("WEBVTT\n")
        self._file.flush()

    def add(self, output: StepOutput, state: EchoStreamState) -> None:
        """Take in what a step gave that left the stream in ``state``."""
        if self._clock == "speech":
            translation = [SourceWord(word.text, word.start_s, word.end_s, word.joined) for word in output.words]
            source = []
        else:
            times = ((word, word.source_time_s) for word in output.words)
            translation = [SourceWord(word.text, time_s, time_s, word.joined) for word, time_s in times]
            source = output.source_words
        self._at_top = " line:0" if state.translation is not None else ""
        self._schedule.add(self._tracks[SOURCE].add(source))
        self._schedule.add(self._tracks[TRANSLATION].add(translation))
        if state.finished or self._recomposer.ends_sentence(silence_ms(state), ""):
            self._end_sentences()
        self._write_before(self._earliest_s(state))

    def close(self) -> None:
        """Write what is left, an unfinished sentence included, and close the file."""
        if not self._file.closed:
            self._end_sentences()
            self._write_before(math.inf)
            self._file.close()

    def _end_sentences(self) -> None:
        for track in self._tracks.values():
            self._schedule.add(track.end())

    def _earliest_s(self, state: EchoStreamState) -> float:
        """No cue that is still to come starts before this."""
        if self._clock == "speech" or state.finished:
            return float("inf")
        starts = [state.frames * state.frame_ms / 1000]
        starts += [track.open.start_s for track in self._tracks.values() if track.open is not None]
        if state.translation is not None:
            starts += [word.source_time_s for word in state.translation.output.waiting]
        if (word := state.recogniser.boundaries.words.open) is not None:
            starts.append(word.start_frame * state.frame_ms / 1000)
        return min(starts)

    def _write_before(self, time_s: float) -> None:
        for cue in self._schedule.due(time_s):
            self._count[cue.track] += 1
            place = self._at_top if cue.track == SOURCE else ""
            self._file.write(_block(cue, self._count[cue.track], place))
            self._file.flush()


def whole_subtitles(
    source: Iterable[SourceWord], translation: Iterable[Iterable[SourceWord]], recomposer: SentenceRecomposer
) -> str:
    """Subtitles of a stream that is over: the source at the top, and its translation.

    Args:
        source: words with their times on the clock of the subtitles.
        translation: the words of each sentence, with times on the same clock.
        recomposer: knows where sentences of the source end.
    """
    heard, said = (_Track(name, recomposer) for name in (SOURCE, TRANSLATION))
    cues = [*heard.add(source), *heard.end()]
    for sentence in translation:
        cues += [*said.add(sentence), *said.end()]
    count = dict.fromkeys((SOURCE, TRANSLATION), 0)
    text = "WEBVTT\n"
    schedule = _Schedule()
    schedule.add(cues)
    for cue in schedule.due(math.inf):
        count[cue.track] += 1
        text += _block(cue, count[cue.track], " line:0" if cue.track == SOURCE else "")
    return text


def lines_of(text: str) -> list[str]:
    """``text`` in lines that fit the screen, as equally long as its words allow."""
    if len(text) <= LINE_CHARACTERS:
        return [text]
    longest = max(map(len, text.split()), default=1)
    for width in range(min(max(math.ceil(len(text) / LINES), longest), LINE_CHARACTERS), LINE_CHARACTERS):
        if len(lines := textwrap.wrap(text, width, break_on_hyphens=False)) <= LINES:
            return lines
    return textwrap.wrap(text, LINE_CHARACTERS, break_on_hyphens=False)


def _block(cue: Cue, number: int, place: str) -> str:
    """A cue as the file has it; ``place``: WebVTT settings with a space before them."""
    text = "\n".join(printable(line) for line in lines_of(" ".join(cue.text.split())))
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"\n{cue.track} {number}\n{_time(cue.start_s)} --> {_time(cue.end_s)}{place}\n{text}\n"


def _time(seconds: float) -> str:
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02}.{milliseconds % 1000:03}"
