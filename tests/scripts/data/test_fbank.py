"""Features of a folder of recordings: each once, and those that are too short are named."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from scripts.data import fbank, fbank_archive
from scripts.speech.audio import read_speech


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Two recordings and the table that names them."""
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        soundfile.write(tmp_path / f"{name}.wav", random.normal(size=4000).clip(-1, 1) * 0.3, 16000)
    (tmp_path / "pairs.tsv").write_text("id\na\nb\n")
    return tmp_path


def compute(folder: Path, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, fbank.__file__, "--texts", folder / "pairs.tsv", "--audio", folder]
    command += ["--out", folder / "fbank", *options]
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)


def test_features_are_computed_once_and_too_short_recordings_named(recordings):
    assert compute(recordings, "--dry-run").stdout == "fbank: 2 to be computed, 0 already done\n"
    assert compute(recordings).stdout == "fbank: 2 computed, 0 already done\n"
    for name in ("a", "b"):
        expected = fbank_archive.log_mel(read_speech(recordings / f"{name}.wav"))
        np.testing.assert_array_equal(np.load(recordings / f"fbank/{name}.npy"), expected)
    soundfile.write(recordings / "b.wav", np.full(300, 0.1), 16000)
    assert compute(recordings, "--dry-run").stdout == "fbank: 1 to be computed, 1 already done\n"
    done = compute(recordings)
    assert done.returncode == 1 and "b.wav is shorter than one frame of 25 ms" in done.stderr.splitlines()[-1]
