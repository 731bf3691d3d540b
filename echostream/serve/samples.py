"""Recordings that come with a model, for a first try on the page."""

from __future__ import annotations

import csv
import logging
import mimetypes
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

FOLDER, LIST = "samples", "samples.tsv"
MOST = 3
MAX_BYTES = 5_000_000


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
        with (folder / LIST).open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
                path = folder / Path(row.get("source_audio") or "").name
                if len(found) < MOST and path.is_file() and path.stat().st_size <= MAX_BYTES:
                    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
                    found.append(Sample(path.name, row.get(source_lang) or "", path.read_bytes(), kind))
    except FileNotFoundError:
        pass
    except (OSError, ValueError, csv.Error) as error:
        log.warning("the samples in %s can't be offered: %s", folder, error)
    return found
