"""Subtitles as WebVTT or SubRip, written sentence by sentence while the stream goes on.

Format: W3C, "WebVTT: The Web Video Text Tracks Format". SubRip has numbered cues and no places on the screen, so that a
file has one language: the translation, or the source if nothing is translated.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from echostream.constants import SUBTITLE_CLOCKS
from echostream.decoding.word_boundary import SourceWord
from echostream.streaming.live import silence_ms
from echostream.streaming.recomposer import SentenceRecomposer
from echostream.streaming.state import EchoStreamState, StepOutput

MAX_CHARACTERS = 84  # two lines of 42, the usual limit of subtitles
MIN_DURATION_S = 1.0
READING_CHARACTERS_S = 20.0
SOURCE, TRANSLATION = "source", "translation"
SUBRIP_SUFFIX = ".srt"


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
                is_full = len(cue.text) + 1 + len(word.text) > MAX_CHARACTERS
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


class SubtitleWriter:
    """Subtitles of a stream: what was said, at the top, and its translation.

    Cues are written in the order of their start, each as soon as none that starts earlier can come. Times are those
    of the source: a word of the translation lies where it was committed, so the lag is seen. On the clock
    ``speech``, which is that of the spoken translation, there is the translation alone.

    Args:
        path: of the file, overwritten; its folder is made. SubRip if it ends in ``.srt``, else WebVTT.
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
        self._waiting: list[tuple[float, int, Cue]] = []  # by start; those of one moment as they came
        self._queued = itertools.count()
        self._has_translation = False
        self._is_subrip = path.suffix.lower() == SUBRIP_SUFFIX
        self._count = dict.fromkeys(self._tracks, 0)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w", encoding="utf-8")
        self._file.write("" if self._is_subrip else "WEBVTT\n")
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
        self._has_translation = state.translation is not None
        self._queue(self._tracks[SOURCE].add(source))
        self._queue(self._tracks[TRANSLATION].add(translation))
        if state.finished or self._recomposer.ends_sentence(silence_ms(state), ""):
            self._end_sentences()
        self._write_before(self._earliest_s(state))

    def close(self) -> None:
        """Write what is left, an unfinished sentence included, and close the file."""
        if not self._file.closed:
            self._end_sentences()
            self._write_before(float("inf"))
            self._file.close()

    def _queue(self, cues: list[Cue]) -> None:
        for cue in cues:
            heapq.heappush(self._waiting, (cue.start_s, next(self._queued), cue))

    def _end_sentences(self) -> None:
        for track in self._tracks.values():
            self._queue(track.end())

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
        while self._waiting and self._waiting[0][0] <= time_s:
            _, _, cue = heapq.heappop(self._waiting)
            self._count[cue.track] += 1
            number, is_above = self._count[cue.track], cue.track == SOURCE and self._has_translation
            if not self._is_subrip:
                self._file.write(_block(cue, number, " line:0" if is_above else ""))
            elif not is_above:
                self._file.write(_subrip_block(cue, number))
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
    for cue in sorted(cues, key=lambda cue: cue.start_s):  # those of one moment as they came
        count[cue.track] += 1
        text += _block(cue, count[cue.track], " line:0" if cue.track == SOURCE else "")
    return text


def _block(cue: Cue, number: int, place: str) -> str:
    """A cue as the file has it; ``place``: WebVTT settings with a space before them."""
    text = cue.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"\n{cue.track} {number}\n{_time(cue.start_s)} --> {_time(cue.end_s)}{place}\n{text}\n"


def _subrip_block(cue: Cue, number: int) -> str:
    times = f"{_time(cue.start_s)} --> {_time(cue.end_s)}".replace(".", ",")
    return f"{number}\n{times}\n{cue.text}\n\n"


def _time(seconds: float) -> str:
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02}.{milliseconds % 1000:03}"
