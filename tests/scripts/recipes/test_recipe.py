"""The frame of all recipes: options, stages, shards, jobs and records, with a small recipe of real tools."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile

from scripts.recipes import submit

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"
LISTING = """\
import os, sys
open(sys.argv[2], "w").write("\\n".join(sorted(name for name in os.listdir(sys.argv[1]) if name[0] != ".")))
"""
RECIPE = f"""\
set -euo pipefail
source "{SCRIPTS}/recipes/recipe.sh"
usage() {{ echo "usage: small.sh --data-root DIR [--table FILE]"; }}
declare -A options=([table]="" [limit]=3 [vocab-size]=200)
flags=(with-text)
last_stage=2
recipe_options "$@"
counts limit
if runs 1 "recordings"; then
  sharded --counts "$python" "{SCRIPTS}/recipes/custom/import_audio.py" --texts "$table" --column source_wav \\
    --audio-root "$(dirname "$table")" --out "$data_root/audio"
fi
if runs 2 "list"; then
  once list --inputs "$data_root/audio" --outputs "$data_root/list.txt" -- \\
    "$python" "$(dirname "$table")/listing.py" \\
    "$data_root/audio" "$data_root/list.txt"
  plain "$python" -c 'print("limit", "'"$limit"'", "vocab", "'"$vocab_size"'", "text", "'"$with_text"'")'
fi
"""


@pytest.fixture
def small(tmp_path: Path):
    """Runs the small recipe; answers exit status, standard output and standard error."""
    script = tmp_path / "small.sh"
    script.write_text(RECIPE)
    (tmp_path / "listing.py").write_text(LISTING)
    generator = np.random.default_rng(0)
    rows = ["id\tsource_wav\ttarget_wav\tsource_text\ttarget_text\tsplit"]
    for index in range(5):
        soundfile.write(tmp_path / f"{index}.wav", generator.normal(size=4000 + 100 * index) * 0.1, 16000)
        rows.append(f"u{index}\t{index}.wav\t\tun\tone\t")
    (tmp_path / "table.tsv").write_text("\n".join(rows) + "\n")

    def run(*options: object, root: str = "data", python: object = sys.executable) -> tuple[int, str, str]:
        command = [
            "bash",
            script,
            "--data-root",
            tmp_path / root,
            "--table",
            tmp_path / "table.tsv",
            "--python",
            python,
        ]
        command = [*map(str, [*command, "--jobs", 1, *options])]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    return run


def test_recipe_runs_then_has_nothing_to_do(small, tmp_path):
    status, output, _ = small("--dry-run")
    assert status == 0 and not (tmp_path / "data").exists()
    assert "audio: 5 to be converted, 0 already done" in output and "list: would run, once there is" in output

    status, output, errors = small("--limit", "7", "--with-text")
    assert status == 0, errors
    assert "stage 1: recordings" in output and "audio: 5 converted" in output
    assert "limit 7 vocab 200 text true" in output
    assert (tmp_path / "data/list.txt").read_text().split() == [f"u{i}.wav" for i in range(5)]

    status, output, _ = small()
    assert "audio: 0 converted, 5 already done" in output and "list: already done" in output
    assert "limit 3 vocab 200 text false" in output
    status, output, _ = small("--dry-run")
    assert "audio: 0 to be converted, 5 already done" in output and "would run: " in output
    assert small("--stage", "2")[1].startswith("stage 2")
    assert small("--stop-stage", "1")[:2] == (0, "stage 1: recordings\naudio: 0 converted, 5 already done\n")


def test_changed_output_is_made_again(small, tmp_path):
    small()
    (tmp_path / "data/list.txt").write_text("damaged")
    assert "list: an output was changed since it was made" in small()[1]
    assert (tmp_path / "data/list.txt").read_text().startswith("u0.wav")
    assert "list: already done" in small()[1]


def test_shards_make_the_whole(small, tmp_path):
    status, output, _ = small("--num-shards", "2", "--shard", "1")
    assert status == 0 and "audio: 2 converted" in output
    assert "list: not divided into shards" in output and not (tmp_path / "data/list.txt").exists()
    assert "audio: 3 to be converted" in small("--num-shards", "2", "--shard", "0", "--dry-run")[1]
    status, output, _ = small("--num-shards", "3")  # divided otherwise: what is done stays done
    assert status == 0 and sum(int(line.split()[1]) for line in output.splitlines() if line.startswith("audio:")) == 3
    assert small(root="other")[0] == 0
    for index in range(5):
        name = f"audio/u{index}.wav"
        assert (tmp_path / "data" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
    assert (tmp_path / "data/list.txt").read_bytes() == (tmp_path / "other/list.txt").read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--limt", "3"], "unknown option --limt"),
        (["--limit", "x"], "--limit is a whole number from 0, not 'x'"),
        (["--limit"], "--limit needs a value"),
        (["--table", "--limit"], "--table needs a value"),
        (["--stage", "3"], "--stage is a number from 1 to 2, not '3'"),
        (["--stage", "2", "--stop-stage", "1"], "nothing would be done"),
        (["--num-shards", "2", "--shard", "2"], "--shard is a number from 0 to 1"),
        (["--jobs", "0"], "--jobs is a number from 1"),
        (["--submit", "pbs"], "--submit is local or slurm"),
        (["--submit-options", "a=1"], "--submit-options needs --submit"),
        (["--data-root", ""], "--data-root is missing"),
        (["--$(touch x)", "1"], "unknown option"),
    ],
)
def test_wrong_options_end_in_one_line(small, options, message):
    status, _, errors = small(*options)
    assert status == 2 and message in errors and len(errors.strip().splitlines()) == 1


def test_help_names_standard_options(small):
    status, output, _ = small("--help")
    assert status == 0 and "usage: small.sh" in output and "--num-shards N" in output and "--submit WHERE" in output


def test_failing_tool_stops_the_recipe(small, tmp_path):
    (tmp_path / "3.wav").write_text("no sound")
    status, output, errors = small()
    assert status == 1 and "stage 2" not in output
    assert "3.wav cannot be read" in errors.splitlines()[-1] and "Traceback" not in errors


@pytest.mark.skipif(find_spec("submitit") is None, reason="needs pip install -e '.[cluster]'")
def test_shards_as_local_jobs(small, tmp_path):
    status, output, errors = small("--num-shards", "2", "--submit", "local", "--submit-options", "timeout_min=5")
    assert status == 0, errors
    assert "jobs: 2 submitted (local)" in output and "list: already done" not in output
    assert (tmp_path / "data/list.txt").read_text().split() == [f"u{i}.wav" for i in range(5)]
    logs = [path.read_text() for path in (tmp_path / "data/jobs").rglob("*.out")]
    assert sum("3 converted" in log for log in logs) == sum("2 converted" in log for log in logs) == 1

    (tmp_path / "4.wav").write_text("no sound")
    status, _, errors = small("--num-shards", "2", "--submit", "local")
    assert status == 1 and "4.wav cannot be read" in errors and "Traceback" not in errors
    assert errors.splitlines()[-1].startswith("error: 1 of 2 shards failed")


@pytest.mark.skipif(find_spec("submitit") is None, reason="needs pip install -e '.[cluster]'")
def test_slurm_is_missed_in_one_line(small):
    environment_has_slurm = any((Path(folder) / "srun").exists() for folder in os.environ["PATH"].split(":"))
    if environment_has_slurm:
        pytest.skip("there is a SLURM here")
    status, _, errors = small("--submit", "slurm", "--submit-options", "slurm_partition=cpu")
    assert status == 1 and "submitit cannot start jobs (slurm)" in errors and "Traceback" not in errors


def test_missing_submitit_is_named(small, tmp_path):
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    status, _, errors = small("--submit", "local", python=bare)
    assert (
        status == 1 and len(errors.splitlines()) == 1 and 'submitit is missing: pip install -e ".[cluster]"' in errors
    )


def test_submit_options(tmp_path):
    path = tmp_path / "cluster.json"
    path.write_text('{"slurm_partition": "gpu", "timeout_min": 5}')
    found = submit.parse_options(f"{path} timeout_min=600 name=a")
    assert found == {"slurm_partition": "gpu", "timeout_min": 600, "name": "a"}
    for text in ("timeout_min", str(tmp_path / "none.json")):
        with pytest.raises(SystemExit, match="neither key=value nor a JSON file"):
            submit.parse_options(text)
