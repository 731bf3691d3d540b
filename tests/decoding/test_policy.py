"""Policies in inference and training, on hand-made evidence and CTC paths with known results."""

import pytest
import torch

from echostream.decoding.policy import (
    POLICIES,
    AlignAttPolicy,
    AlignmentBasedPolicy,
    Budget,
    Evidence,
    FixedRatePolicy,
    PolicyState,
    StridePolicy,
    WaitKPolicy,
    WordAlignmentPolicy,
    build_policy,
    last_budget,
    visible_frames_from_policy,
    with_policy_options,
)

SYMBOLS = ["<s>", "<pad>", "</s>", "<unk>", "▁le", "▁ta", "ble"]


def run(policy, evidence):
    state, budgets = PolicyState(), []
    for frames, (words, source, target) in enumerate(evidence, start=1):
        budget, state = policy(Evidence(frames, words, source, target), state)
        budgets.append(budget.tokens if budget and budget.words is None else budget and budget.words)
    return budgets


def test_alignment_policy_needs_a_finished_word_and_new_target_tokens():
    evidence = [(0, 1, 1), (1, 2, 1), (1, 2, 3), (2, 3, 3), (3, 4, 4)]
    assert run(WordAlignmentPolicy(), evidence) == [None, 1, None, 3, 4]
    assert run(WordAlignmentPolicy(stride_n=2), evidence) == [None, None, 3, None, None]
    assert run(WordAlignmentPolicy(lag_k=1), evidence) == [None, None, 2, None, 3]


def test_finished_source_word_waits_for_target_tokens():
    assert run(WordAlignmentPolicy(), [(1, 1, 0), (1, 1, 0), (1, 1, 2)]) == [None, None, 2]


def test_stride_policy_counts_tokens_of_both_sides():
    assert run(StridePolicy(2), [(0, 2, 1), (0, 2, 3), (0, 4, 3), (0, 4, 5)]) == [None, 2, None, 4]


def test_wait_k_writes_one_word_per_source_word_from_the_kth():
    assert run(WaitKPolicy(2), [(1, 0, 0), (2, 0, 0), (2, 0, 0), (4, 0, 0)]) == [None, 1, None, 3]


def test_alignatt_leaves_it_to_the_decoder_as_soon_as_anything_is_heard():
    state, policy = PolicyState(), AlignAttPolicy(9)
    for evidence in (Evidence(8, 0, 0, 0), Evidence(16, 0, 1, 0), Evidence(24, 0, 1, 0)):
        budget, state = policy(evidence, state)
        assert budget == (Budget(frames_behind=9) if evidence.source_tokens else None)
    assert last_budget(policy, Evidence(24, 1, 5, 2)) == last_budget(WordAlignmentPolicy(), Evidence(24, 1, 5, 2))


def test_alignatt_asks_the_decoder_no_more_often_than_it_is_told():
    policy, state = AlignAttPolicy(9, every_frames=4), PolicyState()
    asked = []
    for frames in (3, 4, 5, 6, 7, 8, 11, 12, 28, 10, 12, 14):  # behind the 28 the sentence was cut
        budget, state = policy(Evidence(frames, 0, 1, 0), state)
        if budget is not None:
            asked.append(frames)
    assert asked == [4, 8, 12, 28, 10, 14]


def test_what_depends_on_the_decoder_is_not_simulated():
    path = torch.zeros(1, 9, dtype=torch.int64)
    path[0, 1] = 4
    one = torch.ones(1, dtype=torch.int64)
    starts = torch.tensor([symbol.startswith("▁") for symbol in SYMBOLS])
    with pytest.raises(ValueError, match="'alignatt' looks at the decoder"):
        visible_frames_from_policy(path, path, 9 * one, 2, 2 * one, torch.zeros(1, 2).long(), starts, AlignAttPolicy())


def test_fixed_rate_depends_on_time_only():
    assert run(FixedRatePolicy(2), [(0, 0, 0)] * 5) == [None, 1, None, 2, None]


@pytest.mark.parametrize("name", POLICIES)
def test_policies_by_name(name):
    assert callable(build_policy(name))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "waitk"}, "unknown policy 'waitk'"),
        ({"name": "alignment", "stride_n": 0}, "stride_n"),
        ({"name": "alignment", "lag_k": -1}, "lag_k"),
        ({"name": "stride", "stride_n": 0}, "stride_n"),
        ({"name": "wait-k", "lag_k": 0}, "lag_k"),
        ({"name": "alignatt", "frames_behind": 0}, "frames_behind must be at least 1, got 0"),
        ({"name": "alignatt", "every_frames": 0}, "every_frames must be at least 1, got 0"),
        ({"name": "alignatt", "lag_k": 2}, "the policy 'alignatt' has no option lag_k: it takes frames_behind"),
    ],
)
def test_invalid_policies_are_rejected(options, message):
    with pytest.raises(ValueError, match=message):
        build_policy(**options)


def test_budget_limits():
    assert Budget().allows(1000, 1000)
    assert Budget(tokens=3).allows(3, 9) and not Budget(tokens=3).allows(4, 1)
    assert Budget(words=2).allows(9, 2) and not Budget(words=2).allows(1, 3)


def test_training_mask_follows_the_policy():
    # Source words end at frames 2 (the next word_starts) and 6; the target has read 1, then 3 tokens by then.
    asr = torch.tensor([[4, 0, 4, 0, 5, 6, 4, 0, 0, 0]])
    st = torch.tensor([[0, 7, 0, 0, 8, 9, 0, 0, 0, 0]])
    word_ids = torch.tensor([[0, 1, 1, 2, 3]])  # words of 1, 2 and 1 tokens, then the end symbol
    word_starts = torch.tensor([symbol.startswith("▁") for symbol in SYMBOLS])
    options = (torch.tensor([10]), torch.tensor([5]), word_ids, word_starts, WordAlignmentPolicy())
    lengths, targets, *rest = options

    def visible(segment):
        return visible_frames_from_policy(asr, st, lengths, segment, targets, *rest)[0].tolist()

    assert visible(1) == [3, 7, 7, 10, 10]
    assert visible(4) == [4, 8, 8, 10, 10]
    assert visible(0) == [10] * 5


def test_without_evidence_all_frames_are_visible():
    blank = torch.zeros(2, 6, dtype=torch.long)
    visible = visible_frames_from_policy(
        blank,
        blank,
        torch.tensor([6, 3]),
        1,
        torch.tensor([2, 2]),
        torch.tensor([[0, 1], [0, 1]]),
        torch.zeros(7, dtype=torch.bool),
        WordAlignmentPolicy(),
    )
    assert visible.tolist() == [[6, 6], [3, 3]]


def test_policy_needs_stride_n_new_tokens_on_both_sides():
    policy = AlignmentBasedPolicy(stride_n=2)
    assert policy.should_write(2, 2) == (True, 2)
    assert policy.should_write(1, 5) == (False, 0) and policy.should_write(5, 1) == (False, 0)
    last = PolicyState(source_tokens=4, target_tokens=3)
    assert policy.should_write(6, 7, last) == (True, 4) and policy.should_write(5, 7, last) == (False, 0)
    assert AlignmentBasedPolicy(lag_k=2).should_write(9, 3) == (True, 1)
    assert run(policy, [(0, 2, 1), (0, 2, 3), (0, 3, 9), (0, 4, 5)]) == [None, 3, None, 5]


def test_options_are_passed_to_the_policy_or_rejected():
    assert build_policy("stride", stride_n=3) == StridePolicy(3)
    assert with_policy_options(WaitKPolicy(2), lag_k=5) == WaitKPolicy(5)
    with pytest.raises(ValueError, match="the policy 'wait-k' has no option stride_n: it takes lag_k"):
        build_policy("wait-k", stride_n=2)
    with pytest.raises(ValueError, match="the policy 'stride' has no option lag_k"):
        build_policy("stride", lag_k=2)

    def mine(evidence, state):
        return None, state

    assert with_policy_options(mine) is mine
    with pytest.raises(ValueError, match="has no option lag_k: it takes no options"):
        with_policy_options(mine, lag_k=1)


def test_custom_policy_needs_no_st_evidence_in_training():
    """A policy must be called for every segment, because it may not depend on target evidence at all."""
    frames_seen = []

    def every_second_segment(evidence, state):
        frames_seen.append(evidence.frames)
        return (Budget(tokens=evidence.frames) if evidence.frames % 2 == 0 else None), state

    asr = torch.tensor([[4, 0, 4, 0, 5, 6]])
    visible = visible_frames_from_policy(
        asr,
        torch.zeros_like(asr),
        torch.tensor([6]),
        1,
        torch.tensor([3]),
        torch.tensor([[0, 1, 2]]),
        torch.tensor([symbol.startswith("▁") for symbol in SYMBOLS]),
        every_second_segment,
    )
    assert frames_seen and visible.tolist() == [[2, 2, 6]]
