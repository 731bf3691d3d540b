"""Damaged and made-up files of models: a model, or one line; never a traceback, code, or much memory (Hypothesis).

The full count, 10,000 cases: ``ECHOSTREAM_FUZZ=deep python -m pytest tests/fuzz/test_hostile_models.py``
"""

from __future__ import annotations

import copy
import io
import json
import resource
import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml
from budget import cases
from hypothesis import event, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from model_files import save_model
from tiny_translator import VOCODERS, make_translator, noise

import echostream
from echostream.checkpoints.model_files import load_model, read_model, save_released
from echostream.streaming import EchoStreamState, StreamingTranslator

MAX_GROWN_KB = 600_000  # over all cases of a test, of which what Hypothesis keeps is a part


@cache
def good() -> Path:
    """A folder with a model in all its formats."""
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="echostream-fuzz-"))
    translator = make_translator("code_hifigan")
    save_model(translator, folder, "lag_k: 1\nsource_lm: lm.arpa\npolicy: alignment\npolicy_options: {stride_n: 1}\n")
    save_released(read_model(folder / "checkpoint.pt"), folder, echostream.__version__)
    ngrams = "".join(f"-1.0\t{symbol}\t-0.1\n" for symbol in translator.detector.symbols)
    head = f"\\data\\\nngram 1={len(translator.detector.symbols)}\nngram 2=1\n\n\\1-grams:\n"
    (folder / "lm.arpa").write_text(f"{head}{ngrams}\n\\2-grams:\n-0.5\t<s> </s>\n\n\\end\\\n", encoding="utf-8")
    assert not refusal(folder)
    return folder


def refusal(folder: Path) -> str:
    """What loading everything in a folder is refused with, in one printable line; nothing if it works."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    said = ""
    try:
        translator = StreamingTranslator.from_checkpoint(folder)
        load_model(folder / "model.safetensors")
        output = translator.step(noise(0.3), translator.init_state(), is_last=True)
        assert np.isfinite(output.samples).all()
    except ValueError as error:
        said = str(error)
        assert said and "\n" not in said and "weights_only" not in said, said
    event("refused" if said else "works")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MAX_GROWN_KB, said
    return said


def with_file(name: str, content: bytes) -> str:
    """The same with one file replaced."""
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "model"
        shutil.copytree(good(), folder)
        (folder / name).write_bytes(content)
        return refusal(folder)


def path_of(name: str) -> Path:
    return next(good().glob("voice/g_*")) if name == "voice" else good() / name


@st.composite
def damaged(draw, name: str) -> tuple[str, bytes]:
    """A file cut, with bytes replaced, put in, taken out or swapped."""
    path = path_of(name)
    content = bytearray(path.read_bytes())
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(content) - 1, 0)) | st.integers(0, 2_000).map(lambda n: min(n, len(content))))
        match draw(st.sampled_from(["cut", "replace", "insert", "remove", "repeat", "bit"])):
            case "cut":
                del content[at:]
            case "replace":
                new = draw(st.binary(min_size=1, max_size=8))
                content[at : at + len(new)] = new
            case "insert":
                content[at:at] = draw(st.binary(min_size=1, max_size=8))
            case "remove":
                del content[at : at + draw(st.integers(1, 400))]
            case "repeat":
                content[at:at] = content[at : at + draw(st.integers(1, 400))]
            case "bit" if at < len(content):
                content[at] ^= 1 << draw(st.integers(0, 7))
    return str(path.relative_to(good())), bytes(content)


@cases(14, 1500)
@given(st.sampled_from(["checkpoint.pt", "voice", "model.safetensors"]).flatmap(damaged))
def test_damaged_weights(file):
    with_file(*file)


@cases(24, 2500)
@given(st.sampled_from(["model.json", "model.yaml", "voice/config.json", "lm.arpa"]).flatmap(damaged))
def test_damaged_texts(file):
    with_file(*file)


numbers = st.integers() | st.sampled_from([0, -1, 1, 2**31, 2**63, 10**30, 10**400, 999_999]) | st.floats()
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=6) | st.sampled_from(["\x1b[31m", "../x", "a:b", "\0"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def changed(draw, options: dict) -> dict:
    """Options of which some are missing, others, or more."""
    options = copy.deepcopy(options)
    for _ in range(draw(st.integers(1, 3))):
        place = options
        while True:
            name = draw(st.sampled_from(sorted(place)) | st.text(max_size=5))
            if not isinstance(place.get(name), dict) or not place[name] or draw(st.booleans()):
                break
            place = place[name]
        if draw(st.integers(0, 4)):
            place[name] = draw(values)
        else:
            place.pop(name, None)
    return options


def as_json(content: dict) -> bytes:
    return json.dumps(content).encode()


@cases(20, 2000)
@given(st.sampled_from(sorted(VOCODERS)).flatmap(lambda kind: changed(VOCODERS[kind])))
def test_configurations_of_vocoders(config):
    with_file("voice/config.json", as_json(config))


@cases(14, 1500)
@given(st.data())
def test_settings_and_options_of_models(data):
    kind = data.draw(st.sampled_from(["model.yaml", "model.json", "checkpoint.pt"]))
    if kind == "model.yaml":
        settings = yaml.safe_load((good() / kind).read_text(encoding="utf-8")) | {"beam": 1, "segment_ms": 320}
        with_file(kind, yaml.safe_dump(data.draw(changed(settings)), allow_unicode=True).encode("utf-8", "replace"))
    elif kind == "model.json":
        with_file(kind, as_json(data.draw(changed(json.loads((good() / kind).read_text(encoding="utf-8"))))))
    else:
        content = torch.load(good() / kind, weights_only=True)
        content["cfg"]["model"] = data.draw(changed(content["cfg"]["model"]))
        file = io.BytesIO()
        torch.save(content, file)
        with_file(kind, file.getvalue())


KINDS = [torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.bool, torch.complex64, torch.float8_e5m2]


@st.composite
def tensors(draw, value: torch.Tensor) -> object:
    """A weight of another kind, shape, layout or content."""
    match draw(st.sampled_from(["kind", "shape", "layout", "content", "stride", "other"])):
        case "kind":
            return value.to(draw(st.sampled_from(KINDS)))
        case "shape":
            return torch.zeros(draw(st.lists(st.integers(0, 40), max_size=4)))
        case "layout":
            return draw(st.sampled_from([value.to_sparse(), value.to("meta"), torch.nested.nested_tensor([value])]))
        case "content":
            number = draw(st.floats() | st.sampled_from([1e15, 3e38, 1e-45]))
            return torch.where(torch.arange(value.numel()).view(value.shape) == 0, torch.tensor(number).double(), value)
        case "stride":
            return value.flatten()[:1].expand(draw(st.integers(1, 10**12)))
        case _:
            return draw(values.filter(lambda one: not isinstance(one, int) or abs(one) < 2**63))


@cases(20, 2000)
@given(st.data())
def test_weights_of_any_kind(data):
    name = data.draw(st.sampled_from(["checkpoint.pt", "voice", "model.safetensors"]))
    path = path_of(name)
    if name == "model.safetensors":
        weights = safetensors.torch.load_file(path)
        key = data.draw(st.sampled_from(sorted(weights)))
        try:
            content = safetensors.torch.save({**weights, key: data.draw(tensors(weights[key]))})
        except (ValueError, TypeError, RuntimeError, AttributeError, NotImplementedError, KeyError, MemoryError):
            return  # such a file can't be
    else:
        whole = torch.load(path, weights_only=True)
        weights = whole["generator" if name == "voice" else "model"]
        key = data.draw(st.sampled_from(sorted(weights)))
        weights[key] = data.draw(tensors(weights[key]))
        file = io.BytesIO()
        torch.save(whole, file)
        content = file.getvalue()
    with_file(str(path.relative_to(good())), content)


class Misuse(RuleBasedStateMachine):
    """Streams between whose pushes everything is done to them that they don't allow: they go on as if nothing was."""

    def __init__(self) -> None:
        super().__init__()
        self.made = make_translator("istft", segment_ms=120, policy="fixed-rate")
        self.streams: list[tuple[EchoStreamState, EchoStreamState, int]] = []

    @precondition(lambda self: len(self.streams) < 3)
    @rule(seed=st.integers(0, 3))
    def join(self, seed: int) -> None:
        self.streams.append((self.made.init_state(), self.made.init_state(), seed))

    @precondition(lambda self: self.streams)
    @rule(index=st.integers(0, 2), size=st.integers(0, 6_000), is_last=st.booleans())
    def push(self, index: int, size: int, is_last: bool) -> None:
        """The misused stream and the one that never was give the same."""
        index %= len(self.streams)
        state, untouched, seed = self.streams[index]
        wave = noise(0.4, seed)[:size]
        one, other = (self.made.step(wave, which, is_last) for which in (state, untouched))
        assert (one.text, one.source_text) == (other.text, other.source_text)
        np.testing.assert_array_equal(one.samples, other.samples)
        if is_last:
            self.streams.pop(index)

    @precondition(lambda self: self.streams)
    @rule(
        index=st.integers(0, 2),
        kind=st.sampled_from(["samples", "twice", "task", "lengths", "no state", "neighbour"]),
        number=st.floats().filter(lambda number: not abs(number) <= 16),
        dtype=st.sampled_from(["f4", "f8", "i2", "c8", "?"]),
    )
    def misuse(self, index: int, kind: str, number: float, dtype: str) -> None:
        state, _, seed = self.streams[index % len(self.streams)]
        good_wave = noise(0.2, seed)
        with np.errstate(all="ignore"):
            bad_wave = np.array([0.1, number, 0.1] * 50).astype(dtype)
        fresh = self.made.init_state()
        calls = {
            "samples": lambda: self.made.step(bad_wave, state),
            "twice": lambda: self.made.step_batch([good_wave] * 2, [state, state], [False] * 2),
            "task": lambda: self.made.view(task="asr").step(good_wave, state, is_last=True),
            "lengths": lambda: self.made.step_batch([good_wave], [state], [False, True]),
            "no state": lambda: self.made.step_batch([good_wave] * 2, [state, None], [False] * 2),
            "neighbour": lambda: self.made.step_batch([good_wave, bad_wave], [state, fresh], [True] * 2),
        }
        with pytest.raises(ValueError) as refused:
            calls[kind]()
        assert "\n" not in str(refused.value)


TestMisuse = Misuse.TestCase
TestMisuse.settings = cases(8, 500, stateful_step_count=12)
