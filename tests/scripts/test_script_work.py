"""Work on many items: what is finished is remembered, shards cover everything, an interruption ends in one line."""

import argparse
import os
import signal
import subprocess
import sys
import time

import pytest

from scripts.files import digest
from scripts.work import Ledger, share


def test_ledger_knows_what_is_finished(tmp_path):
    source = tmp_path / "in.txt"
    source.write_text("one")
    ledger = Ledger(tmp_path / ".done.tsv")
    ledger.mark("work", digest("option", source))
    with ledger.path.open("a") as file:
        file.write("other\tcut sho")
    reopened = Ledger(ledger.path)
    assert reopened.is_done("work", digest("option", source), [source])
    assert not reopened.is_done("work", digest("option", source), [tmp_path / "lost"])
    assert not reopened.is_done("other", digest("option", source))
    source.write_text("two")
    assert not reopened.is_done("work", digest("option", source))


def test_ledger_of_shards_remembers_the_latest(tmp_path):
    path = tmp_path / ".done.tsv"
    path.write_text("old\taaa\n")  # as earlier versions wrote it
    Ledger(path, (0, 2)).mark("x", "first")
    Ledger(path, (1, 2)).mark("x", "second")
    Ledger(path).mark("y", "z")
    ledger = Ledger(path)
    assert ledger.is_done("old", "aaa") and ledger.is_done("y", "z")
    assert ledger.is_done("x", "second") and not ledger.is_done("x", "first")
    Ledger(path, (0, 2)).mark("x", "first")
    assert Ledger(path).is_done("x", "first")
    with path.open("a") as file:
        file.write("torn\tcut sh")
    Ledger(path).mark("after", "it")
    assert Ledger(path).is_done("after", "it")


def test_share_covers_everything_once():
    items = list(range(10))
    shares = [share(items, argparse.Namespace(num_shards=3, shard=i)) for i in range(3)]
    assert sorted(shares[0] + shares[1] + shares[2]) == items and shares[1] == [1, 4, 7]
    with pytest.raises(SystemExit, match="--shard is 0 to 2"):
        share(items, argparse.Namespace(num_shards=3, shard=3))


def test_interrupt_is_one_line(tmp_path):
    tool = tmp_path / "tool.py"
    tool.write_text(
        "import os, threading\n"
        "from scripts.work import parallel_map\n"
        "def work(item):\n"
        "    os.write(1, b'begun\\n'); threading.Event().wait(0.2)\n"
        "if __name__ == '__main__':\n"
        "    for _ in parallel_map(work, list(range(1000)), 2, 'work'): pass\n"
    )
    process = subprocess.Popen(
        [sys.executable, tool], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(6)] == ["begun\n"] * 6
    started = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130 and time.monotonic() - started < 60
    assert "interrupted: finishing" in errors and "Traceback" not in errors
