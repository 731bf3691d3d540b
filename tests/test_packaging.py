"""Metadata, locks and versions agree with each other, and the check of this finds inconsistencies."""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from importlib.metadata import distribution
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import echostream

REPOSITORY = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TRAINING_ONLY = {"fairseq", "ve-fairseq", "torchaudio", "hydra-core", "omegaconf", "simuleval", "sentencepiece"}
A_PIN = r"^{name}==\S+( \\\n    --hash=\S+)+"


def check_lock(root: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, REPOSITORY / ".ci/check_lock.py", root]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A copy of the files that the check reads."""
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    shutil.copytree(REPOSITORY / "requirements", tmp_path / "requirements")
    return tmp_path


def replace(path: Path, pattern: str, replacement: str) -> None:
    text = path.read_text(encoding="utf-8")
    changed = re.sub(pattern, replacement, text, count=1, flags=re.MULTILINE)
    assert changed != text, f"{pattern} is not in {path.name}"
    path.write_text(changed, encoding="utf-8")


def test_locks_agree_with_the_metadata(checkout):
    for root in (REPOSITORY, checkout):
        done = check_lock(root)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("name", "pattern", "replacement", "message"),
    [
        ("pyproject.toml", r'"numpy>=1.26,<3"', '"numpy>=90"', r"all.txt: numpy is pinned to \S+, which is not >=90"),
        ("pyproject.toml", r'"pytest>=8,<9"', '"pytest<8"', r"all.txt: pytest is pinned to \S+, which is not <8"),
        ("pyproject.toml", r'"soxr>=0.5,<2",', r'\g<0> "another>=1",', "inference-cpu.txt: another>=1 is not pinned"),
        ("pyproject.toml", r'^serve = \["', r'\g<0>another", "', "demo.txt: another is not pinned"),
        ("pyproject.toml", r'"torch>=2.11,<2.15"', '"torch>=2.11,<2.12"', "torch-cpu.txt: torch is pinned to"),
        ("requirements/all.txt", A_PIN.format(name="soxr"), "soxr==1.1.0", "all.txt: soxr has no hash"),
        ("requirements/demo.txt", r"^(soxr==.*\n.*sha256:)\w{4}", r"\1", "demo.txt: soxr has a hash that is no sha256"),
        ("requirements/demo.txt", r"^(soxr==.*\n.*sha256:)\w{4}", r"\g<1>0000", "demo.txt: soxr has other hashes than"),
        ("requirements/demo.txt", r"^soxr==\S+", "soxr==0.5.0", "demo.txt: soxr is pinned to 0.5.0, in all.txt to"),
        ("requirements/demo.txt", r"^soxr==", "soxr>=", r"demo.txt: 'soxr>=\S+' is no pin"),
        ("requirements/all.txt", A_PIN.format(name="soxr"), "", r"all.txt: soxr\S+ is not pinned"),
        (
            "requirements/all.txt",
            r"^torchaudio==2.11.0",
            "torchaudio==2.11.1",
            r"all.txt: torch 2.11.0 and torchaudio 2.11.1 are of different releases",
        ),
        ("requirements/inference-cpu.txt", r"^soxr==", "torch==", "inference-cpu.txt: torch does not belong here"),
        (
            "requirements/installer.in",
            r"^pip>=\S+",
            "pip>=90",
            r"installer.txt: pip is pinned to \S+, which is not >=90",
        ),
    ],
)
def test_each_inconsistency_gives_one_line(checkout, name, pattern, replacement, message):
    replace(checkout / name, pattern, replacement)
    done = check_lock(checkout)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert any(re.search(message, line) for line in lines), done.stderr
    assert all(line.startswith("error: requirements/") and line.endswith(": run make lock") for line in lines)


def test_missing_lock_gives_one_line(checkout):
    (checkout / "requirements/demo.txt").unlink()
    done = check_lock(checkout)
    assert done.returncode == 1
    assert re.fullmatch(r"error: \S+/demo.txt: No such file or directory: run make lock\n", done.stderr)


def test_all_versions_agree():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))["version"]
    changelog = re.search(r"^## \[(\d\S*)\]", (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert changelog is not None
    found = {distribution("echostream").version, echostream.__version__, citation, changelog[1]}
    assert found == {echostream.__version__}, "after a new version: pip install --no-deps --editable ."


def test_inference_needs_no_packages_of_training():
    names = {Requirement(text).name for text in PROJECT["dependencies"]}
    assert not names & TRAINING_ONLY
    pins = re.findall(r"^([\w.-]+)==", (REPOSITORY / "requirements/inference-cpu.txt").read_text(), re.MULTILINE)
    assert pins and not set(pins) & TRAINING_ONLY


def build(kind: str, checkout: Path, folder: Path) -> zipfile.ZipFile:
    """Build a checkout with setuptools; kind is 'wheel' or 'editable'."""
    folder.mkdir()
    program = f"import sys; from setuptools import build_meta; build_meta.build_{kind}(sys.argv[1])"
    command = [sys.executable, "-c", program, folder]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (made,) = folder.glob("*.whl")
    return zipfile.ZipFile(made)


@pytest.mark.integration
def test_a_wheel_holds_the_package_alone_and_an_editable_install_the_whole_checkout(tmp_path):
    """The files of the package itself are compared in tests/test_compatibility.py."""
    checkout = tmp_path / "a checkout"
    checkout.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, checkout)
    for name in ("echostream", "scripts", "agent"):
        shutil.copytree(REPOSITORY / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    with build("wheel", checkout, tmp_path / "wheel") as wheel:
        information = f"echostream-{echostream.__version__}.dist-info"
        assert {Path(name).parts[0] for name in wheel.namelist()} == {"echostream", information}
        assert "echostream/py.typed" in wheel.namelist()
        metadata = Parser().parsestr(wheel.read(f"{information}/METADATA").decode())
        assert (metadata["Name"], metadata["Version"]) == ("echostream", echostream.__version__)
        assert metadata["License-Expression"] == "MIT"
        assert set(metadata.get_all("Provides-Extra")) == set(PROJECT["optional-dependencies"])
        assert b"echostream = echostream.cli:main" in wheel.read(f"{information}/entry_points.txt")
    with build("editable", checkout, tmp_path / "editable") as editable:
        paths = [name for name in editable.namelist() if ".dist-info/" not in name]
        assert len(paths) == 1 and paths[0].endswith(".pth")
        assert editable.read(paths[0]).decode().strip() == str(checkout)


@pytest.mark.parametrize("is_known", [True, False])
def test_the_installation_says_how_far_it_is_and_what_stopped_it(tmp_path, is_known):
    wheel = tmp_path / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as made:
        made.writestr("tiny.py", "")
        made.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        made.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        made.writestr("tiny-1.0.dist-info/RECORD", "")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest() if is_known else 64 * "0"
    (tmp_path / "lock.txt").write_text(f"tiny==1.0 --hash=sha256:{digest}\n")
    command = [REPOSITORY / "requirements/install.sh", sys.executable, tmp_path / "lock.txt", "--no-index"]
    command += ["--find-links", tmp_path, "--target", tmp_path / "made"]
    text = shlex.join(map(str, command))
    done = subprocess.run(["script", "-qec", text, "/dev/null"], capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == is_known and (tmp_path / "made/tiny.py").is_file() == is_known
    assert ("DO NOT MATCH THE HASHES" in done.stdout) != is_known
    assert " of 1 packages" in done.stdout and ("1 packages are installed" in done.stdout) == is_known
