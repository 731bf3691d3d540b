"""When to write, and how much: simultaneous policies on what both CTC heads have read.

A policy looks at the evidence once for every encoder segment and answers with a budget for the whole hypothesis so
far, or None to go on reading. It is a pure object: what it remembers is passed in and out, so that training can run
the very policy of inference over an utterance (:func:`visible_frames_from_policy`).

- ``alignment``: words, on alignment evidence (ours, the default).
- ``token-alignment``: the same evidence counted in tokens on both sides.
- ``stride``: a fixed stride of source and target tokens (StreamSpeech, Zhang et al. 2024, section 3.2).
- ``wait-k``: k source words ahead (Ma et al. 2019).
- ``alignatt``: what the MT decoder attends to; at a sentence's end the ST CTC limits it (AlignAtt, Papi et al.
  2023, section 3).
- ``fixed-rate``: one token for a fixed time, whatever was said; for benchmarks.
- ``module:Class``: a policy of one's own, see :func:`build_policy`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass, replace
from functools import partial
from typing import Any, Protocol

from torch import Tensor

from echostream.constants import FRAME_MS, POLICY_NAMES
from echostream.decoding.words import PAUSE_MS, WordBoundaryState, read_words
from echostream.modules.ctc import symbol_counts
from echostream.modules.state import State
from echostream.plugins import PluginError, load_object, names_code, one_line


@dataclass(frozen=True)
class Evidence:
    """What has been heard of the current sentence when a segment has been encoded."""

    frames: int  # encoder frames @25 Hz
    source_words: int  # finished words of the ASR CTC
    source_tokens: int  # symbols of the ASR CTC
    target_tokens: int  # symbols of the ST CTC
    expected_tokens: int = 0  # how many it lets expect, those included of which it can't tell which they are


@dataclass(frozen=True)
class Budget:
    """Limits on the hypothesis of the current sentence, counted from its start; None: no such limit."""

    tokens: int | None = None
    words: int | None = None
    whole_words: bool = True  # commit a word only when the next one begins
    ends: bool = True  # the decoder may end the sentence before the budget is used up
    # How many frames @25 Hz have to follow the one that a token attends to most.
    frames_behind: int | None = None

    def allows(self, tokens: int, words: int) -> bool:
        """Whether a hypothesis of so many tokens and words is within the budget, wherever it attends to."""
        return (self.tokens is None or tokens <= self.tokens) and (self.words is None or words <= self.words)


UNLIMITED = Budget()
# At a sentence's end: most tokens for each that the ST CTC lets expect, and beyond that. A sentence in which nothing
# was heard gets no more than a few, whatever the decoder makes of noise.
LAST_TOKENS_EACH, LAST_TOKENS_SPARE = 1, 3


@dataclass
class PolicyState(State):
    """Evidence at the last WRITE."""

    source_words: int = 0
    source_tokens: int = 0
    target_tokens: int = 0


@dataclass
class AlignAttState(PolicyState):
    """Evidence at the last WRITE, and when that was.

    Attributes:
        frames: of the sentence that had been heard.
    """

    frames: int = 0


class Policy(Protocol):
    """Decides at the end of every segment.

    The state starts as ``PolicyState()`` for each sentence. A policy that remembers more returns a state of a class of
    its own, derived from :class:`PolicyState`, and gets that one the next time. It may have a
    method ``last_budget(evidence) -> Budget`` for the end of a sentence, see :func:`last_budget`.
    """

    def __call__(self, evidence: Evidence, state: PolicyState) -> tuple[Budget | None, PolicyState]: ...


@dataclass(frozen=True)
class AlignmentBasedPolicy:
    """WRITE when both CTCs have read at least ``stride_n`` tokens more than at the last WRITE; words stay whole.

    Args:
        stride_n: new tokens since the last WRITE, at least 1.
        lag_k: target tokens that the hypothesis stays behind the ST CTC.
    """

    stride_n: int = 1
    lag_k: int = 0

    def __post_init__(self) -> None:
        if self.stride_n < 1 or self.lag_k < 0:
            raise ValueError(f"stride_n must be at least 1 and lag_k at least 0, got {self.stride_n}, {self.lag_k}")

    def should_write(self, asr_tokens: int, st_tokens: int, state: PolicyState | None = None) -> tuple[bool, int]:
        """The rule itself.

        Args:
            asr_tokens, st_tokens: tokens that the ASR CTC and the ST CTC have read since the sentence started.
            state: the counts at the last WRITE; None: there was none.

        Returns:
            whether to WRITE, and how many tokens may be added since that WRITE; 0 if not.
        """
        state = state or PolicyState()
        new_tokens = st_tokens - self.lag_k - state.target_tokens
        write = asr_tokens - state.source_tokens >= self.stride_n and new_tokens >= self.stride_n
        return write, new_tokens if write else 0

    def __call__(self, evidence: Evidence, state: PolicyState) -> tuple[Budget | None, PolicyState]:
        write, max_new_tokens = self.should_write(evidence.source_tokens, evidence.target_tokens, state)
        if not write:
            return None, state
        tokens = state.target_tokens + max_new_tokens
        return Budget(tokens=tokens), PolicyState(evidence.source_words, evidence.source_tokens, tokens)

    def last_budget(self, evidence: Evidence) -> Budget:
        """What may be written by the end of a sentence: it must not outrun the ST CTC's evidence by far.

        In the middle of a sentence a word is written when the ST CTC can tell it. At the end the question is only how
        much is left, which it knows where it can't tell the words.
        """
        return _budget_of_what_is_left(evidence)


@dataclass(frozen=True)
class WordAlignmentPolicy(AlignmentBasedPolicy):
    """As :class:`AlignmentBasedPolicy`, but a finished source word takes the place of new source tokens.

    WRITE needs a source word that the ASR CTC has just finished, and ``stride_n`` target tokens more in the ST CTC.
    """

    def __call__(self, evidence: Evidence, state: PolicyState) -> tuple[Budget | None, PolicyState]:
        if evidence.source_words <= state.source_words:
            return None, state
        # A finished word is all the evidence of the source that is asked for.
        write, max_new_tokens = self.should_write(state.source_tokens + self.stride_n, evidence.target_tokens, state)
        if not write:
            return None, state
        tokens = state.target_tokens + max_new_tokens
        return Budget(tokens=tokens), PolicyState(evidence.source_words, evidence.source_tokens, tokens)


@dataclass(frozen=True)
class StridePolicy:
    """StreamSpeech's (Zhang et al. 2024, section 3.2): whole strides of tokens in both CTCs, where words may be cut."""

    stride_n: int = 1

    def __post_init__(self) -> None:
        if self.stride_n < 1:
            raise ValueError(f"stride_n must be at least 1, got {self.stride_n}")

    def __call__(self, evidence: Evidence, state: PolicyState) -> tuple[Budget | None, PolicyState]:
        write, _ = AlignmentBasedPolicy(self.stride_n).should_write(
            evidence.source_tokens, evidence.target_tokens, state
        )
        if not write:
            return None, state
        tokens = evidence.target_tokens // self.stride_n * self.stride_n
        counts = PolicyState(evidence.source_words, evidence.source_tokens, evidence.target_tokens)
        return Budget(tokens=tokens, whole_words=False), counts


@dataclass(frozen=True)
class WaitKPolicy:
    """Stay ``lag_k`` source words behind: after ``lag_k`` of them one target word for each further one."""

    lag_k: int = 3

    def __post_init__(self) -> None:
        if self.lag_k < 1:
            raise ValueError(f"wait-k needs lag_k of at least 1, got {self.lag_k}")

    def __call__(self, evidence: Evidence, state: PolicyState) -> tuple[Budget | None, PolicyState]:
        if evidence.source_words <= state.source_words or evidence.source_words < self.lag_k:
            return None, state
        counts = PolicyState(evidence.source_words, evidence.source_tokens, evidence.target_tokens)
        return Budget(words=evidence.source_words - self.lag_k + 1), counts


@dataclass(frozen=True)
class AlignAttPolicy:
    """Write as long as the MT decoder attends to what has been followed by something else (Papi et al. 2023).

    Where a token attends to the last ``frames_behind`` frames, what comes next may change it: it waits, with all that
    would follow it. As soon as anything has been heard of a sentence, the decoder is asked with every segment, or, as
    that takes much longer than to encode a short one, every ``every_frames``.

    The policy can't be simulated in training, whose visible frames it would take the decoder to find: train with
    ``--mt-alignment none``.

    Args:
        frames_behind: frames of 40 ms, at least 1; the paper's ``f``. The encoder's look-ahead follows them.
        every_frames: least number of them from one time that the decoder is asked to the next, at least 1.
    """

    frames_behind: int = 14
    every_frames: int = 4

    def __post_init__(self) -> None:
        for name, value in (("frames_behind", self.frames_behind), ("every_frames", self.every_frames)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")

    def __call__(self, evidence: Evidence, state: PolicyState) -> tuple[Budget | None, PolicyState]:
        since = evidence.frames - (state.frames if isinstance(state, AlignAttState) else 0)
        # Behind a cut a sentence may have fewer frames than when the decoder was last asked.
        if not (evidence.source_tokens or evidence.target_tokens) or 0 <= since < self.every_frames:
            return None, state
        counts = evidence.source_words, evidence.source_tokens, evidence.target_tokens
        return Budget(frames_behind=self.frames_behind), AlignAttState(*counts, evidence.frames)

    def last_budget(self, evidence: Evidence) -> Budget:
        """What may be written by the end of a sentence, as of :class:`AlignmentBasedPolicy`."""
        return _budget_of_what_is_left(evidence)


@dataclass(frozen=True)
class FixedRatePolicy:
    """One target token each ``token_frames`` encoder frames (8: 320 ms), however the words fall."""

    token_frames: int = 8

    def __post_init__(self) -> None:
        if not self.token_frames >= 1:
            raise ValueError(f"token_frames must be at least 1, got {self.token_frames}")

    def __call__(self, evidence: Evidence, state: PolicyState) -> tuple[Budget | None, PolicyState]:
        tokens = evidence.frames // self.token_frames
        if tokens <= state.target_tokens:
            return None, state
        return Budget(tokens=tokens, whole_words=False, ends=False), PolicyState(target_tokens=tokens)


_KINDS: tuple[type, ...] = (
    WordAlignmentPolicy,
    AlignmentBasedPolicy,
    StridePolicy,
    WaitKPolicy,
    AlignAttPolicy,
    FixedRatePolicy,
)
POLICIES: dict[str, type] = dict(zip(POLICY_NAMES, _KINDS, strict=True))


def build_policy(name: str, **options: Any) -> Policy:
    """The policy called ``name``, with options of its own; None takes its default.

    ``module:Class`` names a policy of one's own: a class, which is made with the options as keyword arguments, or a
    function ``(evidence, state) -> (budget, state)``, whose options are its keyword-only parameters.

    Raises:
        ValueError: an unknown name, or an option that the policy doesn't have or that is out of range; of one's own
            (:class:`PluginError`) also one that can't be loaded or is no policy.
    """
    return _named_policy(name, options)


def _named_policy(name: str, options: Mapping[str, Any]) -> Policy:
    """:func:`build_policy` with options that may have any names."""
    if names_code(name):
        return _own_policy(name, _given(options))
    if name not in POLICIES:
        raise ValueError(
            f"unknown policy '{name}': choose one of {', '.join(POLICIES)}, or name your own as module:Class"
        )
    given = _given(options)
    _check_options(name, POLICIES[name], given)
    try:
        return POLICIES[name](**given)
    except TypeError as error:
        raise ValueError(f"the policy '{name}' can't be made with {_listed(given)}: {error}") from error


def choose_policy(policy: str | Policy, /, **options: Any) -> Policy:
    """A policy given itself or by name, with its options.

    Raises:
        ValueError: as :func:`build_policy`.
    """
    if isinstance(policy, str):
        return _named_policy(policy, options)
    return with_policy_options(policy, **options)


def last_budget(policy: Policy, evidence: Evidence) -> Budget:
    """What a policy lets be written at the end of a sentence, over all of it; of one that doesn't say: everything."""
    own = getattr(policy, "last_budget", None)
    return own(evidence) if own is not None else UNLIMITED


def _budget_of_what_is_left(evidence: Evidence) -> Budget:
    heard = max(evidence.target_tokens, evidence.expected_tokens)
    return Budget(tokens=int(LAST_TOKENS_EACH * heard) + LAST_TOKENS_SPARE)


def policy_name(policy: Policy) -> str:
    """The name of a policy: ours by :data:`POLICIES`, another's by its class or function."""
    own = policy.func if isinstance(policy, partial) else policy
    named = next((name for name, kind in POLICIES.items() if type(own) is kind), None)
    return named or str(getattr(own, "__name__", type(own).__name__))


def with_policy_options(policy: Policy, /, **options: Any) -> Policy:
    """The policy with other options, but for those that are None.

    Raises:
        ValueError: an option that the policy doesn't have, or out of range.
    """
    given = _given(options)
    if not given:
        return policy
    if is_dataclass(policy):
        _check_options(policy_name(policy), type(policy), given)
        return replace(policy, **given)
    is_function = inspect.isroutine(policy) or isinstance(policy, partial)
    _check_options(policy_name(policy), policy if is_function else None, given)
    return partial(policy, **given)


def _own_policy(name: str, given: Mapping[str, Any]) -> Policy:
    """The policy that ``module:name`` names."""
    found = load_object(name, "policy")
    policy = found
    if inspect.isclass(found):
        _check_options(name, found, given)
        try:
            policy = found(**given)
        except Exception as error:  # whatever the user's own code raises
            raise PluginError(f"the policy '{name}' can't be made with {_listed(given)}: {one_line(error)}") from error
    if not callable(policy):
        raise PluginError(f"'{name}' is no policy: it can't be called with (evidence, state)")
    try:
        inspect.signature(policy).bind(None, None)
    except TypeError as error:
        raise PluginError(f"'{name}' is no policy: it can't be called with (evidence, state): {error}") from error
    return policy if inspect.isclass(found) else with_policy_options(policy, **given)


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _listed(given: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={repr(value)[:80]}" for name, value in given.items()) or "its defaults"


def _check_options(name: str, takes_them: Callable[..., Any] | None, given: Mapping[str, Any]) -> None:
    """Refuse, by its name, an option that a class or function does not take; None takes none."""
    parameters = inspect.signature(takes_them).parameters.values() if takes_them is not None else ()
    kinds: tuple[Any, ...] = (inspect.Parameter.KEYWORD_ONLY,)
    if inspect.isclass(takes_them):
        kinds += (inspect.Parameter.POSITIONAL_OR_KEYWORD,)
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = [parameter.name for parameter in parameters if parameter.kind in kinds]
    for option in given:
        if option not in known:
            takes = f": it takes {', '.join(known)}" if known else ": it takes no options"
            raise ValueError(f"the policy '{name}' has no option {option}{takes}")


def visible_frames_from_policy(
    asr_ids: Tensor,
    st_ids: Tensor,
    frame_lengths: Tensor,
    segment: int,
    target_lengths: Tensor,
    word_ids: Tensor,
    starts_word: Tensor,
    policy: Policy,
    frame_ms: int = FRAME_MS,
) -> Tensor:
    """Frames that are there when the policy lets each target token be written.

    The policy reads the greedy paths of both CTC heads segment by segment, as it will in a stream; a target word is
    written at the first WRITE whose budget it fits in, and what is left is written at the end of the source.

    Args:
        asr_ids, st_ids: ``(B, T)`` classes of the CTC heads.
        frame_lengths: ``(B,)`` valid frames.
        segment: encoder segment in frames; 0: the whole utterance, where everything is visible.
        target_lengths: ``(B,)`` target tokens, the end symbol included.
        word_ids: ``(B, N)`` word number of each target token.
        starts_word: ``(source vocabulary,)`` bool, True for subwords that begin a word.
        policy: the policy of inference.
        frame_ms: duration of an encoder frame.

    Returns:
        ``(B, N)`` int64, at least 1.

    Raises:
        ValueError: a policy whose budget depends on what the decoder attends to.
    """
    batch, num_tokens = word_ids.shape
    visible = frame_lengths[:, None].expand(batch, num_tokens).clone()
    if segment == 0:
        return visible.clamp_(min=1)
    word_starts = starts_word.tolist()
    source_counts, target_counts = symbol_counts(asr_ids).tolist(), symbol_counts(st_ids).tolist()
    rows = zip(
        asr_ids.tolist(),
        frame_lengths.tolist(),
        target_lengths.tolist(),
        word_ids.tolist(),
        source_counts,
        target_counts,
        strict=True,
    )
    for item, (labels, length, num_targets, words, source_count, target_count) in enumerate(rows):
        last_token = {word: index for index, word in enumerate(words[: num_targets - 1])}
        waiting = [(index + 1, order + 1, word) for order, (word, index) in enumerate(last_token.items())]
        seen: dict[int, int] = {}
        reader, state, finished = WordBoundaryState(), PolicyState(), 0
        for start in range(0, length - segment, segment):  # the last segment ends the source
            end = start + segment
            reader, ended = read_words(labels[start:end], word_starts, reader, PAUSE_MS // frame_ms)
            finished += len(ended)
            evidence = Evidence(end * frame_ms // FRAME_MS, finished, source_count[end - 1], target_count[end - 1])
            budget, state = policy(evidence, state)
            if budget is not None and budget.frames_behind is not None:
                raise ValueError(f"the policy '{policy_name(policy)}' looks at the decoder: train without it")
            while budget is not None and waiting and budget.allows(waiting[0][0], waiting[0][1]):
                seen[waiting.pop(0)[2]] = end
            if not waiting:
                break
        for index, word in enumerate(words[: num_targets - 1]):
            if word in seen:
                visible[item, index] = seen[word]
    return visible.clamp_(min=1)
