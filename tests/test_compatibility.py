"""``pip install .`` carries what it needs, next to another plugin of fairseq's; checkpoints move to other machines."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tiny_translator import DURATIONS, noise

from echostream.checkpoints.vocoder_files import save_vocoder
from echostream.vocoders.registry import build_vocoder

REPOSITORY = Path(__file__).resolve().parent.parent
SOURCES = ("setup.py", "pyproject.toml", "README.md", "LICENSE")
pytestmark = pytest.mark.integration

# Another plugin, as fairseq knows them: a package with tasks/ and models/, and its own use for EchoStream.
PLUGIN = {
    "__init__.py": "import echostream\n",
    "tasks/__init__.py": "",
    "tasks/babble.py": """\
from fairseq.benchmark.dummy_lm import DummyLMConfig, DummyLMTask
from fairseq.tasks import register_task

@register_task("babble", dataclass=DummyLMConfig)
class BabbleTask(DummyLMTask):
    pass
""",
    "models/__init__.py": "",
    "models/babbler.py": """\
from fairseq.models import register_model_architecture

@register_model_architecture("transformer_lm", "babbler")
def babbler(args):
    args.decoder_embed_dim = args.decoder_ffn_embed_dim = 8
    args.decoder_layers = args.decoder_attention_heads = 1
""",
}
OPTIMISER = "--optimizer adam --lr 1e-3 --cpu --num-workers 0 --max-update 2 --no-progress-bar --disable-validation"
TRAIN_BOTH = """\
import sys
from pathlib import Path
from fairseq_cli.train import cli_main
other, data, save, optimiser = sys.argv[1:]

def train(*options):
    sys.argv = ["fairseq-train", *options, *optimiser.split()]
    cli_main()

train("--user-dir", other, "--task", "babble", "--arch", "babbler", "--criterion", "cross_entropy", "--dict-size", "16",
      "--dataset-size", "8", "--tokens-per-sample", "8", "--batch-size", "4", "--save-dir", f"{save}/other")
import echostream
small = "--encoder-layers 1 --encoder-dim 32 --encoder-ffn-dim 32 --subsampler-hidden-dim 32 --mt-layers 1 --mt-dim 32"
small += " --unit-layers 1 --unit-dim 32 --unit-ffn-dim 32 --mt-ffn-dim 32"
train(data, "--user-dir", str(Path(echostream.__file__).parent), "--task", "echostream", "--criterion",
      "echostream_multitask", "--arch", "echostream_tiny", "--num-units", "20", "--batch-size", "3",
      "--save-dir", f"{save}/echostream", *small.split())
assert {"other", "echostream"} <= set(sys.modules)
"""
EVALUATE = """\
import runpy
import sys
import echostream
from echostream.cli import main
from echostream.serve.app import STATIC
print("installed in", echostream.__file__)
print("the page has", *sorted(path.name for path in STATIC.iterdir()))
assert main(["info", sys.argv[1]]) == 0
sys.argv[1:] = ["--model-path", *sys.argv[1:]]
runpy.run_module("echostream.evaluation", run_name="__main__")
"""


def run(*command: object, cwd: Path, home: Path | None = None) -> str:
    """Run a command as on a machine without the repository; returns its output."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "TMPDIR") if name in os.environ}
    environment = {**kept, "OMP_NUM_THREADS": "1", "HOME": str(home or cwd), "LC_ALL": "C.UTF-8"}
    result = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, (result.stdout + result.stderr)[-3_000:]
    return result.stdout + result.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of a checkout without version control, so that its content depends on the sources only."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in SOURCES:
        shutil.copy(REPOSITORY / name, copy)
    shutil.copytree(REPOSITORY / "echostream", copy / "echostream", ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps"]
    run(*pip, "--no-build-isolation", "--no-index", "--wheel-dir", copy / "dist", copy, cwd=copy)
    (made,) = (copy / "dist").glob("echostream-*.whl")
    return made


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory) -> Path:
    """An interpreter with the wheel and the other packages of this environment, but without the repository."""
    folder = tmp_path_factory.mktemp("environment") / "with space"
    venv.create(folder, symlinks=True, with_pip=False)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    packages = folder / "lib" / version / "site-packages"
    # Folders named in a .pth file are searched, but .pth files in them are not: an editable install isn't found.
    here = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (packages / "others.pth").write_text("".join(f"{path}\n" for path in sorted(here)), encoding="utf-8")
    made = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", made, "install", "--quiet"]
    run(*pip, "--no-deps", "--no-index", "--ignore-installed", wheel, cwd=folder)
    return made


@pytest.fixture(scope="module")
def elsewhere(python, tmp_path_factory) -> Path:
    """A folder with only a checkpoint, whose training folder no longer exists, a vocoder and a recording."""
    spec = importlib.util.spec_from_file_location("tiny_corpus", REPOSITORY / "tests/tasks/conftest.py")
    tiny = importlib.util.module_from_spec(spec)
    sys.modules["tiny_corpus"] = tiny
    spec.loader.exec_module(tiny)
    work = tmp_path_factory.mktemp("training")
    data, other = work / "data", work / "other"
    for folder in ("data/audio", "data/source", "data/target", "other/tasks", "other/models"):
        (work / folder).mkdir(parents=True)
    random = np.random.default_rng(0)
    tiny.write_split(data, "train", 6, random)
    tiny.write_split(data, "valid", 1, random)
    np.savez(data / "gcmvn.npz", mean=np.full(80, 10.0, "float32"), std=np.full(80, 2.0, "float32"))
    for side, pieces in (("source", tiny.SOURCE), ("target", tiny.TARGET)):
        (data / f"{side}.txt").write_text("".join(f"{piece} 1\n" for piece in pieces), encoding="utf-8")
    (data / "config_gcmvn.yaml").write_text(tiny.GCMVN.format(audio_root="audio"), encoding="utf-8")
    (data / "config_multitask.yaml").write_text(tiny.MULTITASK, encoding="utf-8")
    for name, text in PLUGIN.items():
        (other / name).write_text(text, encoding="utf-8")
    output = run(python, "-P", "-c", TRAIN_BOTH, other, data, work / "saved", OPTIMISER, cwd=work)
    assert output.count("done training") == 2, output[-2_000:]
    folder = tmp_path_factory.mktemp("another machine")
    shutil.move(work / "saved/echostream/checkpoint_last.pt", folder / "model.pt")
    assert (work / "saved/other/checkpoint_last.pt").is_file()
    shutil.rmtree(work)
    vocoder = build_vocoder(
        {"type": "istft", "num_embeddings": 20, "channels": 8, "hidden_channels": 16, "layers": 1, "kernel_size": 5}
        | {"n_fft": 640, "spectra_per_frame": 2, "dur_predictor_params": DURATIONS}
    )
    save_vocoder(vocoder, folder / "voice")
    soundfile.write(folder / "source.wav", noise(0.8), 16_000)
    return folder


def test_wheel_has_exactly_the_files_of_the_package(wheel):
    here = {
        path.relative_to(REPOSITORY).as_posix()
        for path in (REPOSITORY / "echostream").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        there = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert there == here
    pages = {"serve/static/index.html", "serve/static/app.js", "export/page/index.html", "export/page/stream.js"}
    assert {f"echostream/{name}" for name in pages} <= there


def test_an_installed_command_translates_with_a_checkpoint_from_elsewhere(python, elsewhere, tmp_path):
    command = python.with_name("echostream")
    source, output = elsewhere / "source.wav", tmp_path / "out.wav"
    options = ["--model", elsewhere / "model.pt", "--vocoder", elsewhere / "voice", "--policy", "fixed-rate"]
    said = run(command, "translate", source, *options, "-o", output, cwd=tmp_path)
    assert "real-time factor" in said and soundfile.info(output).samplerate == 16_000


def test_installed_package_has_info_page_and_simuleval_agents(python, elsewhere, tmp_path):
    """The agents are given by class, because their files are in the checkout only."""
    for name, text in (("source", elsewhere / "source.wav"), ("target", "one two")):
        (tmp_path / name).write_text(f"{text}\n", encoding="utf-8")
    said = run(
        *(python, "-P", "-c", EVALUATE, elsewhere / "model.pt"),
        *("--agent-class", "echostream.evaluation.EchoStreamWordLevelAgent", "--vocoder", elsewhere / "voice"),
        *("--source", tmp_path / "source", "--target", tmp_path / "target", "--output", tmp_path / "out"),
        *("--source-segment-size", "320", "--policy", "fixed-rate"),
        *("--quality-metrics", "ECHO_BLEU", "--latency-metrics", "ECHO_RTF"),
        cwd=tmp_path,
    )
    assert f"installed in {python.parent.parent}" in said and "index.html" in said
    assert "ECHO_BLEU" in said and "ECHO_RTF" in said
    assert (tmp_path / "out/wavs/0_pred.wav").is_file()
