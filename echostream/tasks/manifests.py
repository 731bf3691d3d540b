"""Manifests: the TSV files of fairseq's speech-to-unit recipes, read and checked row by row.

A split consists of ``{split}.tsv`` with the columns ``id src_audio src_n_frames tgt_audio tgt_n_frames``, where
``tgt_audio`` holds the target units separated by spaces, and one ``{split}.tsv`` per text (columns ``id tgt_text``) in
the folders that the multitask YAML names. All errors are found before the first update, and reported with file and
line.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from echostream.printing import one_printable_line
from echostream.tasks.columns import IdIndex, Ragged, RaggedBuilder, Strings

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".npy")
SPEECH_COLUMNS = ("id", "src_audio", "src_n_frames", "tgt_audio", "tgt_n_frames")
TEXT_COLUMNS = ("id", "tgt_text")
MAX_NUMBER = 2**31 - 1  # units and lengths are stored as int32
MAX_OFFSET = 2**63 - 1  # places in an archive, which may be larger than that
SAFE_DIGITS = 9  # numbers of so many digits are below MAX_NUMBER
BYTE_ORDER_MARK = "\ufeff".encode()  # spreadsheets begin UTF-8 files with it
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
        raise SystemExit(f"echostream: {one_printable_line(error)}") from None


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


class Manifest(Sequence[Utterance]):
    """The rows of a speech manifest as columns, of which an :class:`Utterance` is made when it is asked for.

    Beside its id, its file name and its units a row takes 52 bytes, so that a manifest of ten million rows fits into
    the memory of every process of a training.

    Attributes:
        ids: id of each row.
        n_frames: int32 ``(rows,)``, log-mel frames of 10 ms.
        lines: int32 ``(rows,)``, line in the TSV file.
        units: target units.
    """

    def __init__(
        self,
        root: Path,
        ids: Strings,
        files: Strings,
        archives: list[str],
        places: np.ndarray,
        archive_numbers: np.ndarray,
        n_frames: np.ndarray,
        units: Ragged,
        lines: np.ndarray,
    ) -> None:
        self.root, self.ids, self.n_frames, self.units, self.lines = root, ids, n_frames, units, lines
        self._files = files  # as the manifest names them; empty for a place in an archive
        self._archives = archives
        self._places = places  # int64 (rows, 2): offset and length in the archive
        self._archive_numbers = archive_numbers  # int32 (rows,); -1 for a file
        self._index = IdIndex(ids)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> Utterance:  # type: ignore[override]  # no slices
        row = range(len(self))[row]
        number = self._archive_numbers[row]
        if number < 0:
            audio = str(self.root / self._files[row])
        else:
            audio = ":".join([self._archives[number], *map(str, self._places[row])])
        units = self.units[row].astype(np.int32)
        return Utterance(self.ids[row], audio, int(self.n_frames[row]), units, int(self.lines[row]))

    def find(self, name: str) -> int | None:
        """Row of the id ``name``; None if there is none. Fastest in the order of the rows."""
        return self._index.find(name)

    @property
    def nbytes(self) -> int:
        """Bytes that the columns take."""
        columns = (self.ids, self._files, self._places, self._archive_numbers, self.n_frames, self.units, self.lines)
        return sum(column.nbytes for column in columns)

    @staticmethod
    def join(manifests: Sequence[Manifest]) -> Manifest:
        """The rows of all manifests, which have one root; a single manifest is not copied."""
        if len(manifests) == 1:
            return manifests[0]
        archives = [archive for manifest in manifests for archive in manifest._archives]
        first = np.cumsum([0, *(len(manifest._archives) for manifest in manifests)])
        numbers = [
            np.where(manifest._archive_numbers < 0, -1, manifest._archive_numbers + start).astype(np.int32)
            for manifest, start in zip(manifests, first, strict=False)
        ]
        return Manifest(
            manifests[0].root,
            Strings(name for manifest in manifests for name in manifest.ids),
            Strings(file for manifest in manifests for file in manifest._files),
            archives,
            np.concatenate([manifest._places for manifest in manifests]),
            np.concatenate(numbers),
            np.concatenate([manifest.n_frames for manifest in manifests]),
            Ragged.join([manifest.units for manifest in manifests]),
            np.concatenate([manifest.lines for manifest in manifests]),
        )


def _lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file, one at a time.

    A line ends with a line feed, or a carriage return and a line feed, and nowhere else: texts may hold the other
    characters that Python takes for line ends, such as U+2028.
    """
    position = 0
    with path.open("rb") as file:
        for raw in file:
            try:
                line = (raw.removeprefix(BYTE_ORDER_MARK) if position == 0 else raw).decode()
            except UnicodeDecodeError as error:
                place = position + error.start
                raise ManifestError(f"{path}: not UTF-8 text ({error.reason} at byte {place})") from None
            position += len(raw)
            yield line.removesuffix("\n").removesuffix("\r")


def read_rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield ``(line number, {column: value})`` of a TSV file with a header; only ``columns`` are returned.

    The file is read line by line. Ids that occur twice are found at its end, after the last row.

    Raises:
        ManifestError: the file is missing, empty or not UTF-8, a column is missing or occurs twice, an id occurs twice,
            or a row has another number of fields than the header.
    """
    hashes = array("q")
    for number, row in _all_rows(path, columns):
        hashes.append(hash(row["id"]))
        yield number, row
    if not hashes:
        raise ManifestError(f"{path}: no rows below the header")
    ordered = np.sort(np.frombuffer(hashes, np.int64))
    repeated = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    seen: dict[str, int] = {}
    for number, row in _all_rows(path, columns) if repeated else ():
        name = row["id"]
        if name in seen:
            raise ManifestError(f"{path}: line {number}: id {quoted(name)} was used before, in line {seen[name]}")
        if hash(name) in repeated:
            seen[name] = number


def _all_rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """:func:`read_rows` without the check of the ids."""
    if not path.is_file():
        raise ManifestError(f"{path}: no such manifest")
    lines = _lines(path)
    header = next(lines, "").split("\t")
    for column in columns:
        if header.count(column) > 1:
            raise ManifestError(f"{path}: line 1: column {column!r} is there {header.count(column)} times")
        if column not in header:
            raise ManifestError(
                f"{path}: line 1: column {column!r} is missing; the header is {quoted(', '.join(header))} "
                f"and needs {', '.join(columns)} separated by tabs"
            )
    where = {column: header.index(column) for column in columns}
    for number, text in enumerate(lines, start=2):
        if not text:
            continue
        fields = text.split("\t")
        if len(fields) != len(header):
            raise ManifestError(
                f"{path}: line {number}: {len(fields)} fields, but the header names {len(header)} columns"
            )
        yield number, {column: fields[index] for column, index in where.items()}


def _is_number(value: str, most: int = MAX_NUMBER) -> bool:
    """Whether ``value`` is a whole number from 0 to ``most``, in ASCII digits."""
    return value.isascii() and value.isdecimal() and len(value) <= 20 and int(value) <= most


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


def _units(path: Path, number: int, value: str, allow_empty: bool) -> Iterator[int]:
    pieces = value.split()
    if not pieces and allow_empty:
        return iter(())
    if not pieces:
        raise ManifestError(f"{path}: line {number}: tgt_audio is empty; it needs at least one unit")
    if not ("".join(pieces).isdecimal() and value.isascii() and max(map(len, pieces)) <= SAFE_DIGITS):
        for piece in pieces:
            if not _is_number(piece):
                digits = piece.isascii() and piece.isdecimal()
                reason = "too large for a unit" if digits else "it must be units (numbers separated by spaces)"
                raise ManifestError(f"{path}: line {number}: tgt_audio holds {quoted(piece)}; {reason}")
    return map(int, pieces)


class AudioFiles:
    """Checks that audio exists; the size of each archive is looked up only once."""

    def __init__(self, root: Path):
        self.root = root
        self.archives: list[str] = []
        self.numbers: dict[str, int] = {}  # position in ``archives``
        self.archive_bytes: list[int] = []

    def name(self, path: Path, number: int, value: str) -> str:
        """The audio ``value`` as a file name or ``archive.zip:offset:length``, with its folder.

        Raises:
            ManifestError: it does not exist, or is not a supported kind of audio.
        """
        archive, *place = self.resolve(path, number, value)
        return str(self.root / value) if archive < 0 else ":".join([self.archives[archive], *map(str, place)])

    def resolve(self, path: Path, number: int, value: str) -> tuple[int, int, int]:
        """Where the audio ``value`` is: number of its archive, offset and length; ``(-1, 0, 0)`` for a file.

        Raises:
            ManifestError: it does not exist, or is not a supported kind of audio.
        """
        if value.endswith(AUDIO_SUFFIXES):
            audio = self.root / value
            if not _exists(audio):
                raise ManifestError(f"{path}: line {number}: audio file {quoted(str(audio))} does not exist")
            return -1, 0, 0
        name, *numbers = value.rsplit(":", 2)
        if not name.endswith(".zip") or len(numbers) != 2 or not all(_is_number(n, MAX_OFFSET) for n in numbers):
            raise ManifestError(
                f"{path}: line {number}: src_audio {quoted(value)} is neither {', '.join(AUDIO_SUFFIXES)} "
                "nor archive.zip:offset:length"
            )
        if name not in self.numbers:
            archive = self.root / name
            if not _exists(archive):
                raise ManifestError(f"{path}: line {number}: archive {quoted(str(archive))} does not exist")
            self.numbers[name] = len(self.archives)
            self.archives.append(str(archive))
            self.archive_bytes.append(archive.stat().st_size)
        which = self.numbers[name]
        offset, length = map(int, numbers)
        if length == 0 or offset + length > self.archive_bytes[which]:
            raise ManifestError(
                f"{path}: line {number}: {quoted(f'{self.archives[which]}:{offset}:{length}')} reaches past the end of "
                f"the archive ({self.archive_bytes[which]} bytes)"
            )
        return which, offset, length


def read_utterances(path: Path, audio_root: Path, allow_empty: bool = False) -> Manifest:
    """Read and check a speech manifest, row by row.

    Args:
        path: the TSV file.
        audio_root: folder of relative ``src_audio`` paths.
        allow_empty: a row may have no units.

    Raises:
        ManifestError: names the file, the line and the value that is not valid.
    """
    audio = AudioFiles(audio_root)
    ids, files, units = Strings(), Strings(), RaggedBuilder()
    numbers, places, n_frames, lines = array("i"), array("q"), array("i"), array("i")
    for number, row in read_rows(path, SPEECH_COLUMNS):
        n_frames.append(_positive(path, number, "src_n_frames", row["src_n_frames"]))
        if not (allow_empty and row["tgt_n_frames"] == "0"):
            _positive(path, number, "tgt_n_frames", row["tgt_n_frames"])
        units.append(_units(path, number, row["tgt_audio"], allow_empty))
        archive, *place = audio.resolve(path, number, row["src_audio"])
        ids.append(row["id"])
        files.append(row["src_audio"] if archive < 0 else "")
        numbers.append(archive)
        places.extend(place)
        lines.append(number)
    frames, where, line_numbers = (np.frombuffer(column, np.int32) for column in (n_frames, numbers, lines))
    places_array = np.frombuffer(places, np.int64).reshape(-1, 2)
    return Manifest(audio_root, ids, files, audio.archives, places_array, where, frames, units.build(), line_numbers)


def check_units(path: Path, utterances: Manifest, num_units: int) -> None:
    """Check that all units are below ``num_units``.

    Raises:
        ManifestError: names the first row with a unit that is not.
    """
    if utterances.units.values.max(initial=0) < num_units:
        return
    row = utterances.units.row_of(int(np.argmax(utterances.units.values >= num_units)))
    raise ManifestError(
        f"{path}: line {utterances.lines[row]}: unit {utterances.units[row].max()} is out of range; there are "
        f"{num_units} units, 0 to {num_units - 1} (--num-units)"
    )


def read_texts(folder: Path, split: str, allow_empty: bool = False) -> Iterator[tuple[str, str]]:
    """Yield each id and its text from ``{folder}/{split}.tsv``.

    Raises:
        ManifestError: as :func:`read_rows`, or a text is empty and may not be.
    """
    path = folder / f"{split}.tsv"
    for number, row in read_rows(path, TEXT_COLUMNS):
        if not row["tgt_text"].strip() and not allow_empty:
            raise ManifestError(f"{path}: line {number}: the text of {quoted(row['id'])} is empty")
        yield row["id"], row["tgt_text"]


def matching_texts(
    path: Path, utterances: Manifest, folder: Path, split: str, entry: str, allow_empty: bool = False
) -> Iterator[tuple[int, str]]:
    """Yield the row of ``utterances`` and the text of each text that belongs to one, in the order of the texts.

    Raises:
        ManifestError: as :func:`read_texts`, or, after the last text, an utterance has none.
    """
    found = np.zeros(len(utterances), bool)
    for name, text in read_texts(folder, split, allow_empty):
        row = utterances.find(name)
        if row is not None:
            found[row] = True
            yield row, text
    if not found.all():
        row = int(np.argmin(found))
        raise ManifestError(
            f"{path}: line {utterances.lines[row]}: id {quoted(utterances.ids[row])} has no text in "
            f"{folder / split}.tsv (multitask entry {entry!r})"
        )


def check_same_texts(folder: Path, other: Path, split: str, allow_empty: bool = False) -> None:
    """Check that both folders have the same texts for ``split``, in any order.

    Raises:
        ManifestError: names the first id whose texts differ.
    """
    if folder.resolve() == other.resolve():
        return
    one, two = (np.sort(np.fromiter(map(hash, read_texts(f, split, allow_empty)), np.int64)) for f in (folder, other))
    differing = np.setxor1d(one, two, assume_unique=True)
    for row in (row for f in (folder, other) if len(differing) for row in read_texts(f, split, allow_empty)):
        at = np.searchsorted(differing, hash(row))
        if at < len(differing) and differing[at] == hash(row):
            raise ManifestError(
                f"{other / split}.tsv: the text of id {quoted(row[0])} is not that in {folder / split}.tsv; "
                "target_unigram and ctc_target_unigram are one text"
            )
