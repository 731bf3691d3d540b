"""The speech gate: what passes depends on the audio alone, speech passes whole, and times are those of the source."""

import importlib
import sys
from dataclasses import replace

import numpy as np
import pytest
from shipped_model import short_samples
from tiny_translator import make_translator, noise

from echostream.constants import SAMPLE_RATE
from echostream.streaming import StreamingTranslator
from echostream.streaming.recomposer import NO_SAMPLES
from echostream.streaming.speech_gate import CLOCK_S, LEAD, TRAIL_S, WINDOW, SpeechGate, SpeechGateState
from echostream.streaming.state_bytes import model_fingerprint, state_from_bytes, state_to_bytes

GAP_S = 8


@pytest.fixture(scope="module")
def gate() -> SpeechGate:
    for package in ("silero_vad", "onnxruntime"):
        pytest.importorskip(package, reason="needs the extra vad")
    return SpeechGate()


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return short_samples(1)[0].wave


def quiet(seconds: float, seed: int = 0) -> np.ndarray:
    """A quiet room, float32 ``(n,)``."""
    return (3e-4 * np.random.default_rng(seed).standard_normal(round(seconds * SAMPLE_RATE))).astype(np.float32)


@pytest.fixture(scope="module")
def talk(speech) -> np.ndarray:
    """Somebody who speaks after 8 s, and again after 8 more."""
    return np.concatenate([quiet(GAP_S), speech, quiet(GAP_S, 1), speech, quiet(GAP_S, 2)])


@pytest.fixture(scope="module")
def translator(gate) -> StreamingTranslator:
    return make_translator(policy="fixed-rate", segment_ms=160, vad=True)


def test_what_passes_does_not_depend_on_pushes(gate, talk):
    whole, end = gate.step(talk, gate.init_state(), is_last=True)
    assert 0 < whole.size < talk.size - 2 * GAP_S * SAMPLE_RATE // 2
    for push in (1_000, 12_345):
        state, passed = gate.init_state(), []
        for start in range(0, talk.size, push):
            before = replace(state)
            pieces, following = gate.step(talk[start : start + push], state, TRAIL_S, start + push >= talk.size)
            assert all(getattr(before, name) is value for name, value in vars(state).items()), "it has changed"
            state = following
            passed.append(pieces)
        assert np.array_equal(np.concatenate(passed), whole)
        assert np.array_equal(state.hidden, end.hidden) and (state.given, state.cuts) == (end.given, end.cuts)


def test_speech_passes_whole_and_its_place_is_known(gate, talk, speech):
    passed, state = gate.step(talk, gate.init_state(), is_last=True)
    assert len(state.cuts) == 2 and state.given <= passed.size < state.given + WINDOW
    for number, (given, left_out) in enumerate(state.cuts):
        start = GAP_S * SAMPLE_RATE + number * (speech.size + GAP_S * SAMPLE_RATE)
        place = given + left_out  # in the source
        assert place <= start + 4 * WINDOW, "a lead comes before the first window of speech"
        loud = np.flatnonzero(np.abs(speech) > 0.1 * np.abs(speech).max())
        own = talk[start + loud[0] : start + loud[-1]]
        at = start + loud[0] - left_out
        assert np.array_equal(passed[at : at + own.size], own)
        time_s = (given + 1) / SAMPLE_RATE
        assert state.source_time_s(time_s) == pytest.approx(time_s + left_out / SAMPLE_RATE)
    given, left_out = state.cuts[1]
    first = state.cuts[0][1] / SAMPLE_RATE
    assert state.source_time_s(given / SAMPLE_RATE) == pytest.approx(given / SAMPLE_RATE + first)
    assert state.source_time_s(given / SAMPLE_RATE, begins=True) == pytest.approx((given + left_out) / SAMPLE_RATE)


@pytest.mark.parametrize("kind", ["silence", "room", "noise"])
def test_what_is_no_speech_costs_no_step_and_says_nothing(translator, kind):
    audio = {
        "silence": np.zeros(20 * SAMPLE_RATE, np.float32),
        "room": quiet(20),
        "noise": (0.1 * np.random.default_rng(0).standard_normal(20 * SAMPLE_RATE)).astype(np.float32),
    }[kind]
    state = translator.init_state()
    outputs = [translator.step(piece, state) for piece in np.array_split(audio, 50)]
    assert state.frames == 0, "the encoder was at work"
    assert state.gate.lead.size <= LEAD and state.nbytes < 500_000
    outputs.append(translator.step(NO_SAMPLES, state, is_last=True))
    assert not any(output.words or output.samples.size or output.source_words for output in outputs)
    free = replace(translator.init_state(), gate=None)
    assert translator.step(audio, free, is_last=True).words, "the example shows nothing: this model writes on anything"


def test_the_translation_is_that_of_what_passes_on_the_clock_of_the_source(translator, talk, gate):
    passed, _ = gate.step(talk, gate.init_state(), TRAIL_S + 0.2, is_last=True)
    plain = translator.step(passed, replace(translator.init_state(), gate=None), is_last=True)
    whole = translator.step(talk, translator.init_state(), is_last=True)
    assert np.array_equal(whole.samples, plain.samples) and whole.text == plain.text != ""
    assert whole.sentence_ends == plain.sentence_ends
    assert [word.text for word in whole.source_words] == [word.text for word in plain.source_words]
    shifts = [
        round(ours.start_s - theirs.start_s, 3)
        for ours, theirs in zip(whole.source_words, plain.source_words, strict=True)
    ]
    assert shifts == sorted(shifts) and 5 < shifts[0] < GAP_S < shifts[-1]
    for word in whole.source_words:
        assert word.end_s <= talk.size / SAMPLE_RATE
    times = [word.source_time_s for word in whole.words]
    assert times == sorted(times) and times[0] > GAP_S - 0.5


def test_pushes_and_the_bytes_of_states_change_nothing(translator, talk):
    whole = translator.step(talk, translator.init_state(), is_last=True)
    mark = model_fingerprint(translator)
    assert mark != model_fingerprint(make_translator(policy="fixed-rate", segment_ms=160))
    state, words, source_words, pieces = translator.init_state(), [], [], []
    at = 0
    while at < talk.size:
        needed = translator.missing_samples(state)
        assert 0 < needed <= SAMPLE_RATE, "as a server would push"
        output = translator.step(talk[at : at + needed], state, at + needed >= talk.size)
        at += needed
        words, source_words = words + output.words, source_words + output.source_words
        pieces.append(output.samples)
        if not state.finished:
            state = state_from_bytes(state_to_bytes(state, mark), mark)
    assert (words, source_words) == (whole.words, whole.source_words)
    assert np.array_equal(np.concatenate(pieces), whole.samples)


def test_batched_streams_with_gates_equal_single_ones(translator, talk):
    waves = [talk, talk[3 * SAMPLE_RATE :]]
    alone = [translator.step(wave, translator.init_state(), is_last=True) for wave in waves]
    states = [translator.init_state() for _ in waves]
    words: list[list] = [[], []]
    for start in range(0, talk.size, 20_000):
        outputs = translator.step_batch([wave[start : start + 20_000] for wave in waves], states, [False, False])
        for own, output in zip(words, outputs, strict=True):
            own += output.words
    for own, state, expected in zip(words, states, alone, strict=True):
        assert own + translator.step(NO_SAMPLES, state, is_last=True).words == expected.words


def test_cuts_are_forgotten_when_no_word_can_be_so_old():
    state = SpeechGateState(cuts=tuple((second * SAMPLE_RATE, 10 * second * SAMPLE_RATE) for second in range(1, 500)))
    late = state.since(400.0)
    assert len(late.cuts) == 101
    for time_s in (400.0, 400.5, 450.0, 499.9):
        assert late.source_time_s(time_s) == state.source_time_s(time_s)
    assert state.since(0.5) is state and CLOCK_S > TRAIL_S


def test_missing_packages_are_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"^the speech gate needs .*'\.\[vad\]'$"):
        make_translator(vad=True)
    monkeypatch.undo()
    pytest.importorskip("onnxruntime")
    real = importlib.util.find_spec
    module = "echostream.streaming.speech_gate.find_spec"
    monkeypatch.setattr(module, lambda name: None if name == "silero_vad" else real(name))
    with pytest.raises(ValueError, match="silero-vad"):
        make_translator(vad=True)


def test_a_state_with_a_gate_is_not_taken_without_one(translator):
    state = translator.init_state()
    with pytest.raises(ValueError, match="started with a speech gate"):
        make_translator(policy="fixed-rate", segment_ms=160).step(noise(0.1), state)
