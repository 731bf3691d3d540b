"""The tutorials on extending EchoStream do what they say: every block is run as it is pasted, from top to bottom."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tasks.conftest import corpus  # noqa: F401  # a fixture

REPOSITORY = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```", re.DOTALL | re.MULTILINE)
FILE_NAME = re.compile(r"# ([\w/]+\.py)\n")


def run_page(name: str, folder: Path) -> list[str]:
    """Run a page's blocks in ``folder``, and save those that begin with the name of a file; what each of them prints.

    What the blocks need of a checkout is in the folder; what they write stays out of the real one.
    """
    for needed in ("configs", "echostream", "models", "scripts"):
        (folder / needed).symlink_to(REPOSITORY / needed)
    paths = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY)}
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"} | paths
    printed = []
    for language, text in BLOCK.findall((REPOSITORY / "docs/tutorial" / name).read_text(encoding="utf-8")):
        if (file := FILE_NAME.match(text)) and language == "python":
            (folder / file[1]).parent.mkdir(exist_ok=True)
            (folder / file[1]).write_text(text, encoding="utf-8")
            continue
        command = [sys.executable, "-c", text] if language == "python" else ["bash", "-euc", text]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=600
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        printed.append(done.stdout)
    return printed


@pytest.mark.integration
def test_a_policy_of_ones_own(corpus, tmp_path):  # noqa: F811
    folder = tmp_path / "work"
    (folder / "runs").mkdir(parents=True)
    corpus.folder.rename(folder / "runs/corpus")
    _, shown, spoken, trained = run_page("extend-policy.md", folder)
    assert re.search(r" s  said   \w", shown)
    chunks = [re.findall(rf"^{words} words at a time: (\S+) s ", spoken, re.MULTILINE) for words in (2, 4)]
    assert float(chunks[0][0]) < float(chunks[1][0])  # who reads more words first writes later
    assert "@ 4 updates" in trained
    options = torch.load(folder / "runs/chunks/checkpoint_last.pt", weights_only=True)["cfg"]["criterion"]
    assert (options["policy"], options["policy_options"]) == ("my_policies:ChunkPolicy", "words=2")


@pytest.mark.integration
def test_a_vocoder_of_ones_own(tmp_path):
    checked, saved, _, sung = run_page("extend-vocoder.md", tmp_path)
    assert re.search(r"^\d+ passed", checked, re.MULTILINE) and "failed" not in checked
    assert saved.strip() == "sine_bank/vocoder.pt"
    samples, rate = soundfile.read(tmp_path / "sung.wav", dtype="float32")
    seconds = float(re.search(r"\S.*: (\d+\.\d) s of song", sung)[1])
    assert seconds == pytest.approx(len(samples) / rate, abs=0.1) and seconds > 0.5
    assert np.abs(samples).max() > 0.2


@pytest.mark.integration
def test_a_front_end_of_ones_own(corpus, tmp_path):  # noqa: F811
    folder = tmp_path / "work"
    (folder / "runs").mkdir(parents=True)
    corpus.folder.rename(folder / "runs/corpus")
    checked, trained, shown = run_page("extend-front-end.md", folder)
    assert re.search(r"^5 passed", checked, re.MULTILINE)
    assert "num_updates 4" in trained or "4 updates" in trained
    assert "look-ahead 40 ms" in shown
    options = torch.load(folder / "runs/delta/checkpoint_last.pt", weights_only=True)["cfg"]["model"]
    assert options["front_end"] == "delta"
