"""Reading JSON, YAML and lines of text that others wrote: bounded in size, data alone, nothing expanded.

No module of a model's weights is imported here, so that commands which only look at folders answer at once.
"""

from __future__ import annotations

import gzip
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import yaml

from echostream.checkpoints.errors import UnsafeFileError

MAX_YAML_BYTES = 65_536
MAX_JSON_BYTES = 16_777_216  # two dictionaries of 100,000 subwords have about 4 MB
MAX_LINE_BYTES = 65_536
LARGEST_INTEGER = 2**53  # beyond it JSON's numbers are no longer exact, and no setting is that large


class _PlainLoader(yaml.SafeLoader):
    """YAML's safe loader without aliases: with them a few lines can stand for any number of values."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise UnsafeFileError("it has an alias (*name), which is not read: write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        _refuse_repeats(names)
        return super().construct_mapping(node, deep)


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """The values in a YAML file.

    Raises:
        UnsafeFileError: too large, not UTF-8, not YAML, with aliases, keys or numbers that no setting has;
            in one line.
        OSError: missing, or not to be read.
    """
    text = read_text(path, MAX_YAML_BYTES)
    try:
        content = _PlainLoader(text).get_single_data()
    except UnsafeFileError:
        raise
    # RecursionError: nested too deep. The others come from values such as 0000-00-00, which look like a date.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UnsafeFileError(f"it is damaged: {_one_line(error)}") from error
    _check_values(content)
    return content


def read_json(path: str | os.PathLike[str], max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UnsafeFileError: too large, not UTF-8, not JSON, not an object, with a key twice or numbers that no setting has;
            in one line.
        OSError: missing, or not to be read.
    """
    text = read_text(path, max_bytes)
    try:
        content = json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_refuse_constant)
    except UnsafeFileError:
        raise
    except (ValueError, RecursionError) as error:
        raise UnsafeFileError(f"it is damaged: {_one_line(error)}") from error
    if not isinstance(content, dict):
        raise UnsafeFileError("it is not a JSON object")
    _check_values(content)
    return content


def read_lines(path: str | os.PathLike[str]) -> Iterator[str]:
    """The lines of a text file without the spaces around them, decompressed if its name ends in ``.gz``.

    Never more than a line is held, so that memory does not grow with what a small file decompresses to.

    Raises:
        UnsafeFileError: a line that no such file has, or not UTF-8; in one line.
        OSError, EOFError, zlib.error: missing, not to be read, or damaged in its compression.
    """
    path = Path(path)
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise UnsafeFileError(f"line {number} has more than {MAX_LINE_BYTES:,} bytes, which no such file needs")
            try:
                yield line.decode("utf-8").strip(" \t\r\n")
            except UnicodeDecodeError as error:
                raise UnsafeFileError(f"it is damaged: not UTF-8 text in line {number}") from error


def read_text(path: str | os.PathLike[str], max_bytes: int) -> str:
    """All of a small text file; no more than ``max_bytes`` are ever read of one that has no end.

    Raises:
        UnsafeFileError: larger than that, or not UTF-8; in one line.
        OSError: missing, or not to be read.
    """
    with Path(path).open("rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise UnsafeFileError(f"it has more than {max_bytes:,} bytes, which no such file needs")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnsafeFileError(f"it is damaged: not UTF-8 text at byte {error.start}") from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _refuse_repeats([name for name, _ in pairs])
    return dict(pairs)


def _refuse_repeats(names: list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UnsafeFileError(f"it has the key {name[:80]!r} twice")
        seen.add(name)


def _check_values(content: Any) -> None:
    """Refuse names that can't be printed, and numbers that are infinite or too large for what computes with them."""
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if odd := [name for name in value if isinstance(name, str) and not name.isprintable()]:
                raise UnsafeFileError(f"it has the key {odd[0][:80]!r}, which can't be printed")
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set):
            waiting += value
        elif isinstance(value, float) and not math.isfinite(value):
            raise UnsafeFileError(f"it holds the number {value}, which no setting can be")
        elif isinstance(value, int) and abs(value) > LARGEST_INTEGER:
            raise UnsafeFileError(f"it holds a whole number of {len(str(abs(value)))} digits, which no setting needs")


def _refuse_constant(name: str) -> NoReturn:
    raise UnsafeFileError(f"it holds {name}, which is not a number of JSON")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
