"""What inference is, where nothing of training and evaluation is installed: these tests import no more than it does.

``make test-newest`` runs them in an environment of inference alone; elsewhere, what is not to be needed is hidden.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import soundfile
from shipped_model import MODEL, short_samples, word_error_rate, words_of

REPOSITORY = Path(__file__).resolve().parents[2]
SAMPLES = short_samples(8, least_words=6)
SAMPLE = SAMPLES[0].path
UNNEEDED = ["fairseq", "simuleval", "torchaudio", "hydra", "omegaconf", "sacrebleu", "sentencepiece", "faster_whisper"]
# Put before everything else on the path, so that importing one of them fails as if it were not there.
HIDING = """\
import importlib.abc, os, signal, sys
class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == os.environ.get("INTERRUPT_AT"):
            os.kill(os.getpid(), signal.SIGINT)
        if name.partition(".")[0] in {unneeded!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
"""


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    """Environment of a process without the packages that inference doesn't need, and without fetched models."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(HIDING.format(unneeded=set(UNNEEDED)), encoding="utf-8")
    path = os.pathsep.join([str(tmp_path / "site"), str(REPOSITORY)])
    return {**os.environ, "PYTHONPATH": path, "ECHOSTREAM_MODELS": str(tmp_path / "models"), "OMP_NUM_THREADS": "1"}


def run(environment: dict[str, str], folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "echostream.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def python(environment: dict[str, str], folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_packages_are_hidden(environment, tmp_path):
    for name in UNNEEDED:
        assert "ModuleNotFoundError" in python(environment, tmp_path, f"import {name}").stderr


def test_recording_is_translated_with_the_only_model(environment, tmp_path):
    done = run(environment, tmp_path, "translate", SAMPLE, "-o", "out.wav", "--vtt", "out.vtt")
    assert done.returncode == 0, done.stderr
    assert len(lines_of(done.stdout, "said")) >= len(words_of(SAMPLES[0].target)) / 2
    samples, rate = soundfile.read(tmp_path / "out.wav")
    assert rate == 16_000 and samples.size > rate / 2 and np.abs(samples).max() > 0.05
    assert (tmp_path / "out.vtt").read_text(encoding="utf-8").startswith("WEBVTT\n")


def lines_of(shown: str, kind: str) -> list[str]:
    """The words that were heard or said."""
    return " ".join(re.findall(rf"^ *[\d.]+ s  {kind} +(.*)$", shown, re.MULTILINE)).split()


def test_what_is_heard_is_what_was_said(environment, tmp_path):
    done = run(environment, tmp_path, "asr", *(sample.path for sample in SAMPLES), "--text", "-q")
    assert done.returncode == 0, done.stderr
    heard = [" ".join(text.splitlines()[1:]) for text in re.split("^==> ", done.stdout, flags=re.MULTILINE)[1:]]
    assert word_error_rate(heard, [sample.source for sample in SAMPLES]) < 0.6, done.stdout


def test_model_names_resolve_and_unknown_ones_give_one_line(environment, tmp_path):
    assert run(environment, tmp_path, "models", "path", "fr-en").stdout.strip() == str(MODEL)
    assert "parameters" in run(environment, tmp_path, "info", "fr-en").stdout
    done = run(environment, tmp_path, "asr", SAMPLE, "--model", "fr-em")
    assert done.returncode == 1 and "did you mean fr-en?" in done.stderr and len(done.stderr.splitlines()) == 1


def test_python_in_five_lines(environment, tmp_path):
    code = f"""
import soundfile
from echostream import StreamingTranslator
translator = StreamingTranslator.from_pretrained("fr-en")
samples, rate = soundfile.read({str(SAMPLE)!r}, dtype="float32")
print(translator.step(samples, translator.init_state(), is_last=True).text)
import sys
print([name for name in sys.modules if name.partition(".")[0] in {set(UNNEEDED)!r}])
"""
    done = python(environment, tmp_path, code)
    assert done.returncode == 0, done.stderr
    text, found = done.stdout.splitlines()
    assert found == "[]" and words_of(text)
    assert words_of(text) == words_of(run(environment, tmp_path, "translate", SAMPLE, "--text").stdout)


def test_help_imports_no_large_packages(environment, tmp_path):
    code = """
import sys
from echostream.cli import main
for line in ("--help", "--version", "translate --help", "mic --help", "serve --help", "models --help", "transalte"):
    try:
        main(line.split())
    except SystemExit:
        pass
heavy = {"torch", "numpy", "soundfile", "soxr", "aiohttp", "asyncio", "yaml", "safetensors", "urllib.request"}
print(sorted(heavy & set(sys.modules)))
"""
    done = python(environment, tmp_path, code)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


@pytest.mark.parametrize(
    "module",
    [
        "argparse",
        "echostream.cli.options",
        "numpy",
        "soundfile",
        "torch",
        "torch.nn",
        "safetensors",
        "echostream.vocoders",
    ],
)
def test_ctrl_c_while_loading_ends_without_a_traceback(environment, tmp_path, module):
    """The process interrupts itself when it starts to import a module."""
    environment["INTERRUPT_AT"] = module
    done = run(environment, tmp_path, "translate", SAMPLE, "--text")
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr and not done.stdout


def test_package_is_found_from_the_folder_above_the_checkout(environment, tmp_path):
    """From its parent folder, a checkout named echostream must not be imported as the package."""
    (tmp_path / "echostream").symlink_to(REPOSITORY)
    done = python(environment, tmp_path, "import echostream; print(echostream.__version__)")
    assert done.returncode == 0 and done.stdout.strip(), done.stderr


def test_the_server_starts_and_answers(environment, tmp_path):
    pytest.importorskip("aiohttp")
    command = [sys.executable, "-m", "echostream.cli", "serve", "--port", "0"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if "http://" in line:
                break
        url = next(word for word in said.split() if word.startswith("http://")).rstrip("/,;")
        with urllib.request.urlopen(f"{url}/health", timeout=30) as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    assert "Traceback" not in rest
