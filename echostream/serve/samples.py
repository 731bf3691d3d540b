"""Recordings that come with a model, for a first try on the page."""

from __future__ import annotations

import csv
import logging
import mimetypes
from dataclasses import dataclass
from pathlib import Path

from echostream.audio.errors import AudioError
from echostream.audio.input import open_audio
from echostream.checkpoints.text_files import read_text
from echostream.text import split_lines

log = logging.getLogger(__name__)

FOLDER, LIST = "samples", "samples.tsv"
MOST = 3
MAX_BYTES, MAX_LIST_BYTES = 5_000_000, 65_536


@dataclass(frozen=True)
class Sample:
    """A recording.

    Attributes:
        name: of the file.
        text: what is said in it; empty if not known.
        content: of the file.
        kind: MIME type.
    """

    name: str
    text: str
    content: bytes
    kind: str


def read_samples(model: Path, source_lang: str) -> list[Sample]:
    """The first recordings that ``samples/samples.tsv`` in a model's folder lists; what can't be read is left out.

    Args:
        model: folder, or a checkpoint in it.
        source_lang: name of the column that has what is said.
    """
    folder = (model if model.is_dir() else model.parent) / FOLDER
    found: list[Sample] = []
    try:
        lines = split_lines(read_text(folder / LIST, MAX_LIST_BYTES))
        for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
            path = folder / Path(row.get("source_audio") or "").name
            kind = mimetypes.guess_type(path.name)[0] or ""
            if len(found) < MOST and kind.startswith("audio/") and _is_recording(path):
                found.append(Sample(path.name, row.get(source_lang) or "", path.read_bytes(), kind))
    except FileNotFoundError:
        pass
    except (OSError, ValueError, csv.Error) as error:
        log.warning("the samples in %s can't be offered: %s", folder, error)
    return found


def _is_recording(path: Path) -> bool:
    """Whether it can be offered and is a recording: a link in a model's folder may lead to any file of this machine."""
    if not path.is_file() or path.stat().st_size > MAX_BYTES:
        return False
    try:
        with open_audio(path):
            return True
    except AudioError:
        return False
