"""Work on many items: done once, in parallel, in shards, and gone on with after an interruption.

Each piece of work has a key and a digest of everything that it depends on; a `Ledger` remembers the digests of what is
finished, so that the same command again does only what is left.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from scripts.command_line import positive, require


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
    """Add the options of a tool that can do a part of its work (`share`), or only count it."""
    parser.add_argument("--dry-run", action="store_true", help="only say how much there is to do")
    parser.add_argument("--num-shards", type=positive, default=1, help="divide the work into this many parts")
    parser.add_argument("--shard", type=int, default=0, help="do this part: 0 to N - 1 (default: %(default)s)")
    parser.add_argument("--jobs", type=positive, default=1, help="processes, one thread each")


def share(items: Sequence[Any], args: argparse.Namespace) -> list[Any]:
    """Take every N-th item, beginning with the one whose number is the shard's.

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
    """Tell, and print, whether this is a dry run that cannot count yet because a table is missing."""
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
