"""An hour of made-up words becomes subtitles that can be read, and that another program reads."""

import random
import re

import pytest
import webvtt
from made_up_words import made_up_words

from echostream.constants import DOUBTFUL
from echostream.decoding.word_boundary import SourceWord
from echostream.streaming import OutputWord, SentenceRecomposer
from echostream.streaming.cues import (
    LINE_CHARACTERS,
    MAX_DURATION_S,
    MAX_LATE_S,
    MIN_DURATION_S,
    READING_CHARACTERS_S,
    SOURCE,
    TRANSLATION,
    Cue,
    Track,
    lines,
    marked_lines,
    whole_cues,
)
from echostream.streaming.subtitles import subrip_block, whole_subtitles

RECOMPOSER = SentenceRecomposer(16_000, 320)
ROUNDING_S = 0.002


def text_of(words: list[SourceWord] | list[OutputWord]) -> str:
    return "".join(word.text if word.joined else f" {word.text}" for word in words)


@pytest.fixture(scope="module")
def hour() -> tuple[list[SourceWord], list[list[OutputWord]]]:
    return made_up_words(3600.0)


def test_an_hour_keeps_the_limits_as_another_reader_sees_it(hour, tmp_path):
    source, sentences = hour
    (tmp_path / "hour.vtt").write_text(whole_subtitles(source, sentences, RECOMPOSER), encoding="utf-8")
    found = list(webvtt.read(str(tmp_path / "hour.vtt")))
    translation = [word for sentence in sentences for word in sentence]
    for track, words in ((SOURCE, source), (TRANSLATION, translation)):
        cues = [cue for cue in found if cue.identifier.startswith(track)]
        assert len(cues) > 500
        assert "".join("".join(cue.text.split()) for cue in cues) == "".join(text_of(words).split())
        starts = [word.start_s for word in words for _ in word.text]
        hurried = shown = 0
        for number, cue in enumerate(cues):
            shown_lines = cue.text.split("\n")
            assert 1 <= len(shown_lines) <= 2 and max(map(len, shown_lines)) <= LINE_CHARACTERS
            start_s, end_s = seconds(cue.start), seconds(cue.end)
            assert MIN_DURATION_S - ROUNDING_S <= end_s - start_s <= MAX_DURATION_S + ROUNDING_S
            following = cues[number + 1] if number + 1 < len(cues) else None
            assert following is None or end_s <= seconds(following.start), "cues of one kind do not overlap"
            assert -ROUNDING_S <= start_s - starts[shown] <= MAX_LATE_S + MIN_DURATION_S, "near its first word"
            shown += len("".join(cue.text.split()))
            if len(cue.text) / (end_s - start_s + ROUNDING_S) > READING_CHARACTERS_S:
                hurried += 1  # ... and the speech allows no more: the next one has waited as long as it may
                assert following is not None and seconds(following.start) == end_s
        assert hurried < 0.1 * len(cues)


def test_doubtful_words_and_no_others_are_marked(hour, tmp_path):
    (tmp_path / "hour.vtt").write_text(whole_subtitles(*hour, RECOMPOSER), encoding="utf-8")
    is_marked = []  # each character of the translation that is no space
    for cue in webvtt.read(str(tmp_path / "hour.vtt")):
        for number, piece in enumerate(re.split("<c.doubtful>|</c>", cue.raw_text)):
            assert cue.identifier.startswith(TRANSLATION) or not number, "the source has no confidence"
            is_marked += [number % 2 == 1] * len("".join(piece.split())) * cue.identifier.startswith(TRANSLATION)
    words = [word for sentence in hour[1] for word in sentence]
    at = alone = 0
    for word, following in zip(words, [*words[1:], None], strict=True):
        marks = set(is_marked[at : at + len(word.text)])
        at += len(word.text)
        if word.confidence < DOUBTFUL:
            assert marks == {True}
        elif not word.joined and not (following and following.joined):
            alone += 1
            assert marks == {False}
    assert at == len(is_marked) and alone > 1000


@pytest.mark.parametrize(
    ("text", "doubtful", "expected"),
    [
        ("a bad word", {1}, [[("a", False), ("bad", True), ("word", False)]]),
        ("two bad words", {1, 2}, [[("two", False), ("bad words", True)]]),
        ("b" * 50, {0}, [[("b" * 42, True)], [("b" * 8, True)]]),
        ("a" * 42 + " " + "b" * 42, {1}, [[("a" * 42, False)], [("b" * 42, True)]]),
    ],
)
def test_marks_keep_to_their_lines(text, doubtful, expected):
    assert marked_lines(Cue(0.0, 1.0, TRANSLATION, text, frozenset(doubtful))) == expected


def seconds(text: str) -> float:
    hours, minutes, rest = text.split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(rest)


def test_subrip_is_read_too(hour, tmp_path):
    cues = whole_cues([], hour[1][:200], RECOMPOSER)
    text = "".join(subrip_block(cue, number) for number, cue in enumerate(cues, start=1))
    (tmp_path / "a.srt").write_text(text, encoding="utf-8")
    found = webvtt.from_srt(str(tmp_path / "a.srt"))
    assert [cue.lines for cue in found] == [lines(cue.text) for cue in cues]


def test_cues_do_not_depend_on_when_the_words_come(hour):
    words = hour[0][:400]
    whole = whole_cues(words, [], RECOMPOSER)
    track, cues, rng, at = Track(SOURCE, RECOMPOSER), [], random.Random(1), 0
    while at < len(words):
        count = rng.randint(0, 3)
        cues += track.add(words[at : at + count])
        at += count
        if at < len(words):
            cues += track.settle(words[at].start_s - rng.random() / 2)
    cues += [*track.end_sentence(), *track.settle(float("inf"))]
    assert cues == whole


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("short", ["short"]),
        ("a" * 42, ["a" * 42]),
        ("a" * 50, ["a" * 42, "a" * 8]),
        (" ".join(["word"] * 12), [" ".join(["word"] * 6)] * 2),
        ("a" * 42 + " " + "b" * 42, ["a" * 42, "b" * 42]),
    ],
)
def test_lines_are_balanced(text, expected):
    assert lines(text) == expected


def test_words_longer_than_a_line_are_cut_and_none_is_lost():
    parts = [SourceWord("a" * 100, 0.0, 1.0), SourceWord("b" * 30, 1.0, 1.2, joined=True), SourceWord("c", 1.2, 9.9)]
    cues = whole_cues(parts, [], RECOMPOSER)
    assert "".join(cue.text.replace(" ", "") for cue in cues) == "a" * 100 + "b" * 30 + "c"
    assert all(len(line) <= LINE_CHARACTERS for cue in cues for line in lines(cue.text))
    assert cues[-1].end_s - cues[-1].start_s <= MAX_DURATION_S
    # a word in parts that outgrows its cue goes on in the next one as a whole
    words = [SourceWord("x" * 20, i / 10, i / 10 + 0.1) for i in range(4)]
    words += [SourceWord("y" * 5, 0.4 + i / 10, 0.5 + i / 10, joined=i > 0) for i in range(3)]
    assert [cue.text.split()[-1] for cue in whole_cues(words[3:], [], RECOMPOSER)] == ["y" * 15]
    assert whole_cues(words, [], RECOMPOSER)[-1].text.endswith("y" * 15)
