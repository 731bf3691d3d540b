"""A stage of a recipe runs until it has succeeded, and again only where its inputs have changed."""

import subprocess
import sys

from scripts.recipes import run_once


def test_run_once_resumes_and_discards(tmp_path):
    script, data, partial = tmp_path / "work.py", tmp_path / "in.txt", tmp_path / "partial"
    script.write_text(
        "import pathlib, sys\n"
        "folder = pathlib.Path(sys.argv[1]); folder.mkdir(exist_ok=True)\n"
        "log = folder / 'log'; runs = len(log.read_text()) if log.exists() else 0\n"
        "log.write_text('x' * (runs + 1)); sys.exit(runs == 0)\n"
    )
    data.write_text("one")
    log = partial / "log"

    def stage():
        command = [sys.executable, run_once.__file__, "--data-root", tmp_path, "--name", "work", "--inputs", data]
        command += ["--outputs", log, "--partial", partial, "--", sys.executable, script, partial]
        return subprocess.run([*map(str, command)], check=False).returncode

    assert stage() == 1  # fails the first time, and keeps its unfinished work
    assert stage() == 0 and log.read_text() == "xx"
    assert stage() == 0 and log.read_text() == "xx"  # not run again
    data.write_text("two")
    assert stage() == 1 and log.read_text() == "x"  # other inputs: from the beginning
