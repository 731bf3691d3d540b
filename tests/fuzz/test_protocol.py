"""WebSocket messages, parsed without a socket: random messages get an answer of docs/protocol.md (Hypothesis)."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from budget import cases
from hypothesis import event, example, given
from hypothesis import strategies as st
from tiny_translator import make_translator

from echostream.constants import MAX_LIVE_SEGMENT_MS
from echostream.decoding.policy import POLICIES
from echostream.serve.limits import Meter
from echostream.serve.protocol import (
    MAX_POLICY_STEP,
    MAX_SAMPLE_RATE,
    MIN_SAMPLE_RATE,
    CloseCode,
    SessionError,
    Settings,
    close_reason,
    parse,
    parse_resume,
    parse_start,
    pcm_to_samples,
)

DEPTHS = [2, 50, 300, 700, *range(900, 1_000, 3), 5_000]
nested = st.builds(
    lambda depth, pair: pair[0] * depth + pair[1] * depth,
    st.sampled_from(DEPTHS),
    st.sampled_from([("[", "]"), ('{"a":', "}")]),
)
# Valid JSON, and what Python's reader also accepts: NaN, lone surrogates, numbers of any length, repeated keys.
ODD = 'NaN -Infinity 1e999 1.0 -0 true null "" "\\ud800" [] {} "pcm_s16le" "\\u0000" "é" "start" ["start"] 160 2'
odd = st.sampled_from([*ODD.split(" "), "9" * 30, "9" * 5_000])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
).map(json.dumps)
sane = {
    "type": st.sampled_from(['"start"'] * 6 + ['"resume"'] * 3 + ['"end"', '"Start"']),
    "version": st.sampled_from(["1"] * 5 + ["2"]),
    "sample_rate": st.integers(7_999, 192_001).map(str) | st.sampled_from(["16000", "48000"]),
    "format": st.just('"pcm_s16le"'),
    "segment_ms": st.integers(0, 130).map(lambda frames: str(40 * frames)) | st.integers(0, 400).map(str),
    "policy": st.sampled_from([*POLICIES, "guess"]).map(json.dumps),
    "stride_n": st.integers(0, 101).map(str),
    "lag_k": st.integers(-1, 101).map(str) | st.just("null"),
    "task": st.sampled_from(["s2st", "s2tt", "asr", "tts"]).map(json.dumps),
    "resumable": st.sampled_from(["true", "false", "1"]),
    "resume_token": st.text("0123456789abcdefG", min_size=31, max_size=33).map(json.dumps),
    "seq": st.integers(-1, 10**13).map(str),
    "token": st.text(max_size=40).map(json.dumps),
}
ALWAYS = ("type", "sample_rate", "resume_token", "seq")
RESUME_FIELDS = ("type", "version", "resume_token", "seq", "token")
START_FIELDS = tuple(name for name in sane if name not in ("resume_token", "seq"))


@st.composite
def starts(draw) -> str:
    """Text of a start or resume message, possibly with invalid fields."""
    fields = draw(st.sampled_from([START_FIELDS, START_FIELDS, RESUME_FIELDS]))
    names = [name for name in fields if name in ALWAYS or draw(st.booleans())]
    pairs = [[json.dumps(name), draw(sane[name])] for name in names]
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        change = draw(st.sampled_from(["value", "value", "name", "repeat", "drop"]))
        pair = pairs[draw(st.integers(0, len(pairs) - 1))]
        if change == "value":
            pair[1] = draw(odd | json_values | nested)
        elif change == "name":
            pair[0] = draw(st.text(max_size=10).map(json.dumps) | st.sampled_from(['"\\ud800"', '"Type"', "type"]))
        elif change == "repeat":
            pairs.append([pair[0], draw(odd)])
        elif len(pairs) > 1:
            pairs.remove(pair)
    return "{" + ", ".join(": ".join(pair) for pair in pairs) + "}"


@st.composite
def spoilt(draw) -> str:
    """A message with some changed characters."""
    text = draw(starts())
    at = draw(st.integers(0, len(text)))
    return text[:at] + draw(st.text(max_size=3)) + text[at + draw(st.integers(0, 4)) :]


@pytest.fixture(scope="module")
def translator():
    return make_translator("istft")


@cases(2_000)
@given(starts() | starts() | spoilt() | st.text(max_size=40) | json_values | nested)
@example('{"type": "start", "sample_rate": null}')
@example('{"type": "start", "sample_rate": 16000, "version": null}')
@example('{"type": "start", "sample_rate": 16000, "segment_ms": NaN}')
@example('{"type": "start", "sample_rate": 16000, "\\ud800": 1}')
@example('{"type": "start", "sample_rate": ' + "[" * 990 + "]" * 990 + "}")
def test_text_message_is_parsed_or_rejected(translator, text):
    defaults = Settings(segment_ms=160, policy="wait-k", stride_n=2, lag_k=3)
    try:
        message = parse(text)
        start = parse_start(message, defaults) if message["type"] == "start" else None
        resume = parse_resume(message) if message["type"] == "resume" else None
    except SessionError as error:
        refused(error)
        event("refused")
        return
    if resume is not None:
        assert re.fullmatch("[0-9a-f]{32}", resume.resume_token) and type(resume.seq) is int and resume.seq >= 0
        event("resumes")
        return
    if start is None:
        assert isinstance(message["type"], str)
        event("another type")
        return
    assert type(start.resumable) is bool
    assert type(start.sample_rate) is int and MIN_SAMPLE_RATE <= start.sample_rate <= MAX_SAMPLE_RATE
    settings = start.settings
    assert type(settings.segment_ms) is int and 40 <= settings.segment_ms <= MAX_LIVE_SEGMENT_MS
    assert settings.policy in POLICIES and settings.task in ("s2st", "s2tt", "asr")
    assert settings.stride_n is None or (type(settings.stride_n) is int and 1 <= settings.stride_n <= MAX_POLICY_STEP)
    assert settings.lag_k is None or (type(settings.lag_k) is int and 0 <= settings.lag_k <= MAX_POLICY_STEP)
    for name in message.keys() & vars(settings).keys():
        assert getattr(settings, name) == message[name], "what is asked for is what is had"
    json.dumps(vars(settings)).encode()
    try:
        settings.apply(translator)
        event("understood")
    except ValueError as error:  # becomes a close reason, see Session._start
        assert str(error).isprintable()
        event("refused by the translator")


@pytest.mark.parametrize("pair", ["[]", ('{"a":', "}")])
def test_nesting_of_any_depth_is_rejected(pair):
    """At a certain depth a value can still be parsed, but can't be written into the error message."""
    for depth in range(1, 1_100):
        text = f'{{"type": "start", "sample_rate": 16000, "version": {pair[0] * depth}1{pair[1] * depth}}}'
        with pytest.raises(SessionError) as error:
            parse_start(parse(text), Settings())
        refused(error.value)


def refused(error: SessionError) -> None:
    """Check for a close code of this protocol and a short printable line that can be encoded."""
    assert error.code == CloseCode.BAD_MESSAGE
    assert error.message.isprintable() and 0 < len(error.message) < 200
    assert 0 < len(close_reason(error.message)) <= 123 and close_reason(error.message).decode()


@cases(300)
@given(st.binary(max_size=400))
def test_binary_messages_are_samples_or_rejected(data):
    try:
        samples = pcm_to_samples(data)
    except SessionError as error:
        refused(error)
        assert len(data) % 2
        return
    assert samples.dtype == np.float32 and samples.shape == (len(data) // 2,)
    assert ((samples * 32768).astype("<i2").tobytes()) == data


@cases(200)
@given(st.text(max_size=200))
def test_reasons_of_any_length_fit_a_close_frame(text):
    text = text.encode(errors="ignore").decode()
    reason = close_reason(text)
    assert len(reason) <= 123 and text.startswith(reason.decode())


@cases(200)
@given(st.floats(0.1, 1e4), st.floats(0.1, 1e4), st.lists(st.tuples(st.floats(0, 100), st.floats(0, 2e4)), max_size=30))
def test_meter_never_exceeds_its_rate(rate, burst, takes):
    now_s, passed = 0.0, 0.0
    meter = Meter(rate, burst, now_s)
    for wait_s, amount in takes:
        now_s += wait_s
        if meter.take(amount, now_s):
            passed += amount
        assert passed <= (burst + rate * now_s) * (1 + 1e-9)
