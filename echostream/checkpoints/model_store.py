"""Where models are: by path, among those that were fetched, and in a checkout's folder ``models``.

Nothing here imports torch. A model of the store is a folder with ``model.yaml``, see
:mod:`echostream.checkpoints.model_folder`; its name is the folder's.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echostream.checkpoints.errors import CheckpointError, UnsafeFileError
from echostream.checkpoints.text_files import read_yaml
from echostream.installation import checkout_folder

SETTINGS_NAME = "model.yaml"
STORE_VARIABLE = "ECHOSTREAM_MODELS"
CHECKOUT_MODEL = "models/fr-en"
FETCH_HINT = "echostream models fetch URL --sha256 HEX"


def read_settings(file: Path) -> Any:
    """The values in a ``model.yaml``, whatever they are.

    Raises:
        CheckpointError: that file can't be read.
    """
    try:
        return read_yaml(file)
    except UnsafeFileError as error:
        raise CheckpointError(f"{file}: {error}") from error
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror or error}") from error


@dataclass(frozen=True)
class StoredModel:
    """A model that can be called by its name.

    Attributes:
        name: of its folder.
        path: its folder.
    """

    name: str
    path: Path

    @property
    def size_bytes(self) -> int:
        """Size of all its files."""
        return sum(path.stat().st_size for path in self.path.rglob("*") if path.is_file())

    @property
    def languages(self) -> str:
        """Such as ``fr to en``; empty if ``model.yaml`` doesn't say.

        Raises:
            CheckpointError: that file can't be read.
        """
        settings = read_settings(self.path / SETTINGS_NAME)
        tags = (settings.get("source_lang"), settings.get("target_lang")) if isinstance(settings, dict) else ()
        named = [tag for tag in tags if isinstance(tag, str) and tag]
        return " to ".join(named) if len(named) == 2 else ""


def store_folder() -> Path:
    """The folder that models are fetched into: ``$ECHOSTREAM_MODELS``, or ``echostream/models`` of the user's data."""
    if chosen := os.environ.get(STORE_VARIABLE):
        return Path(chosen).expanduser()
    data = os.environ.get("XDG_DATA_HOME", "")
    # The XDG Base Directory Specification: a relative path is to be ignored.
    return (Path(data) if Path(data).is_absolute() else Path.home() / ".local" / "share") / "echostream" / "models"


def search_folders() -> list[Path]:
    """Folders with models, those that come first before those that come later."""
    checkout = checkout_folder()
    return [store_folder(), *([checkout / "models"] if checkout is not None else [])]


def find_models() -> list[StoredModel]:
    """All models that can be called by name, in the order of their names."""
    found: dict[str, StoredModel] = {}
    for folder in search_folders():
        for path in _models_in(folder):
            found.setdefault(path.name, StoredModel(path.name, path))
    return [found[name] for name in sorted(found)]


def resolve_model(model: str | os.PathLike[str] | None = None) -> Path:
    """The folder or checkpoint that somebody means.

    Args:
        model: a path of a checkpoint or of a folder with ``model.yaml``, or the name of a model of the store; None
            stands for the only model that there is.

    Returns:
        A path; what is neither an existing path nor a known name and looks like a path is returned as it is, since
        whoever opens it can say best what is wrong.

    Raises:
        CheckpointError: no model, several where none was named, or a name that is not known.
    """
    if model is None:
        return _only_model()
    path = Path(model).expanduser()
    is_name = len(path.parts) == 1 and not path.suffix and path.name not in ("", ".", "..")
    if path.is_file() or (path / SETTINGS_NAME).is_file() or not is_name:
        return path
    models = {known.name: known.path for known in find_models()}
    if path.name in models:
        return models[path.name]
    if path.exists():
        return path
    near = difflib.get_close_matches(path.name, models, n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    known = ", ".join(models) or "none"
    raise CheckpointError(
        f"no model '{path.name}': {meant}There is no such file or folder, and the models known by name are: {known} "
        f"({FETCH_HINT} gets one)"
    )


def _only_model() -> Path:
    models = find_models()
    if len(models) == 1:
        return models[0].path
    if models:
        names = ", ".join(model.name for model in models)
        raise CheckpointError(f"there are several models: choose one of {names} by its name (--model {models[0].name})")
    places = " or ".join(str(folder) for folder in search_folders())
    raise CheckpointError(
        f"there is no model in {places}: name the folder of one with --model (a checkout of EchoStream has "
        f"{CHECKOUT_MODEL}), or get one with {FETCH_HINT}"
    )


def _models_in(folder: Path) -> Iterator[Path]:
    """Folders below ``folder`` that hold a model; hidden ones are unfinished or of others."""
    try:
        paths = sorted(folder.iterdir())
    except OSError:
        return
    for path in paths:
        if not path.name.startswith(".") and (path / SETTINGS_NAME).is_file():
            yield path
