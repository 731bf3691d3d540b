"""Files of the tools appear whole, and what killed processes leave behind is removed."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts import files


def test_half_written_files_of_the_dead_are_swept(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        pass
    mine, lost = (tmp_path / f".u.{files.HOST}-{pid}.wav" for pid in (os.getpid(), dead.pid))
    elsewhere, other = tmp_path / f".u.another-host-{dead.pid}.wav", tmp_path / ".done.tsv"
    for path in (mine, lost, elsewhere, other):
        path.touch()
    files.write_text(tmp_path / "x.txt", "x")
    assert {path.name for path in tmp_path.iterdir()} == {mine.name, elsewhere.name, other.name, "x.txt"}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_number_of_a_dead_process_that_is_still_there_or_there_again(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as zombie:
        while ") Z " not in Path(f"/proc/{zombie.pid}/stat").read_text():
            time.sleep(0.01)
        not_waited_for = tmp_path / f".u.{files.HOST}-{zombie.pid}.wav"
        older_than_this_process = tmp_path / f".v.{files.HOST}-{os.getpid()}.wav"
        for path in (not_waited_for, older_than_this_process):
            path.touch()
        os.utime(older_than_this_process, (0, 0))
        files.write_text(tmp_path / "x.txt", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"]


def test_digest_depends_on_contents_and_not_on_places(tmp_path):
    for folder in ("a", "b"):
        files.write_text(tmp_path / folder / "in/x.txt", "x")
    (tmp_path / "b/.hidden").touch()
    assert files.digest(tmp_path / "a", 1) == files.digest(tmp_path / "b", 1) != files.digest(tmp_path / "a", 2)
    files.write_text(tmp_path / "b/in/x.txt", "y")
    assert files.digest(tmp_path / "a") != files.digest(tmp_path / "b")


def test_full_disk_is_one_line(tmp_path):
    tool = "import errno, scripts.files; raise OSError(errno.ENOSPC, 'No space left on device', 'x.tsv')"
    done = subprocess.run([sys.executable, "-c", tool], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: cannot write x.tsv: No space left on device")


def test_tables_have_a_header_and_the_columns_asked_for(tmp_path):
    rows = [{"id": "a", "en": "one", "n": "1"}, {"n": "2", "en": "two", "id": "b"}]
    files.write_tsv(tmp_path / "all.tsv", rows)
    files.write_tsv(tmp_path / "some.tsv", rows, ("n", "id"))
    assert (tmp_path / "all.tsv").read_text() == "id\ten\tn\na\tone\t1\nb\ttwo\t2\n"
    assert (tmp_path / "some.tsv").read_text() == "n\tid\n1\ta\n2\tb\n"
