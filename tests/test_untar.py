"""Archives are unpacked into their folder and nowhere else, with Pythons whose tarfile has filters and without."""

import io
import os
import tarfile

import pytest

from echostream.untar import unpack


@pytest.fixture(params=["filters", "none"] if hasattr(tarfile, "data_filter") else ["none"], autouse=True)
def python(request, monkeypatch):
    if request.param == "none":
        monkeypatch.delattr(tarfile, "data_filter", raising=False)


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode, made.uid = kind, link, mode, 4321
    made.size = 4 if kind == tarfile.REGTYPE else 0
    return made


def unpacked(folder, *members: tarfile.TarInfo) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for one in members:
            archive.addfile(one, io.BytesIO(b"text") if one.size else None)
    file.seek(0)
    with tarfile.open(fileobj=file) as archive:
        unpack(archive, archive, folder)


def test_files_folders_and_links_within_are_unpacked(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    unpacked(
        folder,
        member("a", tarfile.DIRTYPE, mode=0o777),
        member("a/b.txt", mode=0o4777),
        member("a/c.txt", tarfile.SYMTYPE, "b.txt"),
        member("a/d.txt", tarfile.LNKTYPE, "a/b.txt"),
        member("/e.txt"),
    )
    assert [(folder / name).read_text() for name in ("a/b.txt", "a/c.txt", "a/d.txt", "e.txt")] == ["text"] * 4
    found = (folder / "a/b.txt").stat()
    assert found.st_uid == os.getuid() and not found.st_mode & 0o7022


@pytest.mark.parametrize(
    "members",
    [
        [member("../outside")],
        [member("a/../../outside")],
        [member("link", tarfile.SYMTYPE, ".."), member("link/outside")],
        [member("link", tarfile.SYMTYPE, "/etc")],
        [member("link", tarfile.LNKTYPE, "../secret")],
        [member("device", tarfile.CHRTYPE)],
        [member("pipe", tarfile.FIFOTYPE)],
    ],
    ids=["up", "down and up", "through a link", "link to the root", "hard link", "device", "pipe"],
)
def test_what_leads_outside_is_refused(tmp_path, members):
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "secret").write_text("secret")
    with pytest.raises(tarfile.TarError):
        unpacked(folder, *members)
    assert not (tmp_path / "outside").exists() and not any(path.is_file() for path in folder.rglob("*"))
