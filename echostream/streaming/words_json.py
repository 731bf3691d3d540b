"""Words with their times as JSON: for programs, in a file or line by line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from echostream.decoding.word_boundary import SourceWord
from echostream.streaming.recomposer import OutputWord
from echostream.streaming.state import EchoStreamState, StepOutput, by_sentence

SOURCE, TRANSLATION = "source", "translation"


def source_word_fields(word: SourceWord) -> dict[str, Any]:
    """A recognised word: ``text``, ``start_s`` and ``end_s`` in the source, ``joined``."""
    return {
        "text": word.text,
        "start_s": round(word.start_s, 3),
        "end_s": round(word.end_s, 3),
        "joined": word.joined,
    }


def output_word_fields(word: OutputWord) -> dict[str, Any]:
    """A word of the translation: ``text``, ``source_s`` when it was written, its times in the speech, ``joined``,
    ``confidence`` from 0 to 1."""
    return {
        "text": word.text,
        "source_s": round(word.source_time_s, 3),
        "start_s": round(word.start_s, 3),
        "end_s": round(word.end_s, 3),
        "joined": word.joined,
        "confidence": round(word.confidence, 3),
    }


class WordLines:
    """A JSON object for each word of a stream: what is ``about`` it, its ``track``, and its fields.

    Words of the translation have ``sentence`` as well, the number of their sentence, from 0.

    Args:
        about: entries of each object before its own.
    """

    def __init__(self, about: dict[str, Any]) -> None:
        self._about, self._sentence = about, 0

    def of(self, output: StepOutput) -> list[str]:
        """The objects of the words that a step added."""
        fields = [{"track": SOURCE, **source_word_fields(word)} for word in output.source_words]
        for number, part in enumerate(by_sentence(output.words, output.sentence_ends), start=self._sentence):
            fields += [{"track": TRANSLATION, **output_word_fields(word), "sentence": number} for word in part]
        self._sentence += len(output.sentence_ends)
        return [json.dumps(self._about | entry, ensure_ascii=False) for entry in fields]


class JsonLines:
    """The words of a stream as text to be printed as they come, an object a line.

    Args:
        about: entries of each object before its own.
    """

    def __init__(self, about: dict[str, Any]) -> None:
        self._lines = WordLines(about)

    def add(self, output: StepOutput, state: EchoStreamState, time_s: float) -> str:
        """What to print after a step."""
        return "".join(f"{line}\n" for line in self._lines.of(output))


class JsonWriter:
    """The words of a stream in a file, which holds a whole JSON document after every write.

    Args:
        path: of the file, overwritten; its folder is made.
        about: entries of the document before ``words``.

    Raises:
        OSError: a place that can't be written to.
    """

    END = "\n]}\n"

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w", encoding="utf-8")
        self._before = "\n"  # the next word
        self._lines = WordLines({})
        self._file.write(json.dumps(about, ensure_ascii=False)[:-1] + f'{", " if about else ""}"words": [')
        self._write([])

    def add(self, output: StepOutput, state: EchoStreamState) -> None:
        """Take in what a step gave."""
        if lines := self._lines.of(output):
            self._write(lines)

    def _write(self, lines: list[str]) -> None:
        for line in lines:
            self._file.write(self._before + line)
            self._before = ",\n"
        end = self._file.tell()
        self._file.write(self.END)
        self._file.flush()
        self._file.seek(end)  # where the next words take the place of what closes the document now

    def close(self) -> None:
        """Close the file."""
        self._file.close()
