"""SimulEval's lists: absolute recordings and normalised texts, of one split or of all pairs."""

import subprocess
import sys
from pathlib import Path

from scripts.data import simuleval_lists


def make_lists(root: Path, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, simuleval_lists.__file__, "--data-root", ".", "--pairs", "pairs.tsv", *options]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


def test_lists_of_a_split_and_of_all(tmp_path):
    (tmp_path / "pairs.tsv").write_text("id\tfr\ten\na\tÇa va ?\tHow are you?\nb\tOui.\tYes.\n", encoding="utf-8")
    (tmp_path / "test.tsv").write_text("id\nb\n")
    assert make_lists(tmp_path).returncode == 0
    found = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "simuleval").iterdir()}
    recording = (tmp_path / "audio/fr/b.wav").resolve()
    assert found == {"source.txt": f"{recording}\n", "target.txt": "yes\n", "source_text.txt": "oui\n"}
    assert make_lists(tmp_path, "--all", "--target-audio", "audio/en", "--out", "all").returncode == 0
    assert (tmp_path / "all/source_text.txt").read_text(encoding="utf-8") == "ça va\noui\n"
    assert (tmp_path / "all/target_audio.txt").read_text().splitlines()[0].endswith("/audio/en/a.wav")


def test_an_utterance_without_a_text_is_named(tmp_path):
    (tmp_path / "pairs.tsv").write_text("id\tfr\ten\na\tOui.\tYes.\n")
    (tmp_path / "test.tsv").write_text("id\nz\n")
    done = make_lists(tmp_path)
    assert done.returncode == 1 and "has no text for z; run the manifest stage again" in done.stderr
