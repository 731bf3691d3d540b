"""A folder that one process at a time may write checkpoints to."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path
from typing import IO

LOCK_NAME = ".lock"
_LOCKED: dict[Path, IO[str]] = {}  # of this process, kept open


class FolderInUseError(ValueError):
    """Another process has the folder; the message names it and the remedy."""


def lock_folder(folder: Path) -> None:
    """Keep other processes from a folder until this one ends.

    The lock is a process's, so that it goes with it however it ends, and data loaders don't inherit it. Where the file
    system has no locks there is none.

    Raises:
        FolderInUseError: another process has it.
        OSError: nothing can be written there.
    """
    place = folder.resolve()
    if place in _LOCKED:
        return
    file = (place / LOCK_NAME).open("a")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise FolderInUseError(f"{folder}: wait for its end, or choose another") from error
        return
    _LOCKED[place] = file
