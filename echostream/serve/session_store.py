"""Saved sessions in a folder, which workers of one machine share: each can go on with what another one has begun.

A session belongs to the worker that wrote its file last. Whoever finds another worker's mark in it has lost the
session, and lets go of it. Files are named by a hash, so that a listing of the folder opens no session.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch

from echostream.checkpoints.state_files import MAX_BYTES, pack, unpack

SUFFIX = ".session"
OWNER_BYTES = 16


class LostSessionError(Exception):
    """Another worker has taken the session over."""


class SessionStore:
    """A folder of saved sessions.

    Args:
        folder: made if it isn't there; nobody else may read it.
        max_age_s: how long a session stays after it was last saved or touched.
        fingerprint: of the translator, see :func:`model_fingerprint`: a session goes on with the same model only.
        device: of the translator.

    Raises:
        ValueError: the folder can't be used.
    """

    def __init__(self, folder: Path, max_age_s: float, fingerprint: str, device: str | torch.device = "cpu") -> None:
        self.folder, self.max_age_s = folder, max_age_s
        self._facts, self._device = {"model": fingerprint}, device
        self._owner = uuid4().bytes
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._locked():
                pass
        except OSError as error:
            raise ValueError(
                f"cannot keep sessions in {folder}: {error.strerror}: choose another --state-dir"
            ) from error

    def save(self, token: str, content: dict[str, Any], is_first: bool = False) -> None:
        """Write a session; its file is always a whole one.

        Args:
            token: resume token of the session.
            content: the session.
            is_first: it is new: there need be no file with this worker's mark.

        Raises:
            LostSessionError: another worker has claimed it, or its time is over.
            OSError: it can't be written.
            TypeError: it holds what no file can hold.
        """
        data = pack(content, self._facts)
        path = self._path(token)
        temporary = path.with_name(f".{path.name}.{self._owner.hex()}.tmp")
        try:
            # No fsync: a file survives the process that wrote it, and a session doesn't outlive its machine's minute.
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(self._owner + data)
            with self._locked():
                if not is_first and not self._is_ours(path):
                    raise LostSessionError
                temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def claim(self, token: str) -> dict[str, Any] | None:
        """Take a session over, from whichever worker has it; None: there is no such session (any more).

        Raises:
            StateError: it is damaged, or of another model.
            OSError: it can't be read.
        """
        path = self._path(token)
        with self._locked():
            try:
                if time.time() - path.stat().st_mtime > self.max_age_s or path.stat().st_size > MAX_BYTES:
                    return None
                data = path.read_bytes()[OWNER_BYTES:]
                with path.open("r+b") as file:
                    file.write(self._owner)
            except FileNotFoundError:
                return None
        content, _ = unpack(data, self._facts, self._device)
        return content

    def touch(self, token: str) -> bool:
        """Say that a session is still in use; False: it is another worker's by now."""
        path = self._path(token)
        with self._locked():
            if not self._is_ours(path):
                return False
            os.utime(path)
        return True

    def delete(self, token: str) -> None:
        """Forget a session, unless it is another worker's."""
        path = self._path(token)
        with self._locked():
            if self._is_ours(path):
                path.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Delete sessions whose time is over, whoever left them."""
        for path in [*self.folder.glob(f"*{SUFFIX}"), *self.folder.glob(".*.tmp")]:
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > self.max_age_s:
                    path.unlink()

    def _path(self, token: str) -> Path:
        return self.folder / (hashlib.sha256(token.encode()).hexdigest()[:32] + SUFFIX)

    def _is_ours(self, path: Path) -> bool:
        try:
            with path.open("rb") as file:
                return file.read(OWNER_BYTES) == self._owner
        except FileNotFoundError:
            return False

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """While one worker looks and writes, the others wait; the lock goes with a worker that is killed."""
        with os.fdopen(os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600), "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
