"""Turn a table of sentences into a folder of wav files, one process per voice, resuming where it stopped."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.command_line import require
from scripts.files import digest
from scripts.work import Work, add_share_arguments, is_too_early, make_files, share


@dataclass(frozen=True)
class Utterance(Work):
    """A sentence and the file that its speech belongs in."""

    text: str = ""


def read_table(path: Path, *columns: str) -> list[dict[str, str]]:
    """Rows of a tab-separated file with a header line.

    Raises:
        SystemExit: no such file, a column that is missing from it, or a row with too few fields.
    """
    if not path.is_file():
        raise SystemExit(f"error: no table {path}; run the earlier stages first")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    for number, row in enumerate(rows, start=2):
        for column in ("id", *columns):
            if not row.get(column):
                raise SystemExit(f"error: {path}, line {number}: nothing in column {column!r}")
    return rows


def add_arguments(parser: argparse.ArgumentParser, column: str) -> None:
    """Options that every voice has."""
    parser.add_argument("--texts", type=Path, nargs="+", required=True, help="tab-separated tables with a column id")
    parser.add_argument("--column", default=column, help="column of the text to read (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="folder for <id>.wav")
    add_share_arguments(parser)


def synthesise_all(
    args: argparse.Namespace,
    voice_key: tuple[Any, ...],
    speak: Callable[[Utterance], None],
    initializer: Callable[..., None],
    initargs: tuple = (),
    packages: tuple[str, ...] = (),
    manner: Callable[[Utterance], Any] = lambda utterance: None,
) -> None:
    """Speak every sentence whose wav is missing, or was made from another text or voice.

    `packages` are imported first, so that a missing one is reported once and in one line.
    `voice_key` names all that the sound depends on besides the text (a `Path` stands for the file's contents), `manner`
    what only that utterance's sound depends on.
    """
    if is_too_early(args, args.out.name, "spoken", *args.texts):
        return
    utterances = [
        Utterance(row["id"], args.out / f"{row['id']}.wav", text=row[args.column])
        for table in args.texts
        for row in read_table(table, args.column)
    ]
    voice = digest(*voice_key)

    def prepare() -> None:
        for package in packages:
            require(package)

    make_files(
        args,
        share(utterances, args),
        lambda utterance: digest(voice, manner(utterance), utterance.text),
        speak,
        "spoken",
        prepare=prepare,
        initializer=initializer,
        initargs=initargs,
    )
