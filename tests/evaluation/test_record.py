"""The log of steps after writing, resuming and interruptions."""

import pytest

from echostream.evaluation.record import (
    LOG_NAME,
    StepRecord,
    UtteranceRecord,
    WordRecord,
    append_record,
    load_records,
)


def record(index: int, text: str = " é") -> UtteranceRecord:
    word = WordRecord("é", 320.0, 0.0, 150.5)
    steps = [StepRecord(320.0, 1.5), StepRecord(1000.0, 2.5, 150.5, text, " s", (word,), " e", sentence_ends=(0, 2))]
    return UtteranceRecord(index, 1000.0, steps)


def test_record_survives_serialisation():
    assert UtteranceRecord.from_json(record(3).to_json()) == record(3)
    assert (record(3).text, record(3).source_text, record(3).evidence) == ("é", "s", "e")


def test_steps_without_output_are_short():
    assert StepRecord(320.0, 1.5).to_dict() == {"arrived_ms": 320.0, "compute_ms": 1.5}


def test_text_keeps_joined_words_together():
    steps = [StepRecord(1, 1, text=text) for text in (" well", ",", "", " then")]
    assert UtteranceRecord(0, 1.0, steps).text == "well, then"


def test_a_fresh_run_replaces_and_a_resumed_one_appends(tmp_path):
    append_record(tmp_path, record(0))
    append_record(tmp_path, record(0, " old"), fresh=True)
    append_record(tmp_path, record(1))
    append_record(tmp_path, record(0, " new"))
    assert {i: r.text for i, r in load_records(tmp_path).items()} == {0: "new", 1: "é"}


def test_incomplete_line_of_a_killed_run_is_skipped(tmp_path):
    append_record(tmp_path, record(0))
    whole = (tmp_path / LOG_NAME).read_text(encoding="utf-8")
    (tmp_path / LOG_NAME).write_text(whole + whole[:50], encoding="utf-8")
    assert list(load_records(tmp_path)) == [0]
    append_record(tmp_path, record(1))
    assert list(load_records(tmp_path)) == [0, 1]


def test_error_names_a_missing_log(tmp_path):
    with pytest.raises(ValueError, match=r"steps\.jsonl is missing"):
        load_records(tmp_path)


def test_a_word_is_there_when_its_last_part_is():
    """At 40 ms a policy that goes by subwords gives many words in two outputs."""
    first, rest, other = WordRecord("wor", 320.0, 0.0, 80.0), WordRecord("ld", 400.0, 80.0, 200.0, True), WordRecord(
        "is", 400.0, 200.0, 240.0
    )  # fmt: skip
    steps = [StepRecord(320, 1, 80, " wor", words=(first,)), StepRecord(360, 1)]
    split = UtteranceRecord(0, 500.0, [*steps, StepRecord(400, 1, 160, "ld is", words=(rest, other))])
    assert split.text == "world is"
    assert split.words == [(2, WordRecord("world", 400.0, 0.0, 200.0)), (2, other)]
    assert UtteranceRecord.from_json(split.to_json()) == split
    assert "joined" not in StepRecord(1, 1, words=(first,)).to_dict()["words"][0]
    alone = UtteranceRecord(0, 500.0, [StepRecord(400, 1, 160, "ld is", words=(rest, other))])
    assert [word.text for _, word in alone.words] == ["ld", "is"]
