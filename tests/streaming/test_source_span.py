"""Source spans do not depend on chunks, and pauses are found at their positions."""

import torch

from echostream.streaming.source_span import SourceSpan

FRAMES = torch.arange(60.0).view(1, 60, 1)
WORDS = [(2, 4), (6, 9), (22, 25), (27, 33), (40, 48)]
SOURCE, TARGET = [2, 3, 6, 9, 22, 25, 27, 33, 40, 48], [5, 11, 24, 30, 45, 55]
HEARD = tuple((start, f" from {start}") for start, _ in WORDS)


def piece(start: int, end: int) -> SourceSpan:
    return SourceSpan(
        FRAMES[:, start:end],
        end,
        [word for word in WORDS if start <= word[1] < end],
        [place for place in SOURCE if start <= place < end],
        [place for place in TARGET if start <= place < end],
        tuple(word for word in HEARD if start <= word[0] < end),
    )


def assert_same(left: SourceSpan, right: SourceSpan) -> None:
    torch.testing.assert_close(left.frames, right.frames, rtol=0, atol=0)
    assert (left.end, left.words) == (right.end, right.words)
    assert (left.source_tokens, left.target_tokens) == (right.source_tokens, right.target_tokens)
    assert left.heard == right.heard


def test_spans_join_to_the_whole_and_drop_old_frames():
    span = piece(0, 0)
    for start, end in ((0, 7), (7, 8), (8, 31), (31, 60)):
        span = span.extended(piece(start, end), window=35)
    assert_same(span, SourceSpan(FRAMES[:, 25:], 60, WORDS[3:], [25, 27, 33, 40, 48], [30, 45, 55], HEARD[3:]))
    assert span.frames.untyped_storage().nbytes() == 35 * 4, "a view would keep what lies before"


def test_since_drops_words_that_started_before():
    assert_same(
        piece(0, 60).since(23),
        SourceSpan(FRAMES[:, 23:], 60, WORDS[3:], [25, 27, 33, 40, 48], [24, 30, 45, 55], HEARD[3:]),
    )
    assert_same(piece(30, 60).since(10), piece(30, 60))  # as far as frames are still kept


def test_before_and_since_add_up_to_the_whole():
    for place in (0, 7, 23, 24, 59, 60, 70):
        before, after = piece(0, 60).before(place), piece(0, 60).since(place)
        assert before.end == min(place, 60) and before.frames.size(1) == before.end
        assert_same(before.extended(after, 60), piece(0, 60))
    late = piece(30, 60).before(10)
    assert late.end == 30 and not late.frames.numel(), "what came before it isn't known"


def test_first_of_the_longest_pauses_is_found():
    span = piece(0, 60)
    assert span.longest_pause(0) == (9 + 22 + 1) // 2
    assert span.longest_pause(21) == 16, "the word after it begins later"
    assert span.longest_pause(22) == (33 + 40 + 1) // 2
    assert span.longest_pause(40) is None
    even = SourceSpan(FRAMES, 60, [(0, 4), (10, 14), (20, 24)], [], [])
    assert even.longest_pause(0) == 7
    assert piece(0, 5).longest_pause(0) is None, "one word has none"
