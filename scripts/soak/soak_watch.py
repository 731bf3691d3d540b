"""Watches a long stream: memory, clocks, words that loop or come out of silence, and judges what it saw."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from echostream.constants import FRAME_S
from echostream.decoding.word_boundary import SourceWord
from echostream.streaming import OutputWord
from scripts.soak.soak_audio import SAMPLE_RATE, Programme

ROUNDING_S = 0.0011  # times travel in whole milliseconds
LONGEST_PHRASE = 8  # words of a loop
LEAST_REPEATS = 4
MARKS = 12
LEAST_PAIRS = 5  # recordings heard both early and late, for a drift to be judged
LEAST_SENTENCES = 20  # in the first third and in the last, for what is lost to be judged


def _limit(default: float, help_text: str) -> Any:
    return field(default=default, metadata={"help": help_text})


@dataclass(frozen=True)
class Tolerances:
    """What a soak may show and still pass."""

    grace_s: float = _limit(3.0, "what was said before a silence may still be translated so long into it (s)")
    growth_mb: float = _limit(30.0, "growth of resident memory, last third against first (MB)")
    state_growth: float = _limit(0.1, "growth of the state's peak, as a share of it")
    lag_s: float = _limit(0.5, "the encoder's clock behind the audio used, which is its look-ahead (s)")
    drift_ms: float = _limit(80.0, "drift of the times at which the same recordings are heard (ms)")
    late_losses: float = _limit(
        0.1, "sentences of which nothing is said, share of the last third's against the first's"
    )
    loops: int = _limit(0, f"phrases said {LEAST_REPEATS} times in a row")
    silent_words: int = _limit(0, "words said in silence")


@dataclass
class Mark:
    """Where a stream stood: ``rss_mb`` then, ``state_kb`` at most and ``compute_s`` since the mark before."""

    audio_s: float
    rss_mb: float
    state_kb: float | None
    compute_s: float


@dataclass
class Report:
    """What a part of a soak saw; ``broken`` names the limits that did not hold."""

    part: str
    audio_s: float
    speech_s: float = 0.0
    marks: list[Mark] = field(default_factory=list)
    compute_per_s: float = 0.0
    rss_growth_mb: float = 0.0
    state_growth: float | None = None
    words: int = 0
    source_words: int = 0
    words_by_kind: dict[str, int] = field(default_factory=dict)
    # Sentences that were played whole, those of which something was heard, and said: in the first third, ... the last.
    sentences: tuple[int, ...] = (0, 0, 0)
    sentences_heard: tuple[int, ...] = (0, 0, 0)
    sentences_said: tuple[int, ...] = (0, 0, 0)
    # Of each recording: how often it was played whole, and the words said then, from its start to that of the next one.
    plays: list[int] = field(default_factory=list)
    words_said: list[int] = field(default_factory=list)
    words_alone: list[int] = field(default_factory=list)  # said of each recording when nothing else is heard
    beyond_audio: int = 0
    backwards: int = 0
    lag_s: tuple[float, float] | None = None
    drift_ms: float | None = None
    drift_pairs: int = 0
    output_clock_ms: float = 0.0
    loops: list[str] = field(default_factory=list)
    silent_words: list[str] = field(default_factory=list)
    silent_speech_s: float = 0.0
    silent_heard: list[str] = field(default_factory=list)
    text_digest: str = ""
    speech_digest: str = ""
    broken: list[str] = field(default_factory=list)


def find_loops(words: Sequence[str], longest: int = LONGEST_PHRASE, repeats: int = LEAST_REPEATS) -> list[str]:
    """Phrases of up to ``longest`` words said ``repeats`` times in a row or more, such as ``"the end x 5"``."""
    found, at = [], 0
    while at < len(words):
        for size in range(1, longest + 1):
            phrase = list(words[at : at + size])
            times = 1
            while words[at + times * size : at + (times + 1) * size] == phrase:
                times += 1
            if times >= repeats:
                found.append(f"{' '.join(phrase)} x {times}")
                at += times * size
                break
        else:
            at += 1
    return found


class Watch:
    """Takes in what comes out of one stream and adds it up.

    Args:
        part: name of the stream's way through the system.
        programme: what it hears.
        tolerances: what may be.
    """

    def __init__(self, part: str, programme: Programme, tolerances: Tolerances) -> None:
        self.report = Report(part, programme.length_s)
        self.programme, self.tolerances = programme, tolerances
        self._words: list[OutputWord] = []
        self._source_words: list[SourceWord] = []
        self._text: list[str] = []
        self._source_text: list[str] = []
        self._lags_s: list[float] = []
        self._state_bytes: int | None = None  # at most since the last mark
        self._latest_bytes: int | None = None
        self._compute_s = self._marked_compute_s = 0.0
        self._speech_samples = 0
        self._digest = hashlib.sha256()
        self._mark_every_s = programme.length_s / MARKS

    def step(
        self,
        audio_s: float,
        words: Sequence[OutputWord],
        source_words: Sequence[SourceWord],
        text: str,
        source_text: str,
    ) -> None:
        """What came out when ``audio_s`` of the programme had gone in."""
        latest_s = audio_s + FRAME_S  # the last frame of a stream may be a part of one
        report = self.report
        report.beyond_audio += sum(word.source_time_s > latest_s for word in words)
        report.beyond_audio += sum(word.end_s > latest_s for word in source_words)
        for last, word in pairwise([*self._words[-1:], *words]):
            report.backwards += word.source_time_s < last.source_time_s or word.start_s < last.end_s - ROUNDING_S
        for before, heard in pairwise([*self._source_words[-1:], *source_words]):
            report.backwards += heard.start_s < before.end_s - ROUNDING_S
        self._words += words
        self._source_words += source_words
        self._text.append(text)
        self._source_text.append(source_text)

    def hear(self, pcm: bytes) -> None:
        """Speech that came out, 16 bit."""
        self._speech_samples += len(pcm) // 2
        self._digest.update(pcm)

    def clock(self, lag_s: float) -> None:
        """How far the stream's own clock is behind the audio that it has used."""
        self._lags_s.append(lag_s)

    def state(self, num_bytes: int) -> None:
        """Size of the stream's state after a step."""
        self._state_bytes = max(num_bytes, self._state_bytes or 0)
        self._latest_bytes = num_bytes

    def computed(self, seconds: float) -> None:
        """Time spent on the stream."""
        self._compute_s += seconds

    def is_due(self, audio_s: float) -> bool:
        """Whether it is time for a mark."""
        marks = len(self.report.marks)
        return marks < MARKS and audio_s >= self._mark_every_s * (marks + 1) - ROUNDING_S

    def mark(self, audio_s: float, rss_bytes: float) -> None:
        """Note the memory."""
        kilobytes = None if self._state_bytes is None else self._state_bytes / 1e3
        since_s = self._compute_s - self._marked_compute_s
        self.report.marks.append(Mark(round(audio_s, 1), rss_bytes / 1e6, kilobytes, since_s))
        self._marked_compute_s, self._state_bytes = self._compute_s, self._latest_bytes

    def finish(self, speech_s: float | None = None) -> Report:
        """Add up and judge; ``speech_s``: where the output's own clock ended, if that is known."""
        report = self.report
        report.speech_s = self._speech_samples / SAMPLE_RATE
        report.compute_per_s = self._compute_s / report.audio_s
        report.words, report.source_words = len(self._words), len(self._source_words)
        text, source_text = "".join(self._text), "".join(self._source_text)
        report.speech_digest = self._digest.hexdigest()
        report.text_digest = hashlib.sha256(text.encode()).hexdigest()
        report.loops = find_loops(_plain(text)) + find_loops(_plain(source_text))
        self._attribute()
        self._count_sentences()
        self._grow()
        if self._lags_s:
            report.lag_s = min(self._lags_s), max(self._lags_s)
        self._drift()
        if speech_s is None:
            speech_s = max((word.end_s for word in self._words), default=0.0)
        report.output_clock_ms = 1000 * (report.speech_s - speech_s)
        self._judge()
        return report

    def _attribute(self) -> None:
        """Which words were said when what was heard; the first seconds of a stretch belong to the one before."""
        report, by_kind = self.report, dict.fromkeys((s.kind for s in self.programme.stretches), 0)
        for word in self._words:
            stretch = self.programme.stretches[self._owner(word.source_time_s)]
            by_kind[stretch.kind] += 1
            if stretch.is_silent:
                report.silent_words.append(f"'{word.text}' at {word.source_time_s:.2f} s")
                report.silent_speech_s += word.end_s - word.start_s
        for heard in self._source_words:
            if self.programme.stretches[self._owner(heard.start_s)].is_silent:
                report.silent_heard.append(f"'{heard.text}' at {heard.start_s:.2f} s")
        report.words_by_kind = by_kind

    def _count_sentences(self) -> None:
        """Of each sentence: whether any word of it was heard, and whether any was said before the next one began."""
        heard_s = np.array([word.start_s for word in self._source_words])
        said_s = np.array([word.source_time_s for word in self._words])
        counts = np.zeros((3, 3), dtype=int)  # played, heard, said; by thirds
        of_recording = np.zeros((2, len(self.programme.recordings)), dtype=int)
        for stretch in self.programme.stretches:
            ends = [place for _, place in stretch.said[1:]] + [self.programme.size]
            for (index, place), until in zip(stretch.said, ends, strict=False):  # nothing is said in most stretches
                size = len(self.programme.recordings[index])
                if place + size > stretch.start + stretch.size:
                    continue  # the end of the programme cut it
                begin_s, end_s = place / SAMPLE_RATE, (place + size) / SAMPLE_RATE
                until_s = min(until / SAMPLE_RATE, end_s + self.tolerances.grace_s)
                was_heard = ((begin_s <= heard_s) & (heard_s < end_s)).any()
                words = int(((begin_s < said_s) & (said_s <= until_s)).sum())
                counts[:, 3 * place // self.programme.size] += 1, was_heard, words > 0
                of_recording[:, index] += 1, words
        report = self.report
        report.plays, report.words_said = of_recording.tolist()
        report.sentences, report.sentences_heard, report.sentences_said = (tuple(row) for row in counts.tolist())

    @staticmethod
    def late_losses(report: Report) -> float:
        """How much larger a share of the sentences nothing is said of in the last third than in the first."""
        first, *_, last = zip(report.sentences, report.sentences_said, strict=True)
        if min(first[0], last[0]) < LEAST_SENTENCES:
            return 0.0
        return first[1] / first[0] - last[1] / last[0]

    def _owner(self, time_s: float) -> int:
        """The stretch that words of this time translate: what was said before comes late, but silence says nothing."""
        number, stretches = self.programme.at(time_s), self.programme.stretches
        is_fresh = time_s <= stretches[number].start_s + self.tolerances.grace_s
        return number - 1 if number and is_fresh and not stretches[number - 1].is_silent else number

    def _grow(self) -> None:
        third = len(self.report.marks) // 3
        if not third:
            return
        first, last = self.report.marks[:third], self.report.marks[-third:]
        self.report.rss_growth_mb = max(m.rss_mb for m in last) - max(m.rss_mb for m in first)
        before, after = ([m.state_kb for m in marks if m.state_kb] for marks in (first, last))
        if before and after:
            self.report.state_growth = max(after) / max(before) - 1

    def _drift(self) -> None:
        """How much later the same recordings are heard at the end than at the beginning."""
        starts = np.array([word.start_s for word in self._source_words])
        onsets: dict[int, tuple[list[float], list[float]]] = {}
        for stretch in self.programme.stretches:
            third = int(3 * stretch.start / self.programme.size)
            for index, place in stretch.said if third != 1 else ():
                begin_s = place / SAMPLE_RATE
                number = np.searchsorted(starts, begin_s - FRAME_S)
                length_s = len(self.programme.recordings[index]) / SAMPLE_RATE
                if number < len(starts) and starts[number] < begin_s + length_s:
                    onsets.setdefault(index, ([], []))[third // 2].append(starts[number] - begin_s)
        late = [np.median(last) - np.median(first) for first, last in onsets.values() if first and last]
        self.report.drift_pairs = len(late)
        if late:
            self.report.drift_ms = 1000 * float(np.median(late))

    def _judge(self) -> None:
        report, may = self.report, self.tolerances
        drifts = report.drift_pairs >= LEAST_PAIRS and abs(report.drift_ms or 0) > may.drift_ms
        least_s, most_s = report.lag_s or (0.0, 0.0)
        lags = least_s < -FRAME_S - ROUNDING_S or most_s > may.lag_s
        faults = {
            f"memory grew by {report.rss_growth_mb:.0f} MB": report.rss_growth_mb > may.growth_mb,
            f"the state grew by {100 * (report.state_growth or 0):.0f} %": (report.state_growth or 0)
            > may.state_growth,
            f"{report.beyond_audio} words lie beyond the audio": report.beyond_audio,
            f"{report.backwards} words go back in time": report.backwards,
            f"the clock is {least_s:.2f} to {most_s:.2f} s behind": lags,
            f"the same recordings are heard {report.drift_ms} ms later at the end": drifts,
            f"the output's clock is {report.output_clock_ms:.1f} ms off": abs(report.output_clock_ms) > 1000 * FRAME_S,
            f"{100 * self.late_losses(report):.0f} % more sentences are lost at the end": self.late_losses(report)
            > may.late_losses,
            f"{len(report.loops)} loops": len(report.loops) > may.loops,
            f"{len(report.silent_words)} words said in silence": len(report.silent_words) > may.silent_words,
        }
        report.broken += [text for text, holds in faults.items() if holds]


def _plain(text: str) -> list[str]:
    return re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text.lower())
