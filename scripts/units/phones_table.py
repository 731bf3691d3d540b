"""Tables of forced alignments: `id`, `part`, `phones` (one phone every 20 ms, separated by spaces).

What the alignments of a corpus are used for is decided once, in the column `part`: `learn` rows may shape the units,
`report` rows only judge them. A table without that column serves both.
"""

from __future__ import annotations

import csv
from pathlib import Path

from scripts.files import write_text

LEARN, REPORT = "learn", "report"
REPORT_EVERY = 5


def write_phones(path: Path, phones: dict[str, list[str]]) -> None:
    """Write a table; every fifth row is kept for the report."""
    lines = ["id\tpart\tphones"]
    for index, (name, labels) in enumerate(phones.items()):
        part = REPORT if index % REPORT_EVERY == REPORT_EVERY - 1 else LEARN
        lines.append(f"{name}\t{part}\t{' '.join(labels)}")
    write_text(path, "\n".join(lines) + "\n")


def read_phones(path: Path, part: str) -> dict[str, list[str]]:
    """Phones of each utterance that is kept for `part`.

    Raises:
        SystemExit: no such table, or a column is missing from it.
    """
    if not path.is_file():
        raise SystemExit(f"error: no table of phones {path}; run the earlier stages first")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    for number, row in enumerate(rows, start=2):
        if not row.get("id") or row.get("phones") is None:
            raise SystemExit(f"error: {path}, line {number}: expected the columns id and phones")
    return {row["id"]: row["phones"].split() for row in rows if row.get("part", part) == part}
