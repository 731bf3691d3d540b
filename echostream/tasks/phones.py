"""Time-aligned phones of the source: targets of the auxiliary phone loss.

The table has the columns ``id`` and ``phones``: one phone for each 20 ms of the recording, separated by spaces. It is
written by a forced aligner or, for synthetic speech, by the synthesiser, which knows the duration of each phone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from echostream.constants import FRAME_MS
from echostream.tasks.columns import IdIndex, Ragged, RaggedBuilder, Strings
from echostream.tasks.manifests import ManifestError, quoted, read_rows

PHONE_MS = 20


class SourcePhones:
    """Phone classes, one a frame, of the utterances that have some.

    Args:
        ids: id of each utterance.
        classes: phone classes of each.
    """

    def __init__(self, ids: Strings, classes: Ragged) -> None:
        self._index, self._classes = IdIndex(ids), classes

    def of(self, name: str) -> np.ndarray:
        """Phone classes of the utterance ``name``, int64 ``(T',)``; empty if there are none."""
        row = self._index.find(name)
        return np.empty(0, np.int64) if row is None else self._classes[row].astype(np.int64)


def read_source_phones(path: Path, frame_ms: int = FRAME_MS) -> tuple[list[str], SourcePhones]:
    """Read the table of phones.

    A frame of several phones has the last of them.

    Returns:
        The sorted phone inventory, and for each utterance id the phone classes (indices in the inventory).

    Raises:
        ManifestError: the table or a column is missing, or a row has less than a frame of phones.
    """
    step = frame_ms // PHONE_MS
    numbers: dict[str, int] = {}  # in the order in which the phones occur
    ids, rows = Strings(), RaggedBuilder()
    for number, row in read_rows(path, ("id", "phones")):
        phones = row["phones"].split()[step - 1 :: step]
        if not phones:
            raise ManifestError(f"{path}: line {number}: {quoted(row['id'])} has not {frame_ms} ms of phones")
        ids.append(row["id"])
        rows.append(numbers.setdefault(phone, len(numbers)) for phone in phones)
    inventory = sorted(numbers)
    table = rows.build()
    ranks = np.empty(len(inventory), table.values.dtype)
    ranks[[numbers[phone] for phone in inventory]] = np.arange(len(inventory))
    return inventory, SourcePhones(ids, Ragged(ranks[table.values], table.offsets))
