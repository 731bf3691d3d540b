"""Words and samples do not depend on pushes, lengths, segments and batches (Hypothesis)."""

from __future__ import annotations

import copy
from dataclasses import fields
from functools import cache

import numpy as np
import pytest
import torch
from budget import cases
from hypothesis import event, example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from tiny_translator import make_translator, noise

from echostream.decoding.policy import POLICIES
from echostream.modules.fbank import num_frames
from echostream.streaming import StepOutput, StreamingTranslator

MAX_SAMPLES = 20_000
WAVES = [noise(MAX_SAMPLES / 16_000, seed) for seed in range(4)]
WAVES += [np.zeros(MAX_SAMPLES, np.float32), np.ones(MAX_SAMPLES, np.float32)]  # silence; a stuck converter
FLOAT32 = {"rtol": 0, "atol": 2e-6}  # tolerance for batches, whose matrix products may add in another order


@cache
def translator(vocoder: str = "istft", **settings) -> StreamingTranslator:
    torch.set_num_threads(1)
    return make_translator(vocoder).view(**settings)


@st.composite
def configured(draw, segments=(0, 1, 2, 3, 4, 5, 8, 13, 32)) -> StreamingTranslator:
    """A translator with the given options."""
    policy = draw(st.sampled_from(sorted(POLICIES)))
    options = {field.name for field in fields(POLICIES[policy])} & {"stride_n", "lag_k"}
    made = translator(
        draw(st.sampled_from(["istft", "code_hifigan"])),
        segment_ms=40 * draw(st.sampled_from(segments)),
        policy=policy,
        task=draw(st.sampled_from(["s2st", "s2st", "s2tt", "asr"])),
        **{name: draw(st.integers(1, 3)) for name in sorted(options)},
    )
    made.right_context_frames = draw(st.integers(0, 3))
    return made


lengths = st.integers(0, MAX_SAMPLES) | st.sampled_from([0, 1, 399, 400, 401, 559, 560, 639, 640, 641, 1_039, 1_040])
waves = st.builds(lambda wave, size: wave[:size], st.sampled_from(WAVES), lengths)
# Sorted cut positions; equal ones give empty pushes, and neighbouring ones give pushes of one sample.
cuts = st.lists(st.integers(0, MAX_SAMPLES), max_size=8) | st.builds(
    lambda at, count: [at + index for index in range(count)], st.integers(0, MAX_SAMPLES), st.integers(1, 20)
)


def merge(outs: list[StepOutput]) -> tuple[np.ndarray, list, list]:
    return (
        np.concatenate([np.zeros(0, np.float32), *(out.samples for out in outs)]),
        [word for out in outs for word in out.words],
        [word for out in outs for word in out.source_words],
    )


def whole(made: StreamingTranslator, wave: np.ndarray) -> tuple[np.ndarray, list, list]:
    return merge([made.step(wave, made.init_state(), is_last=True)])


def pieces_of(wave: np.ndarray, at: list[int]) -> list[np.ndarray]:
    return np.split(wave, sorted(min(cut, wave.size) for cut in at))


@cases(60)
@given(configured(), waves, cuts)
@example(translator(segment_ms=40), WAVES[0][:640], [640])  # the last push is empty
def test_stream_does_not_depend_on_pushes(made, wave, at):
    """Invariant 2, bit by bit."""
    state, outs = made.init_state(), []
    pieces = pieces_of(wave, at)
    for index, piece in enumerate(pieces):
        outs.append(made.step(piece, state, is_last=index == len(pieces) - 1))
    got, wanted = merge(outs), whole(made, wave)
    assert got[2] == wanted[2] and got[1] == wanted[1]
    np.testing.assert_array_equal(got[0], wanted[0])
    event("words" if got[1] else "no words")


@cases(40)
@given(configured(), waves, st.booleans())
def test_every_stream_is_flushed_to_its_end(made, wave, late):
    """Invariant 5: every frame is translated once, every word placed; the end may come with the audio or after it."""
    state = made.init_state()
    outs = [made.step(wave, state), made.step(wave[:0], state, is_last=True)] if late else []
    samples, words, source = merge(outs or [made.step(wave, state, is_last=True)])
    assert state.frames == -(-num_frames(wave.size) // 4)
    assert state.finished and not state.waiting_samples and (made.task == "asr" or not state.translation.output.waiting)
    assert np.isfinite(samples).all()
    for times in ([word.source_time_s for word in words], [edge for word in source for edge in vars_of(word)]):
        assert times == sorted(times) and all(0 <= time <= wave.size / 16_000 + 0.04 for time in times)
    if made.task == "s2st":
        edges = [edge for word in words for edge in vars_of(word)]
        assert edges == sorted(edges) and (not edges or edges[-1] <= samples.size / 16_000 + 1e-6)
    with pytest.raises(ValueError, match="has ended"):
        made.step(wave[:1], state)


def vars_of(word) -> tuple[float, float]:
    return word.start_s, word.end_s


@cases(30)
@given(configured(), waves, st.integers(0, MAX_SAMPLES))
def test_output_is_never_revised(made, wave, at):
    """Invariants 4 and 5: the output so far is a prefix of the output of any continuation."""
    state = made.init_state()
    early = merge([made.step(wave[:at], state)])
    fork = copy.deepcopy(state)
    for rest, branch in ((wave[at:], state), (WAVES[3][:5_000], fork)):
        full = merge([made.step(wave[:at], made.init_state())])
        assert full[1] == early[1]
        late = merge([made.step(rest, branch, is_last=True)])
        wanted = whole(made, np.concatenate([wave[:at], rest]))
        assert early[1] + late[1] == wanted[1] and early[2] + late[2] == wanted[2]
        np.testing.assert_array_equal(np.concatenate([early[0], late[0]]), wanted[0])


class Sessions(RuleBasedStateMachine):
    """Invariant 7: streams join, push, fork, leave and end in any order and in any batches."""

    def __init__(self) -> None:
        super().__init__()
        self.made = translator(segment_ms=120)
        self.sessions: list[dict] = []

    @precondition(lambda self: len(self.sessions) < 6)
    @rule(wave=st.sampled_from(range(len(WAVES))))
    def join(self, wave: int) -> None:
        self.sessions.append({"state": self.made.init_state(), "wave": wave, "at": 0, "outs": []})

    @precondition(lambda self: self.sessions)
    @rule(data=st.data())
    def step_some(self, data) -> None:
        """Push to some of the streams, and end some of these."""
        chosen = data.draw(st.lists(st.sampled_from(range(len(self.sessions))), unique=True), label="sessions")
        some = [self.sessions[index] for index in chosen]
        sizes = data.draw(st.lists(st.integers(0, 9_000), min_size=len(some), max_size=len(some)), label="samples")
        ends = data.draw(st.lists(st.booleans(), min_size=len(some), max_size=len(some)), label="ends")
        pushes = [WAVES[one["wave"]][one["at"] : one["at"] + size] for one, size in zip(some, sizes, strict=True)]
        outs = self.made.step_batch(pushes, [one["state"] for one in some], ends)
        for one, push, out, last in zip(some, pushes, outs, ends, strict=True):
            one["at"] += push.size
            one["outs"].append(out)
            if last:
                self.check(one)
        ended = [one for one, last in zip(some, ends, strict=True) if last]
        self.sessions = [one for one in self.sessions if not any(one is other for other in ended)]

    @precondition(lambda self: self.sessions)
    @rule(index=st.integers(0, 5))
    def fork(self, index: int) -> None:
        one = self.sessions[index % len(self.sessions)]
        self.sessions.append(one | {"state": copy.deepcopy(one["state"]), "outs": list(one["outs"])})

    @precondition(lambda self: self.sessions)
    @rule(index=st.integers(0, 5))
    def leave(self, index: int) -> None:
        self.sessions.pop(index % len(self.sessions))

    def check(self, one: dict) -> None:
        got, wanted = merge(one["outs"]), whole(self.made, WAVES[one["wave"]][: one["at"]])
        assert got[2] == wanted[2] and got[1] == wanted[1]
        np.testing.assert_allclose(got[0], wanted[0], **FLOAT32)

    def teardown(self) -> None:
        """End all remaining streams together."""
        states = [one["state"] for one in self.sessions]
        outs = self.made.step_batch([WAVES[0][:0]] * len(states), states, [True] * len(states))
        for one, out in zip(self.sessions, outs, strict=True):
            one["outs"].append(out)
            self.check(one)


TestSessions = Sessions.TestCase
TestSessions.settings = cases(20, stateful_step_count=12)


numbers = arrays.arrays(
    dtype=st.sampled_from(["f2", "f4", "f8", "i2", "u1", "c8", "?", "U3"]),
    shape=arrays.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=40),
)


@cases(60)
@given(numbers)
def test_arrays_are_accepted_or_rejected_in_one_line(array):
    made = translator(segment_ms=40)
    state = made.init_state()
    made.step(WAVES[0][:1_000], state)
    before = state.waiting_samples, state.frames
    try:
        made.step(array, state)
    except ValueError as error:
        assert len(str(error).splitlines()) == 1
        assert (state.waiting_samples, state.frames) == before
        event("refused")
    else:
        assert array.ndim == 1 and (not array.size or np.isfinite(array.astype("f4")).all())
        event("taken")
    assert np.isfinite(made.step(WAVES[0][1_000:3_000], state, is_last=True).samples).all()
