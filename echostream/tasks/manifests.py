"""Manifests: the TSV files of fairseq's speech-to-unit recipes, read and checked row by row.

A split consists of ``{split}.tsv`` with the columns ``id src_audio src_n_frames tgt_audio tgt_n_frames``, where
``tgt_audio`` holds the target units separated by spaces, and one ``{split}.tsv`` per text (columns ``id tgt_text``) in
the folders that the multitask YAML names. All errors are found before the first update, and reported with file and
line.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".npy")
SPEECH_COLUMNS = ("id", "src_audio", "src_n_frames", "tgt_audio", "tgt_n_frames")
TEXT_COLUMNS = ("id", "tgt_text")
MAX_NUMBER = 2**31 - 1  # units are stored as int32
MAX_QUOTED = 300  # characters of a value in a message; enough for long paths


class ManifestError(ValueError):
    """A manifest, dictionary or data config is not valid; the message gives the place and the reason."""


@contextmanager
def exit_with_message(*expected: type[Exception]) -> Iterator[None]:
    """Turn an ``expected`` error into an exit with its message on one line, instead of a traceback.

    Raises:
        SystemExit: with the message; Python prints it and exits with status 1.
    """
    try:
        yield
    except expected as error:
        raise SystemExit(f"echostream: {' '.join(str(error).split())}") from None


def quoted(value: str) -> str:
    """``value`` quoted for a message: on one line, shortened, and without control characters."""
    text = repr(value)
    return text if len(text) <= MAX_QUOTED else f"{text[: MAX_QUOTED - 3]}..."


@dataclass(frozen=True)
class Utterance:
    """One row of a speech manifest."""

    id: str
    audio: str  # a file, or archive.zip:offset:length in bytes
    n_frames: int  # log-mel frames of 10 ms; used to form batches
    units: np.ndarray  # int32 (U,)
    line: int  # line in the TSV file; the header is line 1


def read_rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield ``(line number, {column: value})`` of a TSV file with a header; only ``columns`` are returned.

    Raises:
        ManifestError: the file is missing, empty or not UTF-8, a column is missing or occurs twice, an id occurs twice,
            or a row has another number of fields than the header.
    """
    if not path.is_file():
        raise ManifestError(f"{path}: no such manifest")
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # spreadsheets add a byte order mark
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    header = lines[0].split("\t")
    for column in columns:
        if header.count(column) > 1:
            raise ManifestError(f"{path}: line 1: column {column!r} is there {header.count(column)} times")
        if column not in header:
            raise ManifestError(
                f"{path}: line 1: column {column!r} is missing; the header is {quoted(', '.join(header))} "
                f"and needs {', '.join(columns)} separated by tabs"
            )
    where = {column: header.index(column) for column in columns}
    seen: dict[str, int] = {}
    for number, text in enumerate(lines[1:], start=2):
        if not text:
            continue
        fields = text.split("\t")
        if len(fields) != len(header):
            raise ManifestError(
                f"{path}: line {number}: {len(fields)} fields, but the header names {len(header)} columns"
            )
        row = {column: fields[index] for column, index in where.items()}
        if row["id"] in seen:
            raise ManifestError(
                f"{path}: line {number}: id {quoted(row['id'])} was used before, in line {seen[row['id']]}"
            )
        seen[row["id"]] = number
        yield number, row
    if not seen:
        raise ManifestError(f"{path}: no rows below the header")


def _is_number(value: str) -> bool:
    """Whether ``value`` is a whole number from 0 to ``MAX_NUMBER``, in ASCII digits."""
    return value.isascii() and value.isdecimal() and len(value) <= 20 and int(value) <= MAX_NUMBER


def _positive(path: Path, number: int, column: str, value: str) -> int:
    if not _is_number(value) or int(value) == 0:
        raise ManifestError(
            f"{path}: line {number}: {column} is {quoted(value)}, not a positive whole number up to {MAX_NUMBER}"
        )
    return int(value)


def _exists(path: Path) -> bool:
    """Whether the file exists; False for a name that is not valid."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long or contains a NUL
        return False


def _units(path: Path, number: int, value: str) -> np.ndarray:
    pieces = value.split()
    if not pieces:
        raise ManifestError(f"{path}: line {number}: tgt_audio is empty; it needs at least one unit")
    for piece in pieces:
        if not _is_number(piece):
            digits = piece.isascii() and piece.isdecimal()
            reason = "too large for a unit" if digits else "it must be units (numbers separated by spaces)"
            raise ManifestError(f"{path}: line {number}: tgt_audio holds {quoted(piece)}; {reason}")
    return np.array(list(map(int, pieces)), dtype=np.int32)


class _AudioFiles:
    """Checks that audio exists; the size of each archive is looked up only once."""

    def __init__(self, root: Path):
        self.root = root
        self.archive_bytes: dict[str, int] = {}

    def resolve(self, path: Path, number: int, value: str) -> str:
        """Full name of the audio ``value``, which may be relative to the root.

        Raises:
            ManifestError: it does not exist, or is not a supported kind of audio.
        """
        if value.endswith(AUDIO_SUFFIXES):
            audio = self.root / value
            if not _exists(audio):
                raise ManifestError(f"{path}: line {number}: audio file {quoted(str(audio))} does not exist")
            return str(audio)
        name, *numbers = value.rsplit(":", 2)
        if not name.endswith(".zip") or len(numbers) != 2 or not all(map(_is_number, numbers)):
            raise ManifestError(
                f"{path}: line {number}: src_audio {quoted(value)} is neither {', '.join(AUDIO_SUFFIXES)} "
                "nor archive.zip:offset:length"
            )
        archive = str(self.root / name)
        if archive not in self.archive_bytes:
            if not _exists(Path(archive)):
                raise ManifestError(f"{path}: line {number}: archive {quoted(archive)} does not exist")
            self.archive_bytes[archive] = Path(archive).stat().st_size
        offset, length = map(int, numbers)
        if length == 0 or offset + length > self.archive_bytes[archive]:
            raise ManifestError(
                f"{path}: line {number}: {quoted(value)} reaches past the end of the archive "
                f"({self.archive_bytes[archive]} bytes)"
            )
        return f"{archive}:{offset}:{length}"


def read_utterances(path: Path, audio_root: Path) -> list[Utterance]:
    """Read and check a speech manifest.

    Args:
        path: the TSV file.
        audio_root: folder of relative ``src_audio`` paths.

    Raises:
        ManifestError: names the file, the line and the value that is not valid.
    """
    files = _AudioFiles(audio_root)
    utterances = []
    for number, row in read_rows(path, SPEECH_COLUMNS):
        n_frames = _positive(path, number, "src_n_frames", row["src_n_frames"])
        _positive(path, number, "tgt_n_frames", row["tgt_n_frames"])
        units = _units(path, number, row["tgt_audio"])
        audio = files.resolve(path, number, row["src_audio"])
        utterances.append(Utterance(row["id"], audio, n_frames, units, number))
    return utterances


def check_units(path: Path, utterances: list[Utterance], num_units: int) -> None:
    """Check that all units are below ``num_units``.

    Raises:
        ManifestError: names the first unit that is not.
    """
    for utterance in utterances:
        if utterance.units.max() >= num_units:
            raise ManifestError(
                f"{path}: line {utterance.line}: unit {utterance.units.max()} is out of range; there are {num_units} "
                f"units, 0 to {num_units - 1} (--num-units)"
            )


def read_texts(folder: Path, split: str) -> dict[str, str]:
    """Read the text of each id from ``{folder}/{split}.tsv``.

    Raises:
        ManifestError: as :func:`read_rows`, or a text is empty.
    """
    path = folder / f"{split}.tsv"
    texts = {}
    for number, row in read_rows(path, TEXT_COLUMNS):
        if not row["tgt_text"].strip():
            raise ManifestError(f"{path}: line {number}: the text of {quoted(row['id'])} is empty")
        texts[row["id"]] = row["tgt_text"]
    return texts


def texts_in_order(path: Path, utterances: list[Utterance], folder: Path, split: str, entry: str) -> list[str]:
    """The texts of ``utterances`` in the same order.

    Raises:
        ManifestError: as :func:`read_texts`, or an utterance has no text.
    """
    texts = read_texts(folder, split)
    for utterance in utterances:
        if utterance.id not in texts:
            raise ManifestError(
                f"{path}: line {utterance.line}: id {quoted(utterance.id)} has no text in {folder / split}.tsv "
                f"(multitask entry {entry!r})"
            )
    return [texts[utterance.id] for utterance in utterances]


def check_same_texts(folder: Path, other: Path, split: str) -> None:
    """Check that both folders have the same texts for ``split``.

    Raises:
        ManifestError: names the first id whose texts differ.
    """
    if folder.resolve() == other.resolve():
        return
    one, two = read_texts(folder, split), read_texts(other, split)
    for name in {**one, **two}:  # unlike a set, a dictionary has a fixed order, so the message is always the same
        if one.get(name) != two.get(name):
            raise ManifestError(
                f"{other / split}.tsv: the text of id {quoted(name)} is not that in {folder / split}.tsv; "
                "target_unigram and ctc_target_unigram are one text"
            )
