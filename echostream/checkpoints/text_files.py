"""Reading JSON and YAML that others wrote: bounded in size, data alone, nothing expanded.

No module of a model's weights is imported here, so that commands which only look at folders answer at once.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NoReturn

import yaml

from echostream.checkpoints.errors import UnsafeFileError

MAX_YAML_BYTES = 65_536
MAX_JSON_BYTES = 16_777_216  # two dictionaries of 100,000 subwords have about 4 MB


class _PlainLoader(yaml.SafeLoader):
    """YAML's safe loader without aliases: with them a few lines can stand for any number of values."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise UnsafeFileError("it has an alias (*name), which is not read: write the value out")
        return super().compose_node(parent, index)


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """The values in a YAML file.

    Raises:
        UnsafeFileError: too large, not UTF-8, not YAML, or with aliases; in one line.
        OSError: missing, or not to be read.
    """
    text = _read_text(path, MAX_YAML_BYTES)
    try:
        return _PlainLoader(text).get_single_data()
    except UnsafeFileError:
        raise
    # RecursionError: nested too deep. The others come from values such as 0000-00-00, which look like a date.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UnsafeFileError(f"it is damaged: {_one_line(error)}") from error


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UnsafeFileError: too large, not UTF-8, not JSON, not an object, or with a key twice; in one line.
        OSError: missing, or not to be read.
    """
    text = _read_text(path, MAX_JSON_BYTES)
    try:
        content = json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_refuse_constant)
    except UnsafeFileError:
        raise
    except (ValueError, RecursionError) as error:
        raise UnsafeFileError(f"it is damaged: {_one_line(error)}") from error
    if not isinstance(content, dict):
        raise UnsafeFileError("it is not a JSON object")
    return content


def _read_text(path: str | os.PathLike[str], max_bytes: int) -> str:
    with Path(path).open("rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise UnsafeFileError(f"it has more than {max_bytes:,} bytes, which no such file needs")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnsafeFileError(f"it is damaged: not UTF-8 text at byte {error.start}") from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise UnsafeFileError(f"it has the key {repeated!r} twice")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise UnsafeFileError(f"it holds {name}, which is not a number of JSON")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
