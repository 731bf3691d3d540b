"""Saved states with damage of any kind: taken as they were, or refused in one line (Hypothesis)."""

from __future__ import annotations

import json

import pytest
import safetensors.torch
from budget import cases
from hypothesis import event, given
from hypothesis import strategies as st
from tiny_translator import make_translator, noise

from echostream.checkpoints.state_files import StateError
from echostream.streaming import EchoStreamState
from echostream.streaming.state_bytes import state_from_bytes, state_to_bytes

ODD = [
    None,
    True,
    -1,
    2**70,
    "",
    "\ud800",
    [],
    [1],
    {},
    {"tuple": [1]},
    {"class": "os:system", "fields": {}},
    {"tensor": 0},
]
ODD += [{"float": "nan"}, {"dict": {"a": 1}}, {"array": "x"}, {"list": {"list": []}}, {"a": 1, "b": 2}, 0.5]


@pytest.fixture(scope="module")
def saved():
    translator = make_translator("istft", policy="fixed-rate", segment_ms=160)
    state = translator.init_state()
    translator.step(noise(1.0), state)
    return state_to_bytes(state, "tiny")


def read(data: bytes) -> None:
    """Read a file that may be damaged."""
    try:
        state = state_from_bytes(data, "tiny")
    except StateError as error:
        text = str(error).encode(errors="replace").decode()
        assert "\n" not in text and len(text) < 300
        event("refused")
    else:
        assert isinstance(state, EchoStreamState)
        event("taken")


@cases(150)
@given(data=st.data())
def test_damaged_bytes(saved, data):
    damaged = bytearray(saved)
    for _ in range(data.draw(st.integers(1, 4))):
        where = st.integers(0, min(len(damaged) - 1, 9_000)) | st.integers(0, len(damaged) - 1)
        at = data.draw(where)
        kind = data.draw(st.sampled_from(["change", "cut", "insert", "drop"]))
        if kind == "change":
            damaged[at] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            damaged = damaged[: at + 1]
        elif kind == "insert":
            damaged[at:at] = data.draw(st.binary(max_size=9))
        elif len(damaged) > at + 8:
            del damaged[at : at + 7]
    read(bytes(damaged))


def places(value: object, path: tuple = ()) -> list[tuple]:
    """Paths of all values in a structure."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += places(item, (*path, key))
    return found


@cases(150)
@given(data=st.data())
def test_changed_structures(saved, data):
    size = int.from_bytes(saved[:8], "little")
    header = json.loads(saved[8 : 8 + size])["__metadata__"]
    structure = json.loads(header["structure"])
    for _ in range(data.draw(st.integers(1, 3))):
        *path, last = data.draw(st.sampled_from(places(structure)))
        inner = structure
        for key in path:
            inner = inner[key]
        if isinstance(inner, dict) and data.draw(st.booleans()):
            del inner[last]
        else:
            inner[last] = json.loads(json.dumps(data.draw(st.sampled_from(ODD))))
        if not places(structure):
            break
    header["structure"] = json.dumps(structure)
    read(safetensors.torch.save(safetensors.torch.load(saved), header))
