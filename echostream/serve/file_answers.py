"""Answers about a translated file, in the shapes that clients of ``/v1/audio/translations`` know."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from echostream.streaming import OutputWord, SentenceRecomposer, StepOutput
from echostream.streaming.cues import Cue, whole_cues
from echostream.streaming.state import by_sentence
from echostream.streaming.subtitles import at_source_time, subrip_block, whole_subtitles

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


@dataclass(frozen=True)
class Translation:
    """What came out of a file.

    Attributes:
        words: of the translation, with the source time at which each was written.
        duration_s: length of the file.
        recomposer: knows where sentences end.
        languages: tags of source and target; empty if not known.
        sentence_ends: how many of ``words`` come before the end of each sentence.
    """

    words: Sequence[OutputWord]
    duration_s: float
    recomposer: SentenceRecomposer
    languages: tuple[str, str] = ("", "")
    sentence_ends: Sequence[int] = ()

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
                {"id": number, "start": round(cue.start_s, 3), "end": round(cue.end_s, 3), "text": cue.text}
                for number, cue in enumerate(self._cues())
            ],
        }

    @property
    def _timed(self) -> list[Sequence[OutputWord]]:
        return by_sentence([at_source_time(word) for word in self.words], self.sentence_ends)

    def _vtt(self) -> str:
        return whole_subtitles([], self._timed, self.recomposer)

    def _cues(self) -> list[Cue]:
        return whole_cues([], self._timed, self.recomposer)

    def _srt(self) -> str:
        return "".join(subrip_block(cue, number) for number, cue in enumerate(self._cues(), start=1))


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
