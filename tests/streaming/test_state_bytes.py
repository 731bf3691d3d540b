"""A state that was saved continues identically, in this process and in another one; damaged files are refused."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from tiny_translator import make_translator, noise

from echostream.checkpoints.state_files import StateError
from echostream.decoding.policy import PolicyState
from echostream.streaming import StreamingTranslator
from echostream.streaming.state_bytes import model_fingerprint, state_from_bytes, state_to_bytes

REPOSITORY = Path(__file__).parents[2]
SAMPLES = noise(4.0, 3)
CONTINUE = """
import hashlib, sys
from pathlib import Path
import torch
from tiny_translator import make_translator, noise
from echostream.streaming.state_bytes import model_fingerprint, state_from_bytes
torch.set_num_threads(1)
folder, kind = Path(sys.argv[1]), sys.argv[2]
view = make_translator(kind).view(segment_ms=160, policy="fixed-rate")
state = state_from_bytes((folder / "state").read_bytes(), model_fingerprint(view))
out = view.step(noise(4.0, 3)[30_001:], state, is_last=True)
print(repr([out.words, out.source_words]), hashlib.sha256(out.samples.tobytes()).hexdigest())
"""


def started(view: StreamingTranslator, pushes: tuple[int, ...] = (9_999, 30_001)):
    """The state of a stream that has heard the first 30,001 samples, in the middle of a word and of a segment."""
    state = view.init_state()
    for start, end in zip((0, *pushes), pushes, strict=False):
        view.step(SAMPLES[start:end], state)
    return state


@pytest.mark.parametrize("vocoder", ["istft", "code_hifigan"])
@pytest.mark.parametrize("policy", ["alignment", "fixed-rate"])
def test_saved_state_continues_to_the_bit(vocoder, policy):
    view = make_translator(vocoder).view(segment_ms=160, policy=policy)
    state, fingerprint = started(view), model_fingerprint(view)
    data = state_to_bytes(state, fingerprint)
    again = state_from_bytes(data, fingerprint)
    assert len(state_to_bytes(again, fingerprint)) == len(data) and again.nbytes == state.nbytes
    assert len(data) < 1.2 * state.nbytes + 50_000
    expected, out = (view.step(SAMPLES[30_001:], one, is_last=True) for one in (state, again))
    assert out.words == expected.words and out.source_words == expected.source_words
    assert out.samples.tobytes() == expected.samples.tobytes()
    assert policy == "alignment" or (out.words and out.samples.size)


def test_another_process_continues_identically(tmp_path):
    view = make_translator("istft").view(segment_ms=160, policy="fixed-rate")
    state = started(view)
    (tmp_path / "state").write_bytes(state_to_bytes(state, model_fingerprint(view)))
    command = [sys.executable, "-c", CONTINUE, str(tmp_path), "istft"]
    environment = {
        "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}",
        "OMP_NUM_THREADS": "1",
        "PATH": "/usr/bin:/bin",
    }
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    out = view.step(SAMPLES[30_001:], state, is_last=True)
    assert out.words and out.samples.size
    said = f"{[out.words, out.source_words]!r} {hashlib.sha256(out.samples.tobytes()).hexdigest()}"
    assert done.stdout.strip() == said, done.stderr


def test_state_with_a_language_model_continues():
    """The model that ships: prefix beam search, sentence breaks, and a vocoder in the middle of a sentence."""
    translator = StreamingTranslator.from_pretrained(REPOSITORY / "models" / "fr-en")
    samples = np.concatenate([noise(0.3, 1) * 0.01, noise(1.5, 2)])
    state, fingerprint = translator.init_state(), model_fingerprint(translator)
    translator.step(samples, state)
    assert state.recogniser.transcript is not None and state.translation.breaks is not None
    again = state_from_bytes(state_to_bytes(state, fingerprint), fingerprint)
    expected, out = (translator.step(samples, one, is_last=True) for one in (state, again))
    assert out.words == expected.words and out.source_words == expected.source_words
    assert out.samples.tobytes() == expected.samples.tobytes()


def test_fingerprint_tells_models_apart():
    first = make_translator("istft")
    assert model_fingerprint(first) == model_fingerprint(first.view(segment_ms=40)), "options may change"
    other = StreamingTranslator.random("echostream_tiny", seed=5)
    data = state_to_bytes(first.init_state(), model_fingerprint(first))
    with pytest.raises(StateError, match="of another model"):
        state_from_bytes(data, model_fingerprint(other))


def changed(data: bytes, change) -> bytes:
    """A state file with a change to its header."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])["__metadata__"]
    structure = json.loads(header["structure"])
    change(header, structure)
    header["structure"] = header["structure"] if isinstance(structure, str) else json.dumps(structure)
    return safetensors.torch.save(safetensors.torch.load(data), header)


def _set(name, value):
    return lambda header, structure: header.__setitem__(name, value)


def _state(structure):
    return structure["dict"]["state"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: b"", "cut short"),
        (lambda data: data[:5_000], "damaged|cut short"),
        (lambda data: data[:-100], "damaged"),
        (lambda data: b"\x80\x04" + data, "cut short|damaged"),
        (lambda data: changed(data, _set("format", "pt")), "no state of a stream"),
        (lambda data: changed(data, _set("version", "2")), "of version '2', this program reads version 1"),
        (lambda data: changed(data, _set("model", "x")), "of another model"),
        (
            lambda data: changed(data, lambda _, s: _state(s).update({"class": "os:system"})),
            "os:system, which is no state",
        ),
        (lambda data: changed(data, lambda _, s: _state(s)["fields"].pop("task")), "other fields"),
        (lambda data: changed(data, lambda _, s: _state(s)["fields"].update(task={"eval": "1"})), "damaged|not known"),
        (lambda data: changed(data, lambda _, s: _state(s)["fields"].update(task={"tensor": 9999})), "damaged"),
        (lambda data: changed(data, lambda _, s: s["dict"].pop("state")), "holds no state"),
    ],
)
def test_damaged_states_are_refused_in_one_line(damage, said):
    view = make_translator("istft")
    data = state_to_bytes(view.init_state(), "model")
    with pytest.raises(StateError, match=said) as error:
        state_from_bytes(damage(data), "model")
    assert "\n" not in str(error.value)


def test_what_no_state_can_hold_is_refused():
    view = make_translator("istft")
    state = view.init_state()
    state.task = lambda: None
    with pytest.raises(TypeError, match="a state can't hold builtins:function"):
        state_to_bytes(state, "model")


def test_states_of_ones_own_policy_are_saved():
    from dataclasses import dataclass, replace

    @dataclass
    class Remembered(PolicyState):
        seen: tuple[float, ...] = (float("-inf"), 0.1)

    view = make_translator("istft")
    state = view.init_state()
    stage = state.translation
    state.translation = replace(stage, sentence=replace(stage.sentence, policy=Remembered(1)))
    again = state_from_bytes(state_to_bytes(state, "model"), "model")
    assert again.translation.sentence.policy == Remembered(1)
    assert torch.equal(again.translation.sentence.span.frames, stage.sentence.span.frames)
