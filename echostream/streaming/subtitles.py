"""Subtitles as WebVTT or SubRip, written sentence by sentence while the stream goes on.

Format: W3C, "WebVTT: The Web Video Text Tracks Format". Words that the model is not sure of have the class
``doubtful``, and the file says how it looks. SubRip has numbered cues, no classes and no places on the screen, so that
a file has one language: the translation, or the source if nothing is translated.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from echostream.constants import SUBTITLE_CLOCKS
from echostream.decoding.word_boundary import SourceWord
from echostream.printing import printable
from echostream.streaming.cues import SOURCE, TRANSLATION, Cue, Track, lines, marked_lines, whole_cues
from echostream.streaming.live import silence_ms
from echostream.streaming.recomposer import OutputWord, SentenceRecomposer
from echostream.streaming.state import EchoStreamState, StepOutput, by_sentence

SUBRIP_SUFFIX = ".srt"
HEADER = """WEBVTT

STYLE
::cue(.doubtful) { color: silver; text-decoration: underline dotted; }
"""


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
        self._tracks = {name: Track(name, recomposer) for name in (SOURCE, TRANSLATION)}
        self._waiting: list[tuple[float, int, Cue]] = []  # by start; those of one moment as they came
        self._queued = itertools.count()
        self._has_translation = False
        self._is_subrip = path.suffix.lower() == SUBRIP_SUFFIX
        self._count = dict.fromkeys(self._tracks, 0)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w", encoding="utf-8")
        self._file.write("" if self._is_subrip else HEADER)
        self._file.flush()

    def add(self, output: StepOutput, state: EchoStreamState) -> None:
        """Take in what a step gave that left the stream in ``state``."""
        if self._clock == "speech":
            source, translation = [], output.words
        else:
            source, translation = output.source_words, [at_source_time(word) for word in output.words]
        self._has_translation = state.translation is not None
        self._queue(self._tracks[SOURCE].add(source))
        said = self._tracks[TRANSLATION]
        for number, part in enumerate(by_sentence(translation, output.sentence_ends)):
            if number:
                self._queue(said.end_sentence())
            self._queue(said.add(part))
        if state.finished or self._recomposer.ends_sentence(silence_ms(state), ""):
            self._end_sentences()
        self._settle(self._earliest_word_s(state))

    def close(self) -> None:
        """Write what is left, an unfinished sentence included, and close the file."""
        if not self._file.closed:
            self._end_sentences()
            self._settle(float("inf"))
            self._file.close()

    def _queue(self, cues: list[Cue]) -> None:
        for cue in cues:
            heapq.heappush(self._waiting, (cue.start_s, next(self._queued), cue))

    def _end_sentences(self) -> None:
        for track in self._tracks.values():
            self._queue(track.end_sentence())

    def _earliest_word_s(self, state: EchoStreamState) -> float:
        """No word that is still to come starts before this."""
        if state.finished:
            return float("inf")
        if self._clock == "speech":
            return 0.0
        starts = [state.source_time_s(state.frames)]
        if state.translation is not None:
            starts += [word.source_time_s for word in state.translation.output.waiting]
        if (word := state.recogniser.boundaries.words.open) is not None:
            starts.append(state.source_time_s(word.start_frame, begins=True))
        return min(starts)

    def _settle(self, time_s: float) -> None:
        """Write what is certain, given that words that are still to come start at this time or later."""
        for track in self._tracks.values():
            self._queue(track.settle(time_s))
        if self._clock == "speech":  # cues of one track come in order
            time_s = float("inf")
        starts = [track.earliest_s for track in self._tracks.values()]
        self._write_before(min([time_s, *(start_s for start_s in starts if start_s is not None)]))

    def _write_before(self, time_s: float) -> None:
        while self._waiting and self._waiting[0][0] <= time_s:
            _, _, cue = heapq.heappop(self._waiting)
            self._count[cue.track] += 1
            number, is_above = self._count[cue.track], cue.track == SOURCE and self._has_translation
            if not self._is_subrip:
                self._file.write(_block(cue, number, " line:0" if is_above else ""))
            elif not is_above:
                self._file.write(subrip_block(cue, number))
            self._file.flush()


def at_source_time(word: OutputWord) -> OutputWord:
    """A word that lies where it was written, on the clock of the source."""
    return replace(word, start_s=word.source_time_s, end_s=word.source_time_s)


def whole_subtitles(
    source: Iterable[SourceWord],
    translation: Iterable[Iterable[SourceWord | OutputWord]],
    recomposer: SentenceRecomposer,
) -> str:
    """WebVTT of a stream that is over: the source at the top, and its translation; see :func:`whole_cues`."""
    count = dict.fromkeys((SOURCE, TRANSLATION), 0)
    text = HEADER
    for cue in whole_cues(source, translation, recomposer):
        count[cue.track] += 1
        text += _block(cue, count[cue.track], " line:0" if cue.track == SOURCE else "")
    return text


def _block(cue: Cue, number: int, place: str) -> str:
    """A cue as the file has it; ``place``: WebVTT settings with a space before them."""
    text = "\n".join(" ".join(itertools.starmap(_marked, line)) for line in marked_lines(cue))
    return f"\n{cue.track} {number}\n{_time(cue.start_s)} --> {_time(cue.end_s)}{place}\n{text}\n"


def _marked(text: str, is_doubtful: bool) -> str:
    """A piece of a line as WebVTT has it."""
    escaped = printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"<c.doubtful>{escaped}</c>" if is_doubtful else escaped


def subrip_block(cue: Cue, number: int) -> str:
    """A cue as SubRip has it."""
    times = f"{_time(cue.start_s)} --> {_time(cue.end_s)}".replace(".", ",")
    return f"{number}\n{times}\n{chr(10).join(map(printable, lines(cue.text)))}\n\n"


def _time(seconds: float) -> str:
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02}.{milliseconds % 1000:03}"
