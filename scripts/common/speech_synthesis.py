"""Turn a table of sentences into a folder of wav files, one process per voice, resuming where it stopped."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipe import Ledger, add_share_arguments, digest, parallel_map, require, share


@dataclass(frozen=True)
class Utterance:
    """A sentence and the file that its speech belongs in."""

    id: str
    text: str
    path: Path


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
    parser.add_argument("--dry-run", action="store_true", help="only say how much there is to do")
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
    name = args.out.name
    if args.dry_run and not all(table.is_file() for table in args.texts):
        print(f"{name}: would be spoken, once there are texts", flush=True)
        return
    utterances = [
        Utterance(row["id"], row[args.column], args.out / f"{row['id']}.wav")
        for table in args.texts
        for row in read_table(table, args.column)
    ]
    utterances = share(utterances, args)
    voice = digest(*voice_key)
    ledger = Ledger(args.out / ".done.tsv", (args.shard, args.num_shards))
    digests = {utterance.id: digest(voice, manner(utterance), utterance.text) for utterance in utterances}
    missing = [u for u in utterances if not ledger.is_done(u.id, digests[u.id], [u.path])]
    if args.dry_run:
        print(f"{name}: {len(missing)} to be spoken, {len(utterances) - len(missing)} already done", flush=True)
        return
    for package in packages if missing else ():
        require(package)
    for utterance, _ in parallel_map(speak, missing, args.jobs, name, initializer, initargs):
        ledger.mark(utterance.id, digests[utterance.id])
    print(f"{name}: {len(missing)} spoken, {len(utterances) - len(missing)} already done", flush=True)
