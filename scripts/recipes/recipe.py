"""What every data recipe needs: records of finished work, atomic files, parallel maps, clear stops.

A recipe may be interrupted at any time and run again. Each piece of work therefore has a key and a digest of
everything that it depends on; a `Ledger` remembers the digests of what is finished, and a file appears under its
final name only when it is complete.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import importlib
import os
import platform
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

INSTALL_HINT = "pip install -e '.[data]'"
# Marks a temporary file with who writes it: this machine and a process.
HOST = re.sub(r"\W", "_", platform.node())[:20]
TEMPORARY = re.compile(rf"\..*\.{HOST}-(\d+)(\.[^.]*)?")
# The clock of files goes in steps, and lies beside that of processes.
CLOCK_SLACK_S = 2.0


# What a place can be that nothing is written to.
NO_PLACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}


def _say_what_cannot_be_written(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A full disk and a folder without permission end a tool in one line, whichever stage finds them."""
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


def require(module: str, hint: str = INSTALL_HINT) -> ModuleType:
    """Import an optional package.

    Raises:
        SystemExit: the package is missing; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise SystemExit(f"error: cannot import {module} ({error}); install it with: {hint}") from error


def positive(text: str) -> int:
    """Type of a command-line option that counts something."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


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


class Ledger:
    """Append-only record `key<TAB>digest<TAB>time` of finished work; the latest line of a key counts.

    A line cut short by a crash has no valid digest, so its work is simply done again. Shards that run at the same time,
    perhaps on several machines, write files of their own beside `path` and read each other's.

    Args:
        path: e.g. `.done.tsv`; shard 2 of 8 writes `.done.2of8.tsv`.
        shard: number of this shard and of all shards.
    """

    def __init__(self, path: Path, shard: tuple[int, int] = (0, 1)):
        index, count = shard
        self.path = path if count == 1 else path.with_name(f"{path.stem}.{index}of{count}{path.suffix}")
        self._digests: dict[str, str] = {}
        times: dict[str, int] = {}
        siblings = path.parent.glob(f"{path.stem}.*of*{path.suffix}")
        for file in (path, *sorted(siblings)):
            if not file.exists():
                continue
            for line in filter(None, file.read_text(encoding="utf-8", errors="replace").split("\n")):
                key, _, rest = line.partition("\t")
                value, _, time_ns = rest.partition("\t")
                written = int(time_ns) if time_ns.isdecimal() else 0
                if written >= times.get(key, 0):
                    self._digests[key], times[key] = value, written

    def is_done(self, key: str, work_digest: str, outputs: Iterable[Path] = ()) -> bool:
        """True if this very work was finished and all of its outputs still exist."""
        return self._digests.get(key) == work_digest and all(path.exists() for path in outputs)

    def known(self, key: str) -> bool:
        """Whether anything was ever recorded under this key."""
        return key in self._digests

    def mark(self, key: str, work_digest: str) -> None:
        """Record that the work is finished; call it after the outputs have their final names."""
        self._digests[key] = work_digest
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            # A line that a crash cut short must not swallow this one.
            file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
            start = "" if file.read() in (b"", b"\n") else "\n"
            file.write(f"{start}{key}\t{work_digest}\t{time.time_ns()}\n".encode())


def add_share_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of a tool that can do a part of its work (`share`), or only count it."""
    parser.add_argument("--dry-run", action="store_true", help="only say how much there is to do")
    parser.add_argument("--num-shards", type=positive, default=1, help="divide the work into this many parts")
    parser.add_argument("--shard", type=int, default=0, help="do this part: 0 to N - 1 (default: %(default)s)")
    parser.add_argument("--jobs", type=positive, default=1, help="processes, one thread each")


def share(items: Sequence[Any], args: argparse.Namespace) -> list[Any]:
    """Every N-th item, beginning with the shard's.

    Raises:
        SystemExit: there is no such shard.
    """
    if not 0 <= args.shard < args.num_shards:
        raise SystemExit(f"error: --shard is 0 to {args.num_shards - 1}, not {args.shard}")
    return list(items[args.shard :: args.num_shards])


def _interrupted(*_: Any) -> None:
    # SystemExit, unlike KeyboardInterrupt, ends quietly wherever it comes up.
    print("interrupted: finishing what has begun", file=sys.stderr)
    raise SystemExit(130)


def parallel_map(
    work: Callable[[Any], Any],
    items: Sequence[Any],
    jobs: int,
    description: str,
    initializer: Callable[..., None] | None = None,
    initargs: tuple = (),
) -> Iterator[tuple[Any, Any]]:
    """Yield `(item, work(item))` as results arrive, with a progress bar that shows the time left.

    Processes start afresh: one forked from a process with threads (inference sessions, OpenMP) may wait for ever for a
    lock that none of its own threads holds. `work` and `initializer` are functions of a module; what they keep in it
    they make themselves.
    The first failure, or Ctrl-C, cancels what has not started.

    Raises:
        SystemExit: `work` raised ValueError, a process died, or the user interrupted.
    """
    tqdm = require("tqdm").tqdm
    if not items:
        return
    # Ctrl-C reaches the whole group. The processes ignore it, for which they must inherit that, and the parent decides.
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with ProcessPoolExecutor(
            max_workers=min(jobs, len(items)),
            mp_context=get_context("spawn"),
            initializer=initializer,
            initargs=initargs,
        ) as pool:
            futures = {pool.submit(work, item): item for item in items}
            progress = tqdm(as_completed(futures), total=len(items), desc=description, unit="utt")
            signal.signal(signal.SIGINT, _interrupted)
            try:
                for future in progress:
                    yield futures[future], future.result()
            finally:
                pool.shutdown(cancel_futures=True)
    except ValueError as error:
        raise SystemExit(f"error: {description}: {error}") from error
    except BrokenProcessPool as error:
        remedy = "see the message above, or try fewer --jobs if memory ran out"
        raise SystemExit(f"error: {description}: a process died; {remedy}") from error
    except OSError as error:
        place = f" {error.filename}" if error.filename else ""
        reason = f"{error.strerror or error}; put it right, and the same command does what is left"
        raise SystemExit(f"error: {description}: cannot use{place}: {reason}") from error
    except RuntimeError as error:
        if type(error).__module__ != "soundfile":
            raise
        raise SystemExit(
            f"error: {description}: {error} (is the disk full?); put it right, and the same command does what is left"
        ) from error
    finally:
        signal.signal(signal.SIGINT, previous)


@dataclass(frozen=True)
class Work:
    """A file to be made, and the recording that it is made from, if it is made from one."""

    id: str
    out: Path
    recording: Path | None = None


def is_too_early(args: argparse.Namespace, name: str, done: str, *tables: Path) -> bool:
    """Whether this is a dry run that cannot count yet, because a table is not there; says so."""
    missing = [table for table in tables if not table.is_file()] if args.dry_run else []
    if missing:
        print(f"{name}: would be {done}, once there is {missing[0]}", flush=True)
    return bool(missing)


def make_files(
    args: argparse.Namespace,
    works: Sequence[Any],
    digest_of: Callable[[Any], str],
    make: Callable[[Any], None],
    done: str,
    name: str = "",
    prepare: Callable[[], Any] | None = None,
    initializer: Callable[..., None] | None = None,
    initargs: tuple = (),
) -> None:
    """Make the files in a folder that are missing, or that were made from something else, and say how many.

    Args:
        args: has `out`, the folder, where the records are kept too, and what `add_share_arguments` adds.
        works: of kind `Work`; this shard's, with ids that differ.
        digest_of: of all that a work's file depends on.
        make: makes the file of one work, in a process of its own.
        done: what is said of a finished file, e.g. "computed".
        name: what the files are called (default: the name of the folder).
        prepare: called once before the processes start, if there is anything to do.
        initializer, initargs: see `parallel_map`.

    Raises:
        SystemExit: a recording is missing, or a file could not be made.
    """
    name = name or args.out.name
    absent = {work.id: work.recording for work in works if work.recording and not work.recording.is_file()}
    if absent and not args.dry_run:
        raise SystemExit(
            f"error: no recording {next(iter(absent.values()))} ({len(absent)} of {len(works)} are missing); "
            "run the earlier stages first, all of their shards"
        )
    ledger = Ledger(args.out / ".done.tsv", (args.shard, args.num_shards))
    digests = {work.id: digest_of(work) for work in works if work.id not in absent}
    missing = [w for w in works if w.id in absent or not ledger.is_done(w.id, digests[w.id], [w.out])]
    finished = len(works) - len(missing)
    if args.dry_run:
        print(f"{name}: {len(missing)} to be {done}, {finished} already done", flush=True)
        return
    if missing and prepare:
        prepare()
    for work, _ in parallel_map(make, missing, args.jobs, name, initializer, initargs):
        ledger.mark(work.id, digests[work.id])
    print(f"{name}: {len(missing)} {done}, {finished} already done", flush=True)
