"""Time-aligned phones of the source: targets of the auxiliary phone loss.

The table has the columns ``id`` and ``phones``: one phone for each 20 ms of the recording, separated by spaces. It is
written by a forced aligner or, for synthetic speech, by the synthesiser, which knows the duration of each phone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from echostream.tasks.manifests import ManifestError, quoted, read_rows

PHONES_PER_FRAME = 2  # 20 ms phones per 40 ms frame


def read_source_phones(path: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """Read the table of phones.

    A 40 ms frame has the phone of its second half.

    Returns:
        The sorted phone inventory, and for each utterance id the phone classes (indices in the inventory) at 25 Hz,
        int64.

    Raises:
        ManifestError: the table or a column is missing, or a row has less than 40 ms of phones.
    """
    rows = {}
    for number, row in read_rows(path, ("id", "phones")):
        rows[row["id"]] = row["phones"].split()[1::PHONES_PER_FRAME]
        if not rows[row["id"]]:
            raise ManifestError(f"{path}: line {number}: {quoted(row['id'])} has not 40 ms of phones")
    inventory = sorted({phone for phones in rows.values() for phone in phones})
    classes = {phone: index for index, phone in enumerate(inventory)}
    return inventory, {name: np.array([classes[p] for p in phones], np.int64) for name, phones in rows.items()}
