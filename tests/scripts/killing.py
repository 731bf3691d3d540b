"""Kills a recipe in the middle of each of its stages, and compares what it makes in the end, for tests of recipes."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Collection
from pathlib import Path

import pytest

POLL_S = 0.02
# All recipes are stopped and resumed by one file that they share (scripts/recipes/recipe.sh): two of them are killed
# in each run, the others with ECHOSTREAM_EVERY_RECIPE=1.
with_every_recipe = pytest.mark.skipif(
    "ECHOSTREAM_EVERY_RECIPE" not in os.environ, reason="one is enough to see: other recipes are killed"
)
Command = Callable[[Path], list[str]]  # a recipe's command line for a data root
# Lines in the order of their making; the table that is joined from them is compared.
UNORDERED = "units.tsv.parts"


def files_below(root: Path) -> list[Path]:
    """Files that are there now; unlike `rglob`, this stands folders that vanish meanwhile."""
    return [Path(folder, name) for folder, _, names in os.walk(root) for name in names]


def visible(root: Path) -> dict[str, Path]:
    """Files under their final names; what is half written is hidden, and so are records."""
    found = {path.relative_to(root): path for path in files_below(root)}
    return {str(name): path for name, path in found.items() if not any(part.startswith(".") for part in name.parts)}


def contents(root: Path) -> dict[str, bytes]:
    """What a run has made. Lists for SimulEval hold absolute paths: these are read as if the data lay elsewhere."""
    files = {name: path for name, path in visible(root).items() if not name.startswith(UNORDERED)}
    return {name: path.read_bytes().replace(str(root).encode(), b"ROOT") for name, path in files.items()}


def state(root: Path) -> dict[str, int]:
    """Names and times of all files under a data root, of hidden ones too."""
    found = {}
    for path in files_below(root):
        try:
            found[str(path)] = path.stat().st_mtime_ns
        except FileNotFoundError:  # renamed in the meantime
            continue
    return found


def run(command: list[str]) -> str:
    """Run to the end; returns what was printed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def kill_in_stage(command: list[str], root: Path, stage: int, made: set[str]) -> None:
    """Start a recipe, and kill all of its processes once a stage has begun and half of its files are there."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert any(line.startswith(f"stage {stage}:") for line in process.stdout), f"no stage {stage}"
    before = state(root)
    while state(root) == before or len(made & visible(root).keys()) < len(made) // 2:
        try:
            process.wait(POLL_S)
            break
        except subprocess.TimeoutExpired:
            continue
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, f"stage {stage} ended before it was killed"


def check_killed_run(command: Command, folder: Path, last_stage: int, spared: Collection[int] = ()) -> None:
    """A run killed in each of its stages ends with the files of one that went stage by stage, no speech made twice.

    Args:
        command: the recipe; `--stage` and `--stop-stage` are added.
        folder: for the two runs.
        last_stage: last one to run.
        spared: stages that aren't killed, since they make nothing here, or are the last and over in no time.
    """
    whole, killed = folder / "whole", folder / "killed"
    made: dict[int, set[str]] = {}
    for stage in range(1, last_stage + 1):
        before = state(whole) if whole.exists() else {}
        run([*command(whole), "--stage", str(stage), "--stop-stage", str(stage)])
        if stage in spared:
            continue
        changed = {name for name, time in state(whole).items() if before.get(name) != time}
        made[stage] = {name for name, path in visible(whole).items() if str(path) in changed}
        assert made[stage], f"stage {stage} makes nothing"
    everything = [*command(killed), "--stop-stage", str(last_stage)]
    recorded: dict[Path, int] = {}
    for stage in made:
        kill_in_stage(everything, killed, stage, made[stage])
        recordings = {path: path.stat().st_mtime_ns for path in killed.glob("audio/**/[!.]*.wav")}
        # Made again is at most the one that was finished but not recorded yet (--jobs 1).
        again = [path for path, time in recorded.items() if recordings.get(path) != time]
        assert len(again) <= 1, again
        recorded = recordings
    run(everything)
    one, other = contents(whole), contents(killed)
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == []
    hidden = [path.name for path in killed.rglob(".*") if not path.name.startswith(".done")]
    assert hidden == [], f"left half written: {hidden}"
