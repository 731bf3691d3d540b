"""What every data recipe needs: records of finished work, atomic files, parallel maps, clear stops.

A recipe may be interrupted at any time and run again. Each piece of work therefore has a key and a digest of
everything that it depends on; a `Ledger` remembers the digests of what is finished, and a file appears under its
final name only when it is complete.
"""

from __future__ import annotations

import hashlib
import importlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType
from typing import Any

INSTALL_HINT = "pip install -e '.[data]'"


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


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary name in the same folder; rename it to `path` if the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: soundfile, numpy and zipfile choose the format by it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text so that a reader sees the old file or the whole new one."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


class Ledger:
    """Append-only record `key<TAB>digest` of finished work; the last line of a key counts.

    A line cut short by a crash has no valid digest, so its work is simply done again.
    """

    def __init__(self, path: Path):
        self.path = path
        self._digests: dict[str, str] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                key, _, value = line.partition("\t")
                self._digests[key] = value

    def is_done(self, key: str, work_digest: str, outputs: Iterable[Path] = ()) -> bool:
        """True if this very work was finished and all of its outputs still exist."""
        return self._digests.get(key) == work_digest and all(path.exists() for path in outputs)

    def mark(self, key: str, work_digest: str) -> None:
        """Record that the work is finished; call it after the outputs have their final names."""
        self._digests[key] = work_digest
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{key}\t{work_digest}\n")


def parallel_map(
    work: Callable[[Any], Any],
    items: Sequence[Any],
    jobs: int,
    description: str,
    initializer: Callable[..., None] | None = None,
    initargs: tuple = (),
) -> Iterator[tuple[Any, Any]]:
    """Yield `(item, work(item))` as results arrive, with a progress bar that shows the time left.

    Processes are forked, so `initializer` is the place to load what cannot cross a fork (inference sessions).
    The first failure cancels what has not started.

    Raises:
        SystemExit: `work` raised ValueError, or a process died.
    """
    tqdm = require("tqdm").tqdm
    if not items:
        return
    with ProcessPoolExecutor(
        max_workers=min(jobs, len(items)),
        mp_context=get_context("fork"),
        initializer=initializer,
        initargs=initargs,
    ) as pool:
        futures = {pool.submit(work, item): item for item in items}
        try:
            progress = tqdm(as_completed(futures), total=len(items), desc=description, unit="utt")
            for future in progress:
                yield futures[future], future.result()
        except ValueError as error:
            raise SystemExit(f"error: {description}: {error}") from error
        except BrokenProcessPool as error:
            remedy = "see the message above, or try fewer --jobs if memory ran out"
            raise SystemExit(f"error: {description}: a process died; {remedy}") from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
