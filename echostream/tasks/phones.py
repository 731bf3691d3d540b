"""Which phone is spoken when in the source: targets of the auxiliary phone loss.

A table has the columns ``id`` and ``phones``: one phone for each 20 ms of the recording, separated by spaces. A forced
aligner writes it, or the voice that spoke the text, which knows how long each of its sounds took.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from echostream.tasks.manifests import ManifestError, quoted, read_rows

PHONES_PER_FRAME = 2  # 20 ms in 40 ms


def read_source_phones(path: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """The phones that there are, sorted, and of each utterance the class (int64, place in that list) at 25 Hz.

    A frame belongs to the phone that begins in its middle.

    Raises:
        ManifestError: no such table, a column is missing from it, or a row has no phones.
    """
    rows = {}
    for number, row in read_rows(path, ("id", "phones")):
        rows[row["id"]] = row["phones"].split()[1::PHONES_PER_FRAME]
        if not rows[row["id"]]:
            raise ManifestError(f"{path}: line {number}: {quoted(row['id'])} has not 40 ms of phones")
    inventory = sorted({phone for phones in rows.values() for phone in phones})
    classes = {phone: index for index, phone in enumerate(inventory)}
    return inventory, {name: np.array([classes[p] for p in phones], np.int64) for name, phones in rows.items()}
