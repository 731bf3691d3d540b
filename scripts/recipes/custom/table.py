"""The table that the check leaves: every row is good, but texts and target recordings may be empty."""

from __future__ import annotations

import csv
from pathlib import Path


def read_checked(path: Path) -> list[dict[str, str]]:
    """Rows of checked.tsv.

    Raises:
        SystemExit: no such file.
    """
    if not path.is_file():
        raise SystemExit(f"error: no table {path}; run stage 1 first")
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
