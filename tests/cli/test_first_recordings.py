"""A newcomer's first recordings, with the model that ships: telephones, browsers, videos, pipes and folders."""

from __future__ import annotations

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
from shipped_model import MODEL, is_alike, short_samples, words_of

from echostream.cli import main, translate
from echostream.streaming import StreamingTranslator

SAMPLE = short_samples(0, least_words=6)[0]


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return SAMPLE.wave


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
    text = StreamingTranslator.from_checkpoint(MODEL, task="s2tt").translate(SAMPLE.path).text
    assert len(words_of(text)) >= len(words_of(SAMPLE.target)) / 2
    return text


def cue_text(path: str | Path) -> str:
    """What the cues of a subtitle file say."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return " ".join(line for line in lines if line and "-->" not in line and not line.isdecimal())


def joined(words: list[dict]) -> str:
    """The text of words as the command writes them in JSON."""
    return "".join(word["text"] if word["joined"] else f" {word['text']}" for word in words).strip()


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
def test_telephone_audio_and_low_bit_rates_end_with_words(speech, said, tmp_path, suffix, rate, bits, capsys):
    """How good they are is for the model to say."""
    encode(speech, tmp_path / f"call{suffix}", suffix, rate=rate, bits=bits)
    assert main(["translate", str(tmp_path / f"call{suffix}"), "--text", "-q"]) == 0
    assert len(words_of(capsys.readouterr().out)) >= len(words_of(said)) / 2


def test_speech_subtitles_and_words_in_the_formats_that_are_named(said, tmp_path, capsys):
    names = {suffix: str(tmp_path / f"holiday{suffix}") for suffix in (".mp3", ".srt", ".vtt", ".json")}
    options = ["--srt", names[".srt"], "--vtt", names[".vtt"], "--json", names[".json"]]
    assert main(["translate", str(SAMPLE.path), "-o", names[".mp3"], *options]) == 0
    status = capsys.readouterr().err
    assert all(name in status for name in names.values())
    assert soundfile.info(names[".mp3"]).duration > 0.5
    cues = Path(names[".srt"]).read_text(encoding="utf-8")
    assert re.fullmatch(r"(\d\n00:00:\d\d,\d{3} --> 00:00:\d\d,\d{3}\n.+\n(.+\n)?\n)+", cues)
    assert cue_text(names[".srt"]) == said
    assert all(word in Path(names[".vtt"]).read_text(encoding="utf-8") for word in said.split())
    content = json.loads(Path(names[".json"]).read_text(encoding="utf-8"))
    assert content["recording"] == str(SAMPLE.path)
    words = [word for word in content["words"] if word["track"] == "translation"]
    assert joined(words) == said
    assert [word["end_s"] for word in words] == sorted(word["end_s"] for word in words)
    assert main(["asr", str(SAMPLE.path), "--srt", names[".srt"], "--json", "-", "-q"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["track"] for line in lines} == {"source"}
    assert joined(lines) == cue_text(names[".srt"])


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
    assert all(is_alike(cue_text(folder / name), said) for name in ("one.srt", "two.srt"))
    (folder / "notes.m4a").write_text("not a recording, whatever its name says", encoding="utf-8")
    assert main(["translate", str(folder), "--text"]) == 1
    shown, status = capsys.readouterr()
    assert "notes.m4a as audio: " in status and len(re.findall(r"^==> ", shown, re.MULTILINE)) == 2
    assert main(["translate", str(folder / "more")]) == 1
    assert "no recordings in" in capsys.readouterr().err


def test_a_whole_recording_as_one_segment_has_a_limit(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("echostream.cli.session.MAX_WHOLE_S", 0.8 * SAMPLE.seconds)
    assert main(["translate", str(SAMPLE.path), "--segment-ms", "0", "--text", "-q"]) == 1
    shown, status = capsys.readouterr()
    assert "give --segment-ms 320" in status and status.count("\n") == 1 and len(words_of(shown)) > 1
