"""Test sets of long speech: what lies where in the streams."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from echostream.constants import SAMPLE_RATE
from scripts.judging import long_set

LENGTHS = (8_000, 16_000, 12_345)


@pytest.fixture
def lists(tmp_path) -> Path:
    for index, length in enumerate(LENGTHS):
        wave = (0.3 * np.sin(np.arange(length) * (0.05 + 0.05 * index))).astype(np.float32)
        soundfile.write(tmp_path / f"{index}.wav", wave, SAMPLE_RATE, subtype="PCM_16")
    files = "".join(f"{tmp_path / f'{index}.wav'}\n" for index in range(len(LENGTHS)))
    (tmp_path / "source.txt").write_text(files, encoding="utf-8")
    (tmp_path / "target.txt").write_text("one.\ntwo and more.\nthree?\n", encoding="utf-8")
    (tmp_path / "source_text.txt").write_text("un\ndeux et plus\ntrois\n", encoding="utf-8")
    return tmp_path


def make(lists: Path, monkeypatch, *options: str) -> Path:
    output = lists / "out"
    command = ["--source", lists / "source.txt", "--target", lists / "target.txt", "--output", output, *options]
    monkeypatch.setattr(sys, "argv", ["long_set.py", *map(str, command)])
    long_set.main()
    return output


def test_each_sentence_lies_where_the_set_says(lists, monkeypatch):
    output = make(lists, monkeypatch, "--pauses", "0", "0.6", "--minutes", "0.1", "--streams", "2",
                  "--source-text", str(lists / "source_text.txt"))  # fmt: skip
    for pause_s in (0.0, 0.6):
        folder = output / long_set.pause_folder(pause_s)
        segments = json.loads((folder / "segments.json").read_text(encoding="utf-8"))
        sentences = (folder / "sentences.txt").read_text(encoding="utf-8").splitlines()
        assert len(segments) == len(sentences) > 6
        assert [segment["line"] for segment in segments[:3]] == [0, 1, 2], "in the order of the lists first"
        assert sorted(segment["line"] for segment in segments[3:6]) == [0, 1, 2]
        streams = [Path(line) for line in (folder / "source.txt").read_text(encoding="utf-8").splitlines()]
        assert len(streams) == 2 and len({segment["wav"] for segment in segments}) == 2
        for path in streams:
            wave, rate = soundfile.read(path, dtype="int16")
            own = [segment for segment in segments if segment["wav"] == path.name]
            assert rate == SAMPLE_RATE and 4 * SAMPLE_RATE < len(wave) <= 6 * SAMPLE_RATE
            end = 0
            for segment in own:
                start = round(segment["offset"] * SAMPLE_RATE)
                assert start - end == (round(pause_s * SAMPLE_RATE) if end else 0)
                said, _ = soundfile.read(lists / f"{segment['line']}.wav", dtype="int16")
                end = start + round(segment["duration"] * SAMPLE_RATE)
                assert np.array_equal(wave[start:end], said)
                assert start == 0 or np.abs(wave[start - round(pause_s * SAMPLE_RATE) : start]).max(initial=0) <= 1
            assert end == len(wave)
        targets = (folder / "target.txt").read_text(encoding="utf-8").splitlines()
        assert " ".join(targets) == " ".join(sentences)
        assert (folder / "source_text.txt").read_text(encoding="utf-8").startswith("un deux et plus trois ")
    alone = (output / "alone" / "target.txt").read_text(encoding="utf-8").splitlines()
    assert alone == ["one.", "two and more.", "three?"]


def test_the_same_lists_give_the_same_bytes(lists, monkeypatch):
    def contents() -> dict[str, bytes]:
        output = make(lists, monkeypatch, "--pauses", "0.3", "--minutes", "0.2")
        return {path.name: path.read_bytes() for path in (output / "pause_300ms").iterdir()}

    first = contents()
    assert first == contents() and len(first) == 5  # without transcripts there is no list of them


def test_a_sentence_longer_than_a_stream_is_one(lists, monkeypatch):
    output = make(lists, monkeypatch, "--pauses", "0", "--minutes", "0.001", "--limit", "1", "--streams", "2")
    assert len(json.loads((output / "pause_0ms" / "segments.json").read_text(encoding="utf-8"))) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--minutes", "0"], "--minutes must be above 0"),
        (["--minutes", "nan"], "--minutes must be above 0"),
        (["--pauses", "-1"], "--pauses must be from 0 to 60 s"),
        (["--source-text", "{folder}/short.txt"], "they must match"),
    ],
)
def test_bad_options_end_with_one_line(lists, monkeypatch, capsys, options, message):
    (lists / "short.txt").write_text("un\n", encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        make(lists, monkeypatch, *(option.format(folder=lists) for option in options))
    assert message in capsys.readouterr().err + str(stopped.value)
