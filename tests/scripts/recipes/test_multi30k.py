"""Multi30k's recipe on sentences of our own in its layout."""

import gzip
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from killing import check_killed_run, with_every_recipe

from scripts.speech import french_voice
from scripts.speech.audio import read_speech
from scripts.speech.speech_synthesis import read_table
from scripts.units.units import UnitModel

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"
PAIRS = {
    "train": (
        ("Un chien court.", "A dog runs."),
        ("Une femme lit.", "A woman reads."),
        ("", "Nothing in French."),
        ("Il pleut.", "It is raining."),
        ("Deux enfants jouent.", "Two children play."),
    ),
    "val": (("Un homme dort.", "A man sleeps."),),
    "test_2016_flickr": (("Il pleut !", "It rains."),),
}
needs_english = pytest.mark.skipif(find_spec("hibari") is None, reason="needs pip install -e '.[data]'")
needs_french = pytest.mark.skipif(
    any(find_spec(package) is None for package in french_voice.PACKAGES), reason="needs pip install -e '.[data]'"
)


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("multi30k")
    for name, pairs in PAIRS.items():
        for language, column in (("fr", 0), ("en", 1)):
            (folder / f"{name}.{language}").write_text("".join(f"{pair[column]}\n" for pair in pairs), encoding="utf-8")
    return folder


def command(root: Path, *options: object) -> list[str]:
    words = [
        SCRIPTS / "recipes/multi30k/run.sh",
        "--data-root",
        root,
        "--python",
        sys.executable,
        "--jobs",
        1,
        *options,
    ]
    return [*map(str, words)]


def run(root: Path, *options: object) -> subprocess.CompletedProcess:
    return subprocess.run(command(root, *options), capture_output=True, text=True, check=False)


def test_table_of_pairs(texts, tmp_path):
    done = run(tmp_path / "data", "--text-dir", texts, "--stop-stage", 1, "--limit-train", 2)
    assert done.returncode == 0, done.stderr
    # "Il pleut." is in the test set but for its punctuation.
    assert "texts: 2 train, 1 dev, 1 test; 1 training pairs left out" in done.stdout
    rows = read_table(tmp_path / "data/texts/pairs.tsv", "split", "fr", "en")
    assert [row["id"] for row in rows] == ["train00001", "train00002", "dev00001", "test00001"]
    run(tmp_path / "data", "--text-dir", texts, "--stop-stage", 1)
    rows = read_table(tmp_path / "data/texts/pairs.tsv", "split", "fr", "en")
    assert [row["id"] for row in rows if row["split"] == "train"] == ["train00001", "train00002", "train00005"]


@needs_english
def test_english_source_with_french_text(texts, tmp_path):
    options = ("--text-dir", texts, "--source-lang", "en", "--text-targets", "--limit-train", 2)
    done = run(tmp_path / "a", *options)
    assert done.returncode == 0, done.stderr
    assert "en: 4 spoken" in done.stdout and not (tmp_path / "a/audio/fr").exists()
    assert [row["tgt_audio"] for row in read_table(tmp_path / "a/train.tsv", "src_audio", "tgt_audio")] == ["0", "0"]
    assert (tmp_path / "a/simuleval/target.txt").read_text() == "il pleut\n"
    again = run(tmp_path / "a", *options)
    assert "en: 0 spoken, 4 already done" in again.stdout and "manifests: already done" in again.stdout


@needs_english
@needs_french
@pytest.mark.integration
def test_french_source_with_english_speech(texts, tmp_path):
    options = ("--text-dir", texts, "--limit-train", 1, "--features", "mfcc", "--clusters", 8)
    done = run(tmp_path, *options, "--stop-stage", 5)
    assert done.returncode == 0, done.stderr
    units = {row["id"]: row["units"].split() for row in read_table(tmp_path / "units.tsv", "audio", "units")}
    for name in ("train00001", "dev00001", "test00001"):
        assert 0.4 < len(read_speech(tmp_path / f"audio/fr/{name}.wav")) / 16000 < 4
        assert len(units[name]) * 320 == len(read_speech(tmp_path / f"audio/en/{name}.wav"))
    (tmp_path / "audio/fr/dev00001.wav").unlink()  # as if the run had been stopped
    manifest = (tmp_path / "train.tsv").read_bytes()
    done = run(tmp_path, *options, "--stop-stage", 5)
    assert "fr: 1 spoken, 2 already done" in done.stdout and "manifests: already done" in done.stdout
    assert (tmp_path / "train.tsv").read_bytes() == manifest


@needs_english
@needs_french
@pytest.mark.integration
@with_every_recipe
def test_killed_in_every_stage(texts, tmp_path):
    options = ("--text-dir", texts, "--limit-train", 2, "--features", "mfcc", "--clusters", 8)
    check_killed_run(lambda root: command(root, *options), tmp_path, last_stage=5)


def test_fetching(texts, tmp_path):
    net = tmp_path / "net"
    net.mkdir()
    for path in texts.iterdir():
        (net / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    done = run(tmp_path / "data", "--url", net.as_uri(), "--stop-stage", 1)
    assert done.returncode == 0 and "texts: 3 train, 1 dev, 1 test" in done.stdout, done.stderr
    next(net.glob("val.en.gz")).unlink()
    done = run(tmp_path / "other", "--url", net.as_uri(), "--stop-stage", 1)
    assert done.returncode == 1 and "--text-dir" in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr


def test_wrong_texts_are_named(texts, tmp_path):
    done = run(tmp_path / "data", "--text-dir", tmp_path, "--stop-stage", 1)
    assert done.returncode == 1 and "has no train.fr (or .gz)" in done.stderr
    for path in texts.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "val.en").write_text("One.\nTwo.\n")
    done = run(tmp_path / "data", "--text-dir", tmp_path, "--stop-stage", 1)
    assert done.returncode == 1 and "1 lines" in done.stderr and "2; they are no translations" in done.stderr
    done = run(tmp_path / "data", "--text-dir", texts, "--source-lang", "en", "--features", "whisper")
    assert done.returncode == 2 and "hears English only" in done.stderr
    done = run(tmp_path / "data", "--text-dir", texts, "--kmeans", texts / "val.en")
    assert done.returncode == 2 and "is no unit model" in done.stderr
    UnitModel.of_centroids(np.eye(3, dtype=np.float32), "hubert:2").save(tmp_path / "kmeans.npz")
    done = run(tmp_path / "data", "--text-dir", texts, "--kmeans", tmp_path / "kmeans.npz")
    assert done.returncode == 2 and "give the checkpoint with --hubert" in done.stderr
