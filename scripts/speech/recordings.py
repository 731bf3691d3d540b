"""Lists of recordings: a table, a plain list of files, or a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from echostream.text import text_lines
from scripts.speech.audio import read_speech
from scripts.speech.speech_synthesis import read_table

SUFFIXES = (".wav", ".flac", ".ogg")


@dataclass(frozen=True)
class Recording:
    """A sound file; `audio` is its path relative to the audio root, or absolute; `text` what is said, "" if unknown."""

    id: str
    audio: str
    text: str = ""


def list_recordings(source: Path, root: Path, text_column: str = "") -> list[Recording]:
    """Recordings in the order of the list.

    Args:
        source: a .tsv with the columns `id` and `audio`, any other file with one path a line, or a folder with sound
            files (at any depth, in the order of their names). Without a table, ids are names without the suffix.
        root: paths in the list are relative to it; those inside of it are kept relative.
        text_column: column of the table with the text.

    Raises:
        SystemExit: no such list, nothing in it, or an id used twice.
    """
    if source.is_dir():
        files = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES)
        rows = [(path.stem, path, "") for path in files if not path.name.startswith(".")]
    elif source.suffix == ".tsv":
        columns = ("audio", text_column) if text_column else ("audio",)
        table = read_table(source, *columns)
        rows = [(row["id"], Path(row["audio"]), row[text_column] if text_column else "") for row in table]
    elif source.is_file():
        lines = text_lines(source)
        rows = [(Path(line).stem, Path(line), "") for line in lines if line.strip()]
    else:
        raise SystemExit(f"error: no list of recordings {source}")
    if not rows:
        raise SystemExit(f"error: {source} lists no recordings ({', '.join(SUFFIXES)})")
    recordings, seen = [], set()
    for name, path, text in rows:
        if name in seen:
            raise SystemExit(f"error: {source}: the id {name} is used twice; give a .tsv with ids of your own")
        seen.add(name)
        recordings.append(Recording(name, _relative(path, root), text))
    return recordings


def _relative(path: Path, root: Path) -> str:
    # A path of a folder or list may be seen from the working folder, one of a table is seen from the root.
    inside = path if (root / path).exists() else path.resolve()
    if inside.is_absolute() and inside.is_relative_to(root.resolve()):
        inside = inside.relative_to(root.resolve())
    return inside.as_posix()


def shuffled(recordings: list[Recording], seed: int) -> list[Recording]:
    """The recordings in an order that depends on nothing but their number and the seed."""
    order = np.random.default_rng(seed).permutation(len(recordings))
    return [recordings[index] for index in order]


def read_recording(recording: Recording, root: Path) -> np.ndarray:
    """Samples, float32 `(n,)` at 16 kHz.

    Raises:
        ValueError: the file can't be read, or isn't 16 kHz mono.
    """
    path = root / recording.audio
    try:
        return read_speech(path)
    except (OSError, soundfile.LibsndfileError) as error:
        raise ValueError(f"cannot read {path}: {' '.join(str(error).split())}") from error
