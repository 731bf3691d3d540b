"""Messages of the WebSocket protocol, see docs/protocol.md."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from echostream.constants import (
    DEFAULT_POLICY,
    DEFAULT_SEGMENT_MS,
    DEFAULT_TASK,
    FRAME_MS,
    MAX_LIVE_SEGMENT_MS,
    TASKS,
)
from echostream.decoding.policy import POLICIES
from echostream.streaming import StepOutput
from echostream.streaming.translator import StreamingTranslator
from echostream.streaming.words_json import output_word_fields, source_word_fields

VERSION = 1
SAMPLE_FORMAT = "pcm_s16le"
MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 8_000, 192_000
MAX_POLICY_STEP = 100
NULLABLE = ("stride_n", "lag_k")  # null stands for the default of the policy
RESUME_TOKEN = re.compile(r"[0-9a-f]{32}")
MAX_REASON_BYTES = 123  # of a close frame (RFC 6455, section 5.5)


class CloseCode(IntEnum):
    """Close codes of a session; codes from 4000 are specific to this protocol."""

    DONE = 1000
    GOING_AWAY = 1001
    TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    RESTARTING = 1012
    BUSY = 1013
    BAD_MESSAGE = 4400
    UNAUTHORISED = 4401
    IDLE = 4408
    TAKEN_OVER = 4409
    GONE = 4410
    TOO_LONG = 4413
    TOO_FAST = 4429
    SLOW_CLIENT = 4499


class SessionError(Exception):
    """Ends a session with a close code and a message for the user of the client."""

    def __init__(self, code: CloseCode, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


@dataclass(frozen=True)
class Settings:
    """Settings of the translator for one session; sessions with equal settings share batches.

    A client may choose all of them but ``policy_options``, which belong to the server's own policy.
    """

    segment_ms: int = DEFAULT_SEGMENT_MS
    policy: str = DEFAULT_POLICY
    task: str = DEFAULT_TASK
    stride_n: int | None = None
    lag_k: int | None = None
    policy_options: tuple[tuple[str, Any], ...] = ()

    def of_client(self) -> dict[str, Any]:
        """The settings that a client may choose, by their names in the protocol."""
        return {name: value for name, value in asdict(self).items() if name != "policy_options"}

    def apply(self, translator: StreamingTranslator) -> StreamingTranslator:
        """A view of ``translator`` with these settings.

        Raises:
            ValueError: a setting is out of range.
        """
        options = dict(self.policy_options)
        return translator.view(self.segment_ms, self.policy, self.task, self.stride_n, self.lag_k, options)


@dataclass(frozen=True)
class Start:
    """The message that opens a session."""

    sample_rate: int
    settings: Settings
    resumable: bool = False


@dataclass(frozen=True)
class Resume:
    """The message that goes on with a session after its connection was lost.

    Attributes:
        resume_token: of the ``ready`` message of that session.
        seq: number of the last output that the client has whole, with its speech; 0: none.
    """

    resume_token: str
    seq: int


def parse(text: str) -> dict[str, Any]:
    """Parse a control message.

    Raises:
        SessionError: it is not a JSON object with a type.
    """
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SessionError(CloseCode.BAD_MESSAGE, "a text message must be JSON") from error
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise SessionError(CloseCode.BAD_MESSAGE, 'a text message must be a JSON object with a "type"')
    return message


def parse_start(message: dict[str, Any], defaults: Settings) -> Start:
    """Parse a start message; ``defaults`` replace settings that it does not contain.

    Raises:
        SessionError: a field is missing, unknown or not valid; the message names it.
    """
    _check_fields(message, {"sample_rate", "format", "resumable", *defaults.of_client()})
    if message.get("format", SAMPLE_FORMAT) != SAMPLE_FORMAT:
        raise _bad(f"the format must be {SAMPLE_FORMAT}, got {_quote(message['format'])}")
    if message.get("sample_rate") is None:
        raise _bad("start must give the sample_rate in Hz")
    if not isinstance(message.get("resumable", False), bool):
        raise _bad(f"resumable must be true or false, got {_quote(message['resumable'])}")
    policy = _choice(message, "policy", defaults.policy, policies(defaults))
    same = policy == defaults.policy  # the defaults of its options are meant for the server's default policy
    chosen = Settings(
        segment_ms=_integer(message, "segment_ms", defaults.segment_ms, FRAME_MS, MAX_LIVE_SEGMENT_MS),
        policy=policy,
        task=_choice(message, "task", defaults.task, TASKS),
        stride_n=_integer(message, "stride_n", defaults.stride_n if same else None, 1, MAX_POLICY_STEP),
        lag_k=_integer(message, "lag_k", defaults.lag_k if same else None, 0, MAX_POLICY_STEP),
        policy_options=defaults.policy_options if same else (),
    )
    sample_rate = _integer(message, "sample_rate", None, MIN_SAMPLE_RATE, MAX_SAMPLE_RATE)
    return Start(sample_rate, chosen, message.get("resumable", False))


def parse_resume(message: dict[str, Any]) -> Resume:
    """Parse a resume message.

    Raises:
        SessionError: a field is missing, unknown or not valid; the message names it.
    """
    _check_fields(message, {"resume_token", "seq"})
    token = message.get("resume_token")
    if not isinstance(token, str) or not RESUME_TOKEN.fullmatch(token):
        raise _bad("resume must give the resume_token of the session's ready message")
    return Resume(token, _integer({"seq": None} | message, "seq", None, 0, 10**12))


def _check_fields(message: dict[str, Any], known: set[str]) -> None:
    """Check that an opening message has no other fields than these, and is of this version of the protocol."""
    if unknown := sorted(set(message) - known - {"type", "version", "token"}):
        raise _bad(f"unknown field {_quote(unknown[0])} in {message['type']}")
    version = _integer(message, "version", VERSION, 1, 1_000_000)
    if version != VERSION:
        raise _bad(f"this server speaks version {VERSION} of the protocol, not {version}")


def policies(defaults: Settings) -> tuple[str, ...]:
    """Policies that a client may choose: ours and the server's own, but no other code of its own choice."""
    return tuple(dict.fromkeys([*POLICIES, defaults.policy]))


def pcm_to_samples(data: bytes) -> np.ndarray:
    """Convert little-endian 16-bit samples to float32 ``(n,)`` in [-1, 1).

    Raises:
        SessionError: the number of bytes is odd.
    """
    if len(data) % 2:
        raise _bad(f"a binary message must hold whole 16-bit samples, got {len(data)} bytes")
    return np.frombuffer(data, dtype="<i2").astype(np.float32) / 32768


def output_message(output: StepOutput, source_s: float, reaction_s: float, rtf: float, seq: int) -> dict[str, Any]:
    """The message with the output of a step; unless its ``samples`` is 0, a binary message with the samples follows."""
    return {
        "type": "output",
        "seq": seq,
        "source_s": round(source_s, 3),
        "source_words": [source_word_fields(word) for word in output.source_words],
        "words": [output_word_fields(word) for word in output.words],
        "sentence_ends": output.sentence_ends,
        "samples": int(output.samples.size),
        "reaction_ms": round(1000 * reaction_s, 1),
        "rtf": round(rtf, 4),
    }


def close_reason(text: str) -> bytes:
    """``text`` in UTF-8, truncated to the size that a close frame allows."""
    return text.encode()[:MAX_REASON_BYTES].decode(errors="ignore").encode()


def _bad(text: str) -> SessionError:
    return SessionError(CloseCode.BAD_MESSAGE, text)


def _quote(value: object) -> str:
    # Containers are not quoted: deeply nested JSON that could be parsed may exceed the recursion limit when written.
    text = "an array" if isinstance(value, list) else "an object" if isinstance(value, dict) else json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _integer(message: dict[str, Any], name: str, default: int | None, low: int, high: int) -> Any:
    value = message.get(name, default)
    if name not in message or (value is None and name in NULLABLE):
        return value
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise _bad(f"{name} must be a whole number from {low} to {high}, got {_quote(value)}")
    return value


def _choice(message: dict[str, Any], name: str, default: str, choices: tuple[str, ...]) -> str:
    value = message.get(name, default)
    if value not in choices:
        raise _bad(f"{name} must be one of {', '.join(choices)}, got {_quote(value)}")
    return value
