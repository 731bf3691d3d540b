"""``echostream models``: lists models, and fetches others completely or not at all."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from model_files import save_model

from echostream.checkpoints.model_store import find_models
from echostream.cli import main
from echostream.streaming import StreamingTranslator


@pytest.fixture
def store(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("ECHOSTREAM_MODELS", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    folder.mkdir()
    return save_model(StreamingTranslator.random("echostream_tiny"), folder, "source_lang: fr\ntarget_lang: en\n")


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def packed(model: Path, path: Path) -> tuple[str, str]:
    """An archive of the model: its URL and its digest."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in model.rglob("*"):
                archive.write(file, Path("tiny") / file.relative_to(model))
    else:
        with tarfile.open(path, "w:gz") as archive:
            archive.add(model, "tiny")
    return path.as_uri(), digest_of(path)


@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
def test_fetched_model_is_found_by_name_and_translates(store, model, tmp_path, suffix, capsys):
    url, digest = packed(model, tmp_path / f"archive{suffix}")
    assert main(["models", "fetch", url, "--sha256", digest.upper()]) == 0
    assert capsys.readouterr().out.strip() == str(store / "tiny")
    assert [path.name for path in store.iterdir()] == ["tiny"], "something was left behind"
    assert main(["models"]) == 0
    assert "tiny                 fr to en" in capsys.readouterr().out
    assert {known.name for known in find_models()} == {"tiny", "fr-en"}
    assert StreamingTranslator.from_pretrained("tiny").vocoder is not None
    assert main(["models", "fetch", url, "--sha256", digest]) == 1
    assert "already: choose another --name" in capsys.readouterr().err
    assert main(["models", "fetch", url, "--sha256", digest, "--name", "other"]) == 0
    assert main(["models", "path", "other"]) == 0
    assert main(["models", "path", "../other"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "error: no model at ../other"
    # With two fetched models and that of the checkout, the user has to choose.
    assert main(["info"]) == 1
    assert "there are several models: choose one of fr-en, other, tiny" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["translate a.wav", "asr a.wav", "speak hello -o a.wav", "serve", "info"])
def test_without_a_model_one_line_says_how_to_get_one(tmp_path, monkeypatch, command, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("echostream.checkpoints.model_store.search_folders", lambda: [tmp_path])
    soundfile.write("a.wav", np.zeros(1600), 16_000)
    assert main(command.split()) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "echostream models fetch" in said and "models/fr-en" in said


def test_wrong_archive_leaves_no_files(store, model, tmp_path, capsys):
    url, digest = packed(model, tmp_path / "archive.tar.gz")
    settings = model / "model.yaml"
    for address, wanted, message in (
        (url, "0" * 64, f"its SHA-256 is {digest}"),
        (url, "abc", "takes 64 hexadecimal digits"),
        ((tmp_path / "nothing.tar").as_uri(), digest, "cannot fetch"),
        ("ftp://example.org/a.tar", digest, "must begin with https:, http: or file:"),
        (settings.as_uri(), digest_of(settings), "no archive"),
    ):
        assert main(["models", "fetch", address, "--sha256", wanted]) in (1, 2)
        assert message in capsys.readouterr().err
    assert not list(store.glob("*"))


@pytest.mark.parametrize("name", ["../outside", "/outside", "tiny/../../outside"])
def test_archive_cannot_write_outside_its_folder(store, tmp_path, name, capsys):
    path = tmp_path / "archive.tar"
    with tarfile.open(path, "w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = 1
        archive.addfile(entry, io.BytesIO(b"x"))
    assert main(["models", "fetch", path.as_uri(), "--sha256", digest_of(path)]) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert not list(tmp_path.rglob("outside")) and not list(store.glob("*"))


def test_archive_with_a_link_is_rejected(store, tmp_path, capsys):
    path = tmp_path / "archive.tar"
    with tarfile.open(path, "w") as archive:
        entry = tarfile.TarInfo("tiny/model.yaml")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(entry)
    assert main(["models", "fetch", path.as_uri(), "--sha256", digest_of(path)]) == 1
    assert "neither a file nor a folder" in capsys.readouterr().err
    assert not list(store.glob("*"))
