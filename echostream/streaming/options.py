"""How a translator goes about it: an immutable value, so that a step sees one set of options from start to end."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from echostream.constants import FRAME_MS, MAX_SEGMENT_MS, MOST_TEMPO, TASKS
from echostream.decoding.policy import Policy, choose_policy

# Beyond these an option is a slip: what is computed for a segment grows with the square of them.
MAX_RIGHT_CONTEXT_FRAMES = 250


@dataclass(frozen=True)
class TranslatorOptions:
    """Options that can be changed without loading the model again.

    Attributes:
        segment_ms: encoder segment, a multiple of ``frame_ms``; 0 waits for the whole utterance.
        right_context_frames: look-ahead of a segment in encoder frames.
        policy: decides when to write, and how much.
        task: ``s2st``: speech and text; ``s2tt``: text; ``asr``: source text only.
        frame_ms: duration of an encoder frame, which is the model's.
        least_confidence: words that are surer than this are given out, 0 to below 1; the others are left out of text
            and speech, while the decoder goes on from them.
        max_tempo: to which the voice may hurry when it has fallen behind, see :mod:`echostream.streaming.tempo`; 1:
            never.

    What is kept between segments depends on the beam and the language model; they belong to the stages that were built
    with them.

    Raises:
        ValueError: an option out of range.
    """

    segment_ms: int
    right_context_frames: int
    policy: Policy
    task: str
    frame_ms: int = FRAME_MS
    least_confidence: float = 0.0
    max_tempo: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.least_confidence < 1:
            raise ValueError(f"least_confidence must be at least 0 and below 1, got {self.least_confidence}")
        if not 1 <= self.max_tempo <= MOST_TEMPO:
            raise ValueError(f"max_tempo must be from 1 to {MOST_TEMPO}, got {self.max_tempo}")
        if self.segment_ms < 0 or self.segment_ms % self.frame_ms:
            raise ValueError(
                f"segment_ms must be a multiple of {self.frame_ms} (0: whole utterance), got {self.segment_ms}"
            )
        if self.segment_ms > MAX_SEGMENT_MS:
            raise ValueError(f"segment_ms must be at most {MAX_SEGMENT_MS}, an hour, got {self.segment_ms}")
        if self.right_context_frames < 0:
            raise ValueError(f"right_context_frames must not be negative, got {self.right_context_frames}")
        if self.right_context_frames > MAX_RIGHT_CONTEXT_FRAMES:
            raise ValueError(
                f"right_context_frames must be at most {MAX_RIGHT_CONTEXT_FRAMES}, got {self.right_context_frames}"
            )
        if self.task not in TASKS:
            raise ValueError(f"unknown task '{self.task}': choose one of {', '.join(TASKS)}")

    @property
    def segment_frames(self) -> int:
        """Encoder segment in frames; 0: the whole utterance."""
        return self.segment_ms // self.frame_ms

    def with_policy(self, policy: str | Policy | None, /, **options: Any) -> TranslatorOptions:
        """Another policy, given itself or by name, or the same one with other options.

        Raises:
            ValueError: an option that the policy doesn't have, or out of range.
        """
        return replace(self, policy=choose_policy(policy or self.policy, **options))
