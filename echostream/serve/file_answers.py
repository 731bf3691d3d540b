"""Answers about a translated file, in the shapes that clients of ``/v1/audio/translations`` know."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from echostream.decoding.word_boundary import SourceWord
from echostream.streaming import OutputWord, SentenceRecomposer, StepOutput
from echostream.streaming.subtitles import whole_subtitles

JSON, TEXT, SRT, VTT, VERBOSE = FORMATS = ("json", "text", "srt", "vtt", "verbose_json")
STREAMED = (JSON, VERBOSE, TEXT)  # subtitles are written when it is known where each ends
CONTENT_TYPES = {
    JSON: "application/json",
    VERBOSE: "application/json",
    TEXT: "text/plain",
    SRT: "application/x-subrip",
    VTT: "text/vtt",
}
EVENTS = "text/event-stream"
CUE_TIMES = re.compile(r"(\d\d+):(\d\d):(\d\d)\.(\d{3}) --> (\d\d+):(\d\d):(\d\d)\.(\d{3})")


@dataclass(frozen=True)
class Translation:
    """What came out of a file.

    Attributes:
        words: of the translation, with the source time at which each was written.
        duration_s: length of the file.
        recomposer: knows where sentences end.
        languages: tags of source and target; empty if not known.
    """

    words: Sequence[OutputWord]
    duration_s: float
    recomposer: SentenceRecomposer
    languages: tuple[str, str] = ("", "")

    @property
    def text(self) -> str:
        return StepOutput(words=list(self.words)).text.strip()

    def body(self, kind: str) -> str:
        """The whole answer in one of :data:`FORMATS`."""
        if kind == JSON:
            return json.dumps({"text": self.text}, ensure_ascii=False)
        if kind == TEXT:
            return self.text + "\n"
        if kind == VTT:
            return self._vtt()
        if kind == SRT:
            return self._srt()
        return json.dumps(self._verbose(), ensure_ascii=False)

    def _verbose(self) -> dict[str, Any]:
        source, target = self.languages
        return {
            "task": "translate",
            "language": target,
            "source_language": source,
            "duration": round(self.duration_s, 3),
            "text": self.text,
            "segments": [
                {"id": number, "start": start_s, "end": end_s, "text": text}
                for number, (start_s, end_s, text) in enumerate(self._cues())
            ],
        }

    def _vtt(self) -> str:
        times = (SourceWord(word.text, word.source_time_s, word.source_time_s, word.joined) for word in self.words)
        return whole_subtitles([], [list(times)], self.recomposer)

    def _cues(self) -> list[tuple[float, float, str]]:
        """Start, end and text of each subtitle."""
        cues = []
        for block in self._vtt().split("\n\n"):
            if match := CUE_TIMES.search(block):
                numbers = [int(number) for number in match.groups()]
                start_s, end_s = (
                    (3600 * hours + 60 * minutes + seconds) + milliseconds / 1000
                    for hours, minutes, seconds, milliseconds in (numbers[:4], numbers[4:])
                )
                text = block[match.end() :].partition("\n")[2]
                cues.append((start_s, end_s, html.unescape(text.strip())))
        return cues

    def _srt(self) -> str:
        blocks = [
            f"{number}\n{_srt_time(start_s)} --> {_srt_time(end_s)}\n{text}\n"
            for number, (start_s, end_s, text) in enumerate(self._cues(), start=1)
        ]
        return "\n".join(blocks)


def _srt_time(seconds: float) -> str:
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02},{milliseconds % 1000:03}"


def delta(text: str, kind: str) -> str:
    """New text, as a piece of a streamed answer."""
    return text if kind == TEXT else event({"type": "transcript.text.delta", "delta": text})


def ending(translation: Translation, kind: str) -> str:
    """The last piece of a streamed answer."""
    if kind == TEXT:
        return "\n"
    content = json.loads(translation.body(kind))
    return event({"type": "transcript.text.done", **content})


def event(content: dict[str, Any]) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


def error_body(message: str, kind: str = "invalid_request_error") -> str:
    """What clients of this interface expect of an error."""
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": None}}, ensure_ascii=False)
