"""The quickstart corpus: its parts on made-up data, and the whole recipe on three sentences."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from killing import check_killed_run, with_every_recipe

from scripts.recipes.quickstart import make_texts
from scripts.speech import french_voice
from scripts.speech.audio import read_speech
from scripts.speech.speech_synthesis import read_table
from scripts.units import unit_features

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"
DATA_PACKAGES = (
    *french_voice.PACKAGES,
    *unit_features.PACKAGES["whisper"],
    "hibari",
)
needs_data_packages = pytest.mark.skipif(
    any(find_spec(package) is None for package in DATA_PACKAGES), reason="needs pip install -e '.[data]'"
)


def test_sentences_fit_the_recipe():
    rows = read_table(make_texts.SENTENCES, "fr", "en")
    assert len(rows) == 40 and len({row["fr"] for row in rows}) == 40
    for row in rows:
        assert 6 <= len(row["fr"].split()) <= 14 and 6 <= len(row["en"].split()) <= 14
        assert not any(letter.isdigit() for letter in row["en"])
        assert all(letter.isalpha() or letter in " .,?!'-" for letter in row["fr"] + row["en"])


def test_extra_lines_are_varied_and_repeatable():
    def lines():
        generator = make_texts.random.Random(3)
        return [make_texts.make_line(generator) for _ in range(50)]

    assert lines() == lines() and len(set(lines())) == 50
    assert all(line[0].isupper() and line[-1] in ".?!" and "{" not in line for line in lines())


def test_unknown_option_is_one_line_with_its_name():
    wrong = subprocess.run(
        [SCRIPTS / "recipes/quickstart/prepare.sh", "--data-rot", "x"], capture_output=True, text=True
    )
    assert wrong.returncode == 2 and "unknown option --data-rot" in wrong.stderr


@needs_data_packages
def test_whole_recipe_runs_once(tmp_path):
    root = tmp_path / "data"

    def prepare(root):
        options = ["--limit", "3", "--extra-lines", "6", "--clusters", "20", "--jobs", "1", "--stop-stage", "5"]
        command = [SCRIPTS / "recipes/quickstart/prepare.sh", "--data-root", root, "--python", sys.executable, *options]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "fr: 3 spoken" in prepare(root)
    made = {path.relative_to(root): path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    for folder in ("fr", "en"):
        assert 1 < len(read_speech(root / f"audio/{folder}/pair01.wav")) / 16000 < 6
    unit_rows = read_table(root / "units.tsv", "audio", "units")
    assert len(unit_rows) == 9
    for row in unit_rows:
        frames = [int(unit) for unit in row["units"].split()]
        assert len(frames) * 320 == len(read_speech(root / row["audio"])) and min(frames) >= 0 and max(frames) < 20
    sources = (root / "simuleval/source.txt").read_text().split("\n")[:-1]
    references = (root / "simuleval/target.txt").read_text().split("\n")[:-1]
    assert all(Path(source).is_file() for source in sources) and len(sources) == len(references) == 3
    assert references[0] == "hello i would like to book a room for two nights"

    (root / "audio/fr/pair02.wav").unlink()  # as if the run had been stopped
    moved = root.rename(tmp_path / "moved")
    output = prepare(moved)
    assert "texts: already done" in output and "units: 0 recordings to do, 9 already done" in output
    assert "fr: 1 spoken, 2 already done" in output and "en: 0 spoken, 9 already done" in output
    again = {path.parts[0] for path, time in made.items() if (moved / path).stat().st_mtime_ns != time}
    assert again == {"audio", "simuleval", "simuleval_dev"}
    assert str(moved / "audio/fr/pair01.wav") in (moved / "simuleval/source.txt").read_text()


@pytest.mark.integration
@needs_data_packages
@with_every_recipe
def test_killed_in_every_stage(tmp_path):
    sentences = tmp_path / "short.tsv"
    sentences.write_text("id\tfr\ten\na\tMerci.\tThank you.\nb\tBonjour.\tGood morning.\nc\tÀ demain.\tSee you.\n")

    def command(root: Path) -> list[str]:
        small = ("--sentences", sentences, "--extra-lines", 1, "--features", "mfcc", "--clusters", 10, "--jobs", 1)
        return [
            *map(
                str,
                (SCRIPTS / "recipes/quickstart/prepare.sh", "--data-root", root, "--python", sys.executable, *small),
            )
        ]

    check_killed_run(command, tmp_path, last_stage=5)
