"""A table of what is said of sounds without a sentence; interrupted, the kinds that are missing are judged."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import soundfile
from model_files import save_model
from tiny_models import speech_like

from echostream.streaming import StreamingTranslator
from scripts.judging import judge_wordless


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech")
    for number in range(4):
        soundfile.write(folder / f"{number}.wav", speech_like(0.8 + 0.4 * number, 16_000, number), 16_000)
    return folder


def run(monkeypatch, *options: object) -> int:
    monkeypatch.setattr(sys, "argv", ["judge_wordless.py", *map(str, options)])
    return judge_wordless.main()


def test_words_are_counted_and_finished_kinds_are_kept(recordings, tmp_path, monkeypatch, capsys):
    model = save_model(StreamingTranslator.random("echostream_tiny", seed=5), tmp_path / "model", "policy: fixed-rate")
    options = ["--model", model, "--foreign", recordings, "--spoken", recordings, "--minutes", 0.1]
    options += ["--output", tmp_path / "out"]
    assert run(monkeypatch, *options, "--kinds", "noise") == 0
    file = tmp_path / "out/wordless.json"
    first = json.loads(file.read_text(encoding="utf-8"))["kinds"]
    assert first.keys() == {"noise"} and first["noise"]["said"] == len(first["noise"]["words"]) > 0
    marked = {"minutes": 0.1, "heard": 1, "said": 2, "words": ["kept", "words"]}
    content = json.loads(file.read_text(encoding="utf-8")) | {"kinds": {"noise": marked}}
    file.write_text(json.dumps(content), encoding="utf-8")
    capsys.readouterr()
    assert run(monkeypatch, *options, "--kinds", "noise", "reversed", "one word") == 0
    table = capsys.readouterr().out
    assert "| noise | 10.0 | 20.0 |" in table and "| reversed |" in table and "| one word |" in table
    with pytest.raises(SystemExit, match="other options"):
        run(monkeypatch, *options, "--seed", 1)


def test_sounds_are_the_same_each_time_and_no_louder_than_they_may_be(recordings):
    speech = [np.ones(16_000, np.float32)]
    one, other = (judge_wordless.Sounds(speech, speech, seed=3) for _ in range(2))
    for kind in judge_wordless.KINDS:
        sound = next(one.of(kind))
        assert np.array_equal(sound, next(other.of(kind)))
        assert 0 < np.abs(sound).max() <= judge_wordless.LOUDNESS[1] and not sound[-16_000:].any()


def test_bad_options_are_named(recordings, tmp_path, monkeypatch, capsys):
    options = ["--model", tmp_path, "--output", tmp_path / "out", "--spoken", recordings]
    with pytest.raises(SystemExit):
        run(monkeypatch, *options, "--foreign", "nowhere")
    assert "no such file or folder: nowhere" in capsys.readouterr().err
    with pytest.raises(SystemExit, match=r"^error: "):
        run(monkeypatch, *options, "--foreign", recordings)
