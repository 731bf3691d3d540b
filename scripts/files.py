"""Files of the tools: written whole or not at all, told apart by their contents, and refused in one line.

A file appears under its final name only when it is complete, so that a tool may be interrupted at any time. What a
killed process has left half written goes with the next file that is written to the same folder.
"""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

# Marks a temporary file with who writes it: this machine and a process.
HOST = re.sub(r"\W", "_", platform.node())[:20]
TEMPORARY = re.compile(rf"\..*\.{HOST}-(\d+)(\.[^.]*)?")
# The clock of files goes in steps, and lies beside that of processes.
CLOCK_SLACK_S = 2.0
# Errors that say that nothing can be written to a place.
NO_PLACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}


def _say_what_cannot_be_written(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """End a tool in one line where the disk is full or a folder can't be written to, whichever stage finds it."""
    if isinstance(error, OSError) and error.errno in NO_PLACE:
        place = error.filename2 or error.filename or "the output"
        print(
            f"error: cannot write {place}: {error.strerror}; make room or get permission, and the same command goes on",
            file=sys.stderr,
        )
    elif kind.__name__ == "LibsndfileError" and "System error" in str(error):  # it doesn't say which
        print(f"error: cannot write a recording: {error} Is the disk full? The same command goes on", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _say_what_cannot_be_written


def digest(*parts: Any) -> str:
    """SHA-256 (hex) of strings, numbers and the *contents* of what is given as `Path`.

    A folder stands for the names and contents of its files, hidden ones left out.
    """
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path) and part.is_dir():
            inside = sorted(path for path in part.rglob("*") if path.is_file() and not path.name.startswith("."))
            data = "".join(f"{path.relative_to(part)} {digest(path)}\n" for path in inside).encode()
        else:
            data = part.read_bytes() if isinstance(part, Path) else repr(part).encode()
        total.update(hashlib.sha256(data).digest())
    return total.hexdigest()


def _is_written_by(path: Path, pid: int) -> bool:
    """Whether the process that began a temporary file is still at it.

    Neither a process that was killed and not waited for (a zombie has its number until then, in some containers for
    good) nor a later one that was given the number.
    """
    try:
        os.kill(pid, 0)
        age_s = time.time() - path.stat().st_mtime
        # After the name, which may hold anything: the state, and the start in clock ticks after that of the machine.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except PermissionError:  # somebody else's, and alive
        return True
    except ProcessLookupError:
        return False
    except FileNotFoundError:  # finished in the meantime, or a system without /proc
        return path.exists()
    started_s = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return fields[0] not in "ZX" and time.clock_gettime(time.CLOCK_BOOTTIME) - started_s > age_s - CLOCK_SLACK_S


@cache
def _sweep(folder: Path) -> None:
    """Remove what killed processes of this machine have left half written in a folder; once a process."""
    for path in folder.glob(f".*.{HOST}-*"):
        writer = TEMPORARY.fullmatch(path.name)
        if writer and not _is_written_by(path, int(writer[1])):
            path.unlink(missing_ok=True)


def borrow(source: Path, folder: Path, name: str) -> None:
    """Copy `source / name` to `folder / name`.

    Raises:
        SystemExit: it is not there.
    """
    if not (source / name).is_file():
        raise SystemExit(f"error: no {source / name}; give the folder of a data set or of a model")
    with atomic_path(folder / name) as temporary:
        shutil.copyfile(source / name, temporary)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary name in the same folder; rename it to `path` if the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent)
    # The suffix stays last: soundfile, numpy and zipfile choose the format by it.
    temporary = path.with_name(f".{path.stem}.{HOST}-{os.getpid()}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder and remove it in the end; what a killed process has left in it goes before."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text so that a reader sees the old file or the whole new one."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_tsv(path: Path, rows: Sequence[Mapping[str, str]], columns: Sequence[str] = ()) -> None:
    """Write a tab-separated table with a header line.

    Args:
        path: of the table.
        rows: the cells by column; they hold no tabs and no line breaks.
        columns: the names to write, in order; without them, all of the first row.
    """
    names = columns or list(rows[0])
    lines = ["\t".join(names), *("\t".join(row[name] for name in names) for row in rows)]
    write_text(path, "\n".join(lines) + "\n")
