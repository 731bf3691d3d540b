"""Samples that can't be any, states that are used wrongly and weights of another precision: recognised before anything
moves, in one line."""

import copy
import threading

import numpy as np
import pytest
import torch
from memory import little_memory  # noqa: F401  # of every test here
from tiny_translator import make_translator, noise

from echostream.constants import MAX_PEAK
from echostream.streaming import StreamingTranslator
from echostream.streaming import state as states_module


@pytest.fixture(scope="module")
def translator() -> StreamingTranslator:
    return make_translator("istft", segment_ms=160, policy="fixed-rate")


def outcome(translator, state, wave) -> tuple:
    output = translator.step(wave, state, is_last=True)
    return output.text, output.source_text, output.samples.tobytes()


def with_peak(value: float, count: int) -> np.ndarray:
    wave = noise(0.5).astype(np.float64)
    wave[4_000 : 4_000 + count] = value
    return wave


WRONG = {
    "one finite sample": (with_peak(1e15, 1), "samples reach 1e[+]15: floating point must lie in"),
    "a thousand of the largest": (with_peak(3e38, 1_000), "samples reach 3e[+]38"),
    "beyond float32": (with_peak(1e300, 1), "samples reach 1e[+]300"),
    "integers as floats": (with_peak(-20_000, 5), "divide integers by 32768"),
    "NaN": (with_peak(np.nan, 1), "NaN or infinity"),
    "integers": (np.zeros(9, np.int16), "floating point"),
    "complex": (np.zeros(9, np.complex64), "floating point"),
    "objects": (np.array([None, 1.0]), "floating point"),
    "two channels": (np.zeros((2, 9), np.float32), "one channel"),
    "ragged": ([[0.1], [0.1, 0.2]], "an array of floating point"),
    "nothing": (None, "one channel"),
    "bfloat16": (torch.zeros(9, dtype=torch.bfloat16), "dense tensor of floating point.*got bfloat16"),
    "float8": (torch.zeros(9).to(torch.float8_e4m3fn), "dense tensor of floating point"),
    "sparse": (torch.zeros(9).to_sparse(), "dense tensor.*sparse_coo"),
    "meta": (torch.zeros(9, device="meta"), "dense tensor.*on meta"),
    "quantised": (torch.quantize_per_tensor(torch.zeros(9), 0.1, 0, torch.qint8), "dense tensor.*qint8"),
}


@pytest.mark.parametrize("name", WRONG)
def test_samples_that_cannot_be_any_change_nothing(translator, name):
    samples, message = WRONG[name]
    state = translator.init_state()
    translator.step(noise(1.0), state)
    fork = copy.deepcopy(state)
    with pytest.raises(ValueError, match=message) as refused:
        translator.step(samples, state)
    assert "\n" not in str(refused.value)
    assert outcome(translator, state, noise(1.0, 1)) == outcome(translator, fork, noise(1.0, 1))


def test_loud_samples_of_any_dense_type_leave_a_stream_usable(translator):
    state = translator.init_state()
    for samples in (with_peak(MAX_PEAK, 1_000), noise(0.3).tolist(), torch.from_numpy(noise(0.3)).half()):
        translator.step(samples, state)
    assert np.isfinite(translator.step(noise(1.0), state, is_last=True).samples).all()


def test_one_bad_stream_is_named_and_the_step_can_be_tried_without_it(translator):
    states = [translator.init_state() for _ in range(3)]
    pieces = [noise(0.5, seed) for seed in range(3)]
    pieces[1] = with_peak(1e15, 1)
    with pytest.raises(ValueError, match=r"^stream 1 of the step: samples reach"):
        translator.step_batch(pieces, states, [False] * 3)
    assert [state.waiting_samples for state in states] == [0, 0, 0]
    del pieces[1], states[1]
    assert len(translator.step_batch(pieces, states, [True] * 2)) == 2


def test_misused_states_are_recognised_before_anything_moves(translator):
    state, other = translator.init_state(), translator.init_state()
    translator.step(noise(1.0), state)
    before = copy.deepcopy(state)
    heard = translator.view(task="asr")
    for call, message in (
        (lambda: translator.step_batch([noise(1.0)] * 2, [state, state], [False] * 2), "same state was given twice"),
        (lambda: heard.step(noise(1.0), state), "started for the task s2st and can't be stepped for asr"),
        (lambda: heard.step_batch([noise(1.0)] * 2, [heard.init_state(), state], [False] * 2), "stream 1 of the step"),
        (lambda: translator.step_batch([noise(1.0)], [state, other], [False]), "got 1, 2 and 1"),
        (lambda: translator.step(noise(1.0), None), "comes from init_state"),
        (lambda: translator.step(noise(1.0), state.fbank), "comes from init_state"),
    ):
        with pytest.raises(ValueError, match=message) as refused:
            call()
        assert "\n" not in str(refused.value)
    assert outcome(translator, state, noise(1.0, 1)) == outcome(translator, before, noise(1.0, 1))


def test_state_that_another_thread_steps_is_refused(translator):
    """Eight threads push the same audio into one state: those that come too early are told so, and lose nothing."""
    state, barrier = translator.init_state(), threading.Barrier(8)
    taken, refused = [], []

    def push(seed: int) -> None:
        barrier.wait()
        for _ in range(3):
            try:
                taken.append(translator.view(segment_ms=160).step(noise(0.64), state))
            except ValueError as error:
                refused.append(str(error))

    threads = [threading.Thread(target=push, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) + len(refused) == 24 and taken and refused
    assert all("is being stepped by another thread" in message for message in refused)
    assert not states_module._STEPPING
    alone = translator.init_state()
    expected = [translator.step(noise(0.64), alone) for _ in taken]
    assert [out.text for out in taken] == [out.text for out in expected]
    assert state.frames == alone.frames and state.waiting_samples == alone.waiting_samples


def test_threads_with_a_state_each_do_not_disturb_each_other(translator):
    """What each of four streams says, stepped by a thread of its own at the same time, is what it says alone."""
    barrier, together = threading.Barrier(4), {}

    def said(stream: int) -> list[tuple[str, str, bytes]]:
        state = translator.init_state()
        outputs = [translator.step(noise(0.4, 10 * stream + step), state, step == 4) for step in range(5)]
        return [(output.text, output.source_text, output.samples.tobytes()) for output in outputs]

    def run(stream: int) -> None:
        barrier.wait()
        together[stream] = said(stream)

    threads = [threading.Thread(target=run, args=(stream,)) for stream in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone = {stream: said(stream) for stream in range(4)}
    assert together == alone and len({tuple(outputs) for outputs in alone.values()}) == 4


def test_failed_step_gives_its_states_back(translator, monkeypatch):
    state = translator.init_state()
    monkeypatch.setattr(translator.model.encoder, "forward", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        translator.step(noise(1.0), state)
    monkeypatch.undo()
    assert state.waiting_samples == 0
    assert translator.step(noise(1.0), state, is_last=True).source_words


@pytest.mark.parametrize("part", ["model", "vocoder"])
@pytest.mark.parametrize("precision", ["half", "bfloat16", "double"])
def test_other_precisions_run_or_are_refused_in_one_line(part, precision):
    made = make_translator("istft", segment_ms=160, policy="fixed-rate")
    expected = made.step(noise(1.5), made.init_state(), is_last=True)
    getattr(getattr(made, part), precision)()
    if precision == "double":
        out = made.step(noise(1.5), made.init_state(), is_last=True)
        assert out.text == expected.text and out.samples.dtype == np.float32
        np.testing.assert_allclose(out.samples, expected.samples, atol=1e-3)
        return
    kind = precision.replace("half", "float16")
    with pytest.raises(ValueError, match=f"the {part}'s weights are {kind}, not float32: call {part}.float()"):
        made.step(noise(1.5), made.init_state(), is_last=True)
