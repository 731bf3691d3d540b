"""Source words on hand-made CTC paths with known results."""

import pytest

from echostream.decoding.word_boundary import WordBoundaryDetector
from echostream.decoding.words import PAUSE_FRAMES

# 0 blank, 4 "▁le", 5 "▁ta", 6 "ble"
SYMBOLS = ["<s>", "<pad>", "</s>", "<unk>", "▁le", "▁ta", "ble"]


def detect(classes, cuts=()):
    detector = WordBoundaryDetector(SYMBOLS)
    state, words, start = detector.init_state(), [], 0
    for end in [*cuts, len(classes)]:
        finished, _, state = detector.process_segment(classes[start:end], state, is_last=end == len(classes))
        words += finished
        start = end
    return words


def test_words_have_their_times():
    words = detect([0, 4, 4, 0, 5, 0, 6, 6, 0])
    assert [(word.text, round(word.start_s, 2), round(word.end_s, 2)) for word in words] == [
        ("le", 0.04, 0.12),
        ("table", 0.16, 0.32),
    ]


@pytest.mark.parametrize("cuts", [(1,), (2, 3, 5), tuple(range(1, 9))])
def test_words_do_not_depend_on_chunk_boundaries(cuts):
    classes = [0, 4, 4, 0, 5, 0, 6, 6, 0]
    assert detect(classes, cuts) == detect(classes)


def test_pause_ends_a_word_and_a_late_continuation_joins_it():
    detector = WordBoundaryDetector(SYMBOLS)
    state = detector.init_state()
    words, _, state = detector.process_segment([5] + [0] * (PAUSE_FRAMES - 1), state)
    assert words == []
    words, _, state = detector.process_segment([0], state)
    assert [word.text for word in words] == ["ta"]
    (rest,), _, _ = detector.process_segment([6, 4], state)
    assert rest.text == "ble" and rest.joined


def test_pause_after_a_single_word_mark_starts_a_new_word():
    detector = WordBoundaryDetector([*SYMBOLS, "▁"])
    state = detector.init_state()
    (le, mark), _, state = detector.process_segment([4, 7] + [0] * PAUSE_FRAMES, state)
    assert le.text == "le" and not mark.text  # counted as a word, but not displayed
    (ble,), _, state = detector.process_segment([6, 4], state)
    assert ble.text == "ble" and not ble.joined
    (le,), _, _ = detector.process_segment([], state, is_last=True)
    assert le.text == "le" and not le.joined


def test_same_subword_twice_is_two_words():
    assert [word.text for word in detect([4, 0, 4])] == ["le", "le"]
