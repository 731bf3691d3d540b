"""``echostream export``: what is missing or in the way is said in one line."""

from __future__ import annotations

import importlib.util

import pytest
from model_files import save_model

from echostream.cli import export, main
from echostream.streaming import StreamingTranslator


@pytest.fixture
def model(tmp_path):
    (tmp_path / "tiny").mkdir()
    return save_model(StreamingTranslator.random("echostream_tiny"), tmp_path / "tiny")


def error_of(capsys, *arguments: str) -> str:
    assert main(["export", *map(str, arguments)]) != 0
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


def test_a_missing_package_is_named_with_the_extra(monkeypatch, capsys, tmp_path):
    find = importlib.util.find_spec
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name))
    error = error_of(capsys, "--output", tmp_path / "files")
    assert "needs the package onnxscript: pip install" in error and "[onnx]" in error


def test_what_is_in_the_way_is_named(monkeypatch, capsys, model, tmp_path):
    monkeypatch.setattr(export, "NEEDED", ("onnx",))
    error = error_of(capsys, "--model", model, "--output", model)
    assert f"{model} is there already, and not an empty folder" in error
    error = error_of(capsys, "--model", model, "--output", tmp_path / "files", "--segment-ms", "0")
    assert "choose a segment of at least one frame" in error
    error = error_of(capsys, "--model", tmp_path / "nothing", "--output", tmp_path / "files")
    assert "nothing" in error
    error = error_of(capsys, "--model", model, "--output", tmp_path / "files", "--page", model)
    assert f"{model} is not the unpacked npm package onnxruntime-web: 'npm pack onnxruntime-web' fetches it" in error
    assert not (tmp_path / "files").exists()
