"""``echostream models``: which models there are, and getting more."""

from __future__ import annotations

import argparse
import hashlib
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

from tqdm import tqdm

from echostream.checkpoints.errors import CheckpointError
from echostream.checkpoints.model_store import SETTINGS_NAME, find_models, resolve_model, store_folder
from echostream.cli.options import UsageError, UserError
from echostream.printing import printable
from echostream.untar import unpack

MEGABYTE = 1_000_000
MAX_ARCHIVE_BYTES = 4_000 * MEGABYTE
MAX_FILES = 1_000
BLOCK_BYTES = 2**20
TIMEOUT_S = 60
SCHEMES = ("https:", "http:", "file:")


def run(args: argparse.Namespace) -> int:
    """List, find or fetch models; returns the exit status.

    Raises:
        UserError: no such model, or one that can't be fetched.
    """
    try:
        if args.action == "list":
            for model in find_models():
                size = f"{model.size_bytes / MEGABYTE:7.1f} MB"
                print(printable(f"{model.name:20} {model.languages:12} {size}  {model.path}"))
        elif args.action == "path":
            path = resolve_model(args.name)
            if not path.exists():
                raise UserError(f"no model at {path}")
            print(printable(str(path)))
        else:
            print(fetch(args.url, args.sha256, args.name))
    except CheckpointError as error:
        raise UserError(str(error)) from error
    return 0


def fetch(url: str, sha256: str, name: str | None = None) -> Path:
    """Fetch the archive of a model folder into the store.

    The folder appears under its name when it is whole, and nothing is left behind if it isn't.

    Args:
        url: https, http or file address of a ``.tar``, ``.tar.gz`` or ``.zip``.
        sha256: digest of the archive, hex.
        name: to call the model by; None: that of the folder in the archive.

    Returns:
        the model's folder.

    Raises:
        UserError: an address or archive that can't be used, another digest, or a name that is taken.
    """
    if not url.startswith(SCHEMES):
        raise UsageError(f"the address must begin with https:, http: or file:, got {url}")
    if len(sha256) != 64 or not all(letter in "0123456789abcdef" for letter in sha256.lower()):
        raise UsageError(f"--sha256 takes 64 hexadecimal digits, got '{sha256}'")
    if name is not None and (Path(name).name != name or name.startswith(".")):
        raise UsageError(f"--name must be the name of a folder, got '{name}'")
    store = store_folder()
    try:
        store.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=store) as work:
            archive = Path(work) / "archive"
            _download(url, archive, sha256.lower())
            folder = _model_in(_unpack(archive, Path(work) / "files", url), url)
            # An archive without a folder of its own is called by its file's name.
            own = folder.name if folder.parent != Path(work) else Path(url).name.split(".")[0]
            target = store / (name or own)
            if target.exists():
                raise UserError(f"there is a model in {target} already: choose another --name, or remove it")
            folder.rename(target)
    except OSError as error:
        raise UserError(f"cannot write {error.filename or store}: {error.strerror or error}") from error
    return target


def _download(url: str, archive: Path, sha256: str) -> None:
    digest = hashlib.sha256()
    received = 0
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer, archive.open("wb") as file:  # noqa: S310  # checked
            total = int(answer.headers.get("Content-Length") or 0) or None
            with tqdm(total=total, unit="B", unit_scale=True, desc=Path(url).name, disable=None) as bar:
                while block := answer.read(BLOCK_BYTES):
                    received += len(block)
                    if received > MAX_ARCHIVE_BYTES:
                        raise UserError(f"{url} is larger than {MAX_ARCHIVE_BYTES / MEGABYTE:.0f} MB: nothing was kept")
                    digest.update(block)
                    file.write(block)
                    bar.update(len(block))
    except (urllib.error.URLError, TimeoutError, ConnectionError, ValueError) as error:
        raise UserError(f"cannot fetch {url}: {getattr(error, 'reason', error)}") from error
    if digest.hexdigest() != sha256:
        raise UserError(f"{url} is not what was asked for: its SHA-256 is {digest.hexdigest()}: nothing was kept")


def _unpack(archive: Path, folder: Path, url: str) -> Path:
    """Files of an archive, none of them outside ``folder`` and none of them a link."""
    folder.mkdir()
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                _check_sizes([(entry.filename, entry.file_size) for entry in packed.infolist()], url)
                packed.extractall(folder)  # noqa: S202  # which leaves out drives, roots and ".."
        else:
            with tarfile.open(archive) as packed:
                entries = packed.getmembers()
                _check_sizes([(entry.name, entry.size) for entry in entries], url)
                if unwanted := [entry.name for entry in entries if not (entry.isfile() or entry.isdir())]:
                    raise UserError(f"{url} holds {unwanted[0]!r}, which is neither a file nor a folder")
                unpack(packed, entries, folder)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{url} is no archive that can be unpacked: {' '.join(str(error).split())}") from error
    return folder


def _check_sizes(entries: list[tuple[str, int]], url: str) -> None:
    if len(entries) > MAX_FILES or sum(size for _, size in entries) > MAX_ARCHIVE_BYTES:
        raise UserError(f"{url} would unpack to more than {MAX_FILES} files or {MAX_ARCHIVE_BYTES / MEGABYTE:.0f} MB")


def _model_in(folder: Path, url: str) -> Path:
    """The folder with the model, which may be the only one in the archive or the archive itself."""
    for path in (folder, *sorted(folder.iterdir())):
        if (path / SETTINGS_NAME).is_file():
            if path == folder:
                return Path(shutil.move(folder, folder.parent / "model"))
            return path
    raise UserError(f"{url} holds no model: there is no {SETTINGS_NAME} in it")
