"""The model that ships, exported once for all tests of a process."""

from pathlib import Path

import pytest
from shipped_model import MODEL

from echostream.cli import main


@pytest.fixture(scope="session")
def exported(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "fr-en-onnx"
    assert main(["export", "--model", str(MODEL), "--output", str(folder), "--precision", "int8", "-q"]) == 0
    return folder
