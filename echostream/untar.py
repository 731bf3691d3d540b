"""Unpacking tar files that others have made, by the rules of tarfile's filter ``data`` (Python 3.11.4 and later)."""

from __future__ import annotations

import copy
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path


def unpack(archive: tarfile.TarFile, members: Iterable[tarfile.TarInfo], folder: Path) -> None:
    """Unpack members of an archive into a folder.

    Raises:
        tarfile.TarError: a member or a link leads outside the folder, or is a device.
    """
    for member in members:
        if hasattr(tarfile, "data_filter"):
            archive.extract(member, folder, filter="data")
        else:
            archive.extract(_harmless(member, folder), folder)


def _harmless(member: tarfile.TarInfo, folder: Path) -> tarfile.TarInfo:
    """A member as it may be unpacked: owned by whoever unpacks it, changed by nobody else."""
    member = copy.copy(member)
    member.name = member.name.lstrip("/")
    place = folder / member.name
    if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
        raise tarfile.ExtractError(f"{member.name!r} is neither a file nor a folder nor a link")
    if member.issym() and not _is_inside(place.parent / member.linkname, folder):
        raise tarfile.ExtractError(f"{member.name!r} is a link that leads outside")
    if not _is_inside(place, folder) or (member.islnk() and not _is_inside(folder / member.linkname, folder)):
        raise tarfile.ExtractError(f"{member.name!r} would come to lie outside")
    member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
    member.uid, member.gid, member.uname, member.gname = os.getuid(), os.getgid(), "", ""
    return member


def _is_inside(path: Path, folder: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
