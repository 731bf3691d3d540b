"""A newcomer's first recordings, with the model that ships: telephones, browsers, videos, pipes and folders."""

from __future__ import annotations

import difflib
import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from encoded import encode, encoded

from echostream.cli import main, translate
from echostream.streaming import StreamingTranslator

REPOSITORY = Path(__file__).resolve().parents[2]
SAMPLE = REPOSITORY / "models" / "fr-en" / "samples" / "tatoeba_1.flac"


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return soundfile.read(SAMPLE, dtype="float32")[0]


@pytest.fixture(autouse=True)
def one_model(tmp_path, monkeypatch):
    """The model of the checkout is the only one."""
    monkeypatch.setenv("ECHOSTREAM_MODELS", str(tmp_path / "none"))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def loaded() -> dict[str, StreamingTranslator]:
    return {}


@pytest.fixture(autouse=True)
def loads_once(loaded, monkeypatch):
    """Load the model for the first command with these options only."""
    load = translate.load_translator

    def load_once(args, task):
        key = f"{task} {args.segment_ms}"
        if key not in loaded:
            loaded[key] = load(args, task)
        return loaded[key]

    monkeypatch.setattr(translate, "load_translator", load_once)


@pytest.fixture
def pipe(monkeypatch):
    def put(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(content))))

    return put


@pytest.fixture(scope="module")
def said() -> str:
    """The translation of the sample, whatever model ships."""
    return StreamingTranslator.from_checkpoint(REPOSITORY / "models" / "fr-en", task="s2tt").translate(SAMPLE).text


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def is_alike(text: str, said: str) -> bool:
    """Whether most words are the same, as much as can be asked of another encoding of the same speech."""
    return difflib.SequenceMatcher(None, words_of(text), words_of(said)).ratio() > 0.5


@pytest.mark.parametrize("suffix", [".m4a", ".webm", ".mp4"])
def test_a_recording_of_a_telephone_or_a_browser_is_translated(speech, said, tmp_path, suffix, capsys):
    encode(speech, tmp_path / f"talk{suffix}", suffix, with_video=suffix == ".mp4")
    assert main(["translate", str(tmp_path / f"talk{suffix}"), "--text", "-q"]) == 0
    assert is_alike(capsys.readouterr().out, said)


@pytest.mark.parametrize("suffix", [".mp3", ".flac", ".ogg", ".opus", ".m4a", ".webm", ".wav"])
def test_a_recording_in_a_pipe_is_decoded(speech, said, pipe, suffix, capsys):
    pipe(encoded(speech, suffix, rate=16_000 if suffix == ".wav" else None))
    assert main(["translate", "-", "--text", "-q"]) == 0
    assert is_alike(capsys.readouterr().out, said)


@pytest.mark.parametrize(
    ("suffix", "rate", "bits"), [(".wav", 8_000, None), (".mp3", 16_000, 24_000), (".3gp", 8_000, None)]
)
def test_telephone_audio_and_low_bit_rates_end_with_words(speech, tmp_path, suffix, rate, bits, capsys):
    """How good they are is for the model to say."""
    encode(speech, tmp_path / f"call{suffix}", suffix, rate=rate, bits=bits)
    assert main(["translate", str(tmp_path / f"call{suffix}"), "--text", "-q"]) == 0
    assert len(words_of(capsys.readouterr().out)) > 3


def test_speech_subtitles_and_words_in_the_formats_that_are_named(said, tmp_path, capsys):
    names = {suffix: str(tmp_path / f"holiday{suffix}") for suffix in (".mp3", ".srt", ".vtt", ".json")}
    options = ["--srt", names[".srt"], "--vtt", names[".vtt"], "--json", names[".json"]]
    assert main(["translate", str(SAMPLE), "-o", names[".mp3"], *options]) == 0
    status = capsys.readouterr().err
    assert all(name in status for name in names.values())
    assert soundfile.info(names[".mp3"]).duration > 1
    cues = Path(names[".srt"]).read_text(encoding="utf-8")
    assert re.fullmatch(rf"1\n00:00:0\d,\d{{3}} --> 00:00:0\d,\d{{3}}\n{re.escape(said)}\n\n", cues)
    assert said in Path(names[".vtt"]).read_text(encoding="utf-8")
    content = json.loads(Path(names[".json"]).read_text(encoding="utf-8"))
    assert content["recording"] == str(SAMPLE)
    words = [word for word in content["words"] if word["track"] == "translation"]
    assert " ".join(word["text"] for word in words) == said
    assert [word["end_s"] for word in words] == sorted(word["end_s"] for word in words)
    assert main(["asr", str(SAMPLE), "--srt", names[".srt"], "--json", "-", "-q"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["track"] for line in lines} == {"source"}
    assert " ".join(line["text"] for line in lines) in Path(names[".srt"]).read_text(encoding="utf-8")


def test_a_folder_names_what_it_skips(speech, said, tmp_path, capsys):
    folder = tmp_path / "talks"
    (folder / "more").mkdir(parents=True)
    encode(speech, folder / "one.m4a", ".m4a")
    encode(speech, folder / "two.webm", ".webm")
    for name in ("notes.txt", ".hidden", "one.vtt", "three.vtt", "one.translated.mp3"):
        (folder / name).write_text("", encoding="utf-8")
    assert main(["translate", str(folder), "--task", "s2tt", "--srt", str(folder)]) == 0
    status = capsys.readouterr().err
    assert f"{folder}: skipped more/, notes.txt, three.vtt: " in status and "hidden" not in status
    assert all(is_alike((folder / name).read_text(encoding="utf-8"), said) for name in ("one.srt", "two.srt"))
    (folder / "notes.m4a").write_text("not a recording, whatever its name says", encoding="utf-8")
    assert main(["translate", str(folder), "--text"]) == 1
    shown, status = capsys.readouterr()
    assert "notes.m4a as audio: " in status and len(re.findall(r"^==> ", shown, re.MULTILINE)) == 2
    assert main(["translate", str(folder / "more")]) == 1
    assert "no recordings in" in capsys.readouterr().err


def test_a_whole_recording_as_one_segment_has_a_limit(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("echostream.cli.session.MAX_WHOLE_S", 2.0)
    assert main(["translate", str(SAMPLE), "--segment-ms", "0", "--text", "-q"]) == 1
    shown, status = capsys.readouterr()
    assert "give --segment-ms 320" in status and status.count("\n") == 1 and len(words_of(shown)) > 3
