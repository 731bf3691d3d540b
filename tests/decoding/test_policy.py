"""Words, policies and their training view: hand-made CTC paths with known answers."""

import pytest
import torch

from echostream.decoding.policy import (
    POLICIES,
    AlignmentBasedPolicy,
    Budget,
    Evidence,
    FixedRatePolicy,
    PolicyState,
    StridePolicy,
    WaitKPolicy,
    build_policy,
    visible_frames_from_policy,
)
from echostream.decoding.word_boundary import WordBoundaryDetector
from echostream.decoding.words import PAUSE_FRAMES
from echostream.streaming import SentenceRecomposer
from echostream.streaming.word_level_translator import TargetWord

# 0 blank, 4 "▁le", 5 "▁ta", 6 "ble"
SYMBOLS = ["<s>", "<pad>", "</s>", "<unk>", "▁le", "▁ta", "ble"]


def detect(classes, cuts=()):
    detector = WordBoundaryDetector(SYMBOLS)
    state, words, start = detector.init_state(), [], 0
    for end in [*cuts, len(classes)]:
        words += detector.read(classes[start:end], state, is_last=end == len(classes))
        start = end
    return words


def test_words_and_their_times():
    words = detect([0, 4, 4, 0, 5, 0, 6, 6, 0])
    assert [(word.text, round(word.start_s, 2), round(word.end_s, 2)) for word in words] == [
        ("le", 0.04, 0.12),
        ("table", 0.16, 0.32),
    ]


@pytest.mark.parametrize("cuts", [(1,), (2, 3, 5), tuple(range(1, 9))])
def test_words_do_not_depend_on_the_cuts(cuts):
    classes = [0, 4, 4, 0, 5, 0, 6, 6, 0]
    assert detect(classes, cuts) == detect(classes)


def test_a_pause_ends_a_word_and_a_late_rest_joins_it():
    detector = WordBoundaryDetector(SYMBOLS)
    state = detector.init_state()
    assert detector.read([5] + [0] * (PAUSE_FRAMES - 1), state) == []
    assert [word.text for word in detector.read([0], state)] == ["ta"]
    (rest,) = detector.read([6, 4], state)
    assert rest.text == "ble" and rest.joined


def test_a_pause_after_a_bare_mark_leaves_its_letters_a_word_of_their_own():
    detector = WordBoundaryDetector([*SYMBOLS, "▁"])
    state = detector.init_state()
    (le, bare) = detector.read([4, 7] + [0] * PAUSE_FRAMES, state)
    assert le.text == "le" and not bare.text  # which counts, but is not shown
    (ble,) = detector.read([6, 4], state)
    assert ble.text == "ble" and not ble.joined
    (le,) = detector.read([], state, is_last=True)
    assert le.text == "le" and not le.joined


def test_same_subword_twice_is_two_words():
    assert [word.text for word in detect([4, 0, 4])] == ["le", "le"]


def run(policy, evidence):
    state, budgets = PolicyState(), []
    for frames, (words, source, target) in enumerate(evidence, start=1):
        budget, state = policy(Evidence(frames, words, source, target), state)
        budgets.append(budget.tokens if budget and budget.words is None else budget and budget.words)
    return budgets


def test_alignment_policy_needs_a_finished_word_and_new_target_tokens():
    evidence = [(0, 1, 1), (1, 2, 1), (1, 2, 3), (2, 3, 3), (3, 4, 4)]
    assert run(AlignmentBasedPolicy(), evidence) == [None, 1, None, 3, 4]
    assert run(AlignmentBasedPolicy(stride_n=2), evidence) == [None, None, 3, None, None]
    assert run(AlignmentBasedPolicy(lag_k=1), evidence) == [None, None, 2, None, 3]


def test_a_finished_word_waits_for_its_target_tokens():
    assert run(AlignmentBasedPolicy(), [(1, 1, 0), (1, 1, 0), (1, 1, 2)]) == [None, None, 2]


def test_stride_policy_counts_tokens_of_both_sides():
    assert run(StridePolicy(2), [(0, 2, 1), (0, 2, 3), (0, 4, 3), (0, 4, 5)]) == [None, 2, None, 4]


def test_wait_k_writes_one_word_for_each_after_the_kth():
    assert run(WaitKPolicy(2), [(1, 0, 0), (2, 0, 0), (2, 0, 0), (4, 0, 0)]) == [None, 1, None, 3]


def test_fixed_rate_looks_at_the_clock_only():
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
    ],
)
def test_bad_policies_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build_policy(**options)


def test_budget_limits():
    assert Budget().allows(1000, 1000)
    assert Budget(tokens=3).allows(3, 9) and not Budget(tokens=3).allows(4, 1)
    assert Budget(words=2).allows(9, 2) and not Budget(words=2).allows(1, 3)


def test_training_sees_what_the_policy_will_see():
    # Source words end at frames 2 (the next begins) and 6; the target has read 1, then 3 tokens by then.
    asr = torch.tensor([[4, 0, 4, 0, 5, 6, 4, 0, 0, 0]])
    st = torch.tensor([[0, 7, 0, 0, 8, 9, 0, 0, 0, 0]])
    word_ids = torch.tensor([[0, 1, 1, 2, 3]])  # words of 1, 2 and 1 tokens, then the end symbol
    begins = torch.tensor([symbol.startswith("▁") for symbol in SYMBOLS])
    options = (torch.tensor([10]), torch.tensor([5]), word_ids, begins, AlignmentBasedPolicy())
    lengths, targets, *rest = options

    def visible(segment):
        return visible_frames_from_policy(asr, st, lengths, segment, targets, *rest)[0].tolist()

    assert visible(1) == [3, 7, 7, 10, 10]
    assert visible(4) == [4, 8, 8, 10, 10]
    assert visible(0) == [10] * 5


def test_without_evidence_training_sees_everything():
    blank = torch.zeros(2, 6, dtype=torch.long)
    visible = visible_frames_from_policy(
        blank,
        blank,
        torch.tensor([6, 3]),
        1,
        torch.tensor([2, 2]),
        torch.tensor([[0, 1], [0, 1]]),
        torch.zeros(7, dtype=torch.bool),
        AlignmentBasedPolicy(),
    )
    assert visible.tolist() == [[6, 6], [3, 3]]


def test_recomposer_places_words_where_their_units_sound():
    recomposer = SentenceRecomposer(16_000, 320, sentence_pause_ms=100)
    state = recomposer.init_state()
    recomposer.add_words([TargetWord("good", (1, 2)), TargetWord("day", (3,)), TargetWord("", (4,))], 1.2, state)
    words, samples = recomposer.place([5], torch.zeros(1600).numpy(), state)
    assert words == [] and samples.size == 1600
    words, _ = recomposer.place([5, 10, 5], torch.zeros(6400).numpy(), state)
    assert [(word.text, word.start_s, word.end_s, word.source_time_s) for word in words] == [
        ("good", 0.0, 0.2, 1.2),
        ("day", 0.2, 0.4, 1.2),
    ]
    recomposer.end_sentence(state)
    recomposer.add_words([TargetWord("bye", (1,))], 3.0, state)
    (word,), samples = recomposer.place([10], torch.zeros(3200).numpy(), state)
    assert samples.size == 1600 + 3200  # the pause comes first
    assert (word.start_s, word.end_s) == (0.6, 0.8)


def test_sentences_end_at_pauses_and_at_final_punctuation():
    recomposer = SentenceRecomposer(16_000, 320, end_silence_ms=800)
    assert recomposer.ends_sentence(800, "and") and not recomposer.ends_sentence(760, "and")
    assert recomposer.ends_sentence(0, "done.") and not recomposer.ends_sentence(0, "o'clock")
