"""Code of one's own: what an option names as ``module:name``, and the folder that ``--user-dir`` names.

Only the command line and Python may name code. What a file names is refused by whoever reads the file, because a model
that was downloaded must not choose what is imported.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

# Folders in which fairseq, too, imports every module of a user-dir.
REGISTERING = ("tasks", "models")


@dataclass(frozen=True)
class _FolderFinder:
    """Python's search for modules in one folder; where its own search finds them is left as it is.

    Args:
        folder: where to look.
        name: the only top-level module to find there; None: any.
    """

    folder: Path
    name: str | None = None

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The protocol of ``importlib.abc.MetaPathFinder``."""
        if path is not None or self.name not in (None, fullname):
            return None
        return PathFinder.find_spec(fullname, [str(self.folder)], target)


class PluginError(ValueError):
    """Code of the user's own that can't be loaded or used; one line that names it and the remedy."""


def names_code(name: str) -> bool:
    """Whether a name is of the form ``module:name``, which no name of a built-in has."""
    return ":" in name


def load_object(name: str, what: str) -> Any:
    """Import what ``module:name`` names.

    The module is looked for where Python looks for modules, and then in the working folder.

    Args:
        name: dotted module, colon, name in it.
        what: for the message, such as ``policy``.

    Raises:
        PluginError: no such module, no such name in it, or a module that can't be imported.
    """
    module_name, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), attribute)):
        raise PluginError(f"the {what} '{name}' is not of the form module:Class, such as my_package.my_module:MyClass")
    here = _FolderFinder(Path.cwd())
    if here not in sys.meta_path:
        sys.meta_path.append(here)
    module = _import(module_name, f"cannot load the {what} '{name}'")
    if not hasattr(module, attribute):
        raise PluginError(
            f"cannot load the {what} '{name}': {module.__file__ or module_name} has no '{attribute}' in it"
        )
    return getattr(module, attribute)


def import_user_dir(path: str | os.PathLike[str]) -> None:
    """Import a folder with code of one's own, which registers what is in it; a second time nothing happens.

    As fairseq's ``--user-dir`` does, this imports the folder as a package and, of its folders ``tasks`` and ``models``,
    every module.

    Raises:
        PluginError: no such folder, a package of this name that is another one, or code that can't be imported.
    """
    folder = Path(path).resolve()
    if not folder.is_dir():
        raise PluginError(f"--user-dir {path}: no such folder")
    if not folder.name.isidentifier():
        raise PluginError(f"--user-dir {path}: '{folder.name}' is not the name of a Python package: rename the folder")
    known = sys.modules.get(folder.name)
    if known is None:
        sys.meta_path.insert(0, _FolderFinder(folder.parent, folder.name))
    elif str(folder) not in [str(Path(place).resolve()) for place in getattr(known, "__path__", [])]:
        raise PluginError(f"--user-dir {path}: there is another package '{folder.name}' already: rename the folder")
    found = [folder.name]
    for registering in REGISTERING:
        modules = sorted((folder / registering).glob("[!_.]*.py"))
        found += [f"{folder.name}.{registering}.{file.stem}" for file in modules]
    for name in found:
        _import(name, f"--user-dir {path}")


def one_line(error: BaseException) -> str:
    """The kind of an error and the first line of what it says."""
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__


def _import(module: str, what_fails: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        if module == missing or module.startswith(f"{missing}."):
            raise PluginError(
                f"{what_fails}: there is no module '{missing}' on Python's path (PYTHONPATH) or in the working folder"
            ) from error
        raise PluginError(f"{what_fails}: {module} needs the module '{missing}', which is not installed") from error
    except Exception as error:  # whatever the user's own code raises while it is imported
        raise PluginError(f"{what_fails}: importing {module} fails with {one_line(error)}") from error
