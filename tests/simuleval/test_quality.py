"""Quality metrics, by hand; the recogniser is only loaded where it is installed."""

import math

import numpy as np
import pytest
import soundfile
from simuleval.evaluator.scorers.quality_scorer import QUALITY_SCORERS_DICT

from echostream.simuleval import asr
from echostream.simuleval.quality import bleu, chrf, normalise, remove_pauses, wer, word_errors


def test_normalise():
    assert normalise("  It's “fine”, l’été: 3€ -- isn't IT? 'quoted'") == "it's fine l'été 3 isn't it quoted"


@pytest.mark.parametrize(
    ("hypothesis", "reference", "errors"),
    [
        ("a b c", "a b c", 0),
        ("", "a b", 2),
        ("a b", "", 2),
        ("a x c", "a b c", 1),
        ("b c d", "a b c", 2),  # one deletion, one insertion
    ],
)
def test_word_errors(hypothesis, reference, errors):
    assert word_errors(hypothesis.split(), reference.split()) == errors


def test_wer_is_of_all_words():
    assert wer(["A b!", "x"], ["a b", "c d"]) == pytest.approx(100 * 2 / 4)
    assert math.isnan(wer([""], [""]))


def test_bleu_and_chrf_compare_without_case_and_punctuation():
    assert bleu(["The cat, sat on the mat."], ["the cat sat on the mat"]) == pytest.approx(100)
    # 1- to 4-grams: 4/5, 3/4, 2/3, 1/2 match, lengths agree
    expected = 100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
    assert bleu(["a b c d x"], ["a b c d e"]) == pytest.approx(expected)
    assert chrf(["AB."], ["ab"]) == pytest.approx(100)


def test_remove_pauses(speech_log):
    samples, rate = soundfile.read(speech_log / "wavs" / "0_pred.wav", dtype="float32")
    joined = remove_pauses(samples, rate, [[400, 200], [800, 100], [1000, 400]])
    tone = (0.1 * np.sin(np.arange(16 * 400))).astype(np.float32)
    assert joined == pytest.approx(np.concatenate([tone[:3200], tone[:1600], tone]), abs=1e-4)


def test_text_metrics(text_log, score):
    # "ab cd" for "ab cd ef", nothing for "gh"
    result = score(text_log, quality=("ECHO_BLEU", "ECHO_chrF", "ECHO_WER"))
    assert result["ECHO_WER"] == pytest.approx(100 * 2 / 4)
    assert result["ECHO_BLEU"] == pytest.approx(bleu(["ab cd", ""], ["ab cd ef", "gh"]))
    assert result["ECHO_chrF"] == pytest.approx(chrf(["ab cd", ""], ["ab cd ef", "gh"]))


def test_speech_is_scored_by_the_text_it_was_made_from(speech_log, score):
    assert score(speech_log, quality=("ECHO_WER",))["ECHO_WER"] == pytest.approx(100 * 2 / 4)


@pytest.fixture
def reader(monkeypatch, tmp_path):
    """A recogniser that reads the length in ms, so that the path around Whisper can be followed."""
    monkeypatch.setattr("echostream.simuleval.quality.find_model", lambda model, language: tmp_path)
    monkeypatch.setattr(asr.Transcriber, "_read", lambda self, samples: f"ab cd {len(samples) // 16}")


def test_speech_metrics_with_and_without_pauses(speech_log, score, reader):
    names = ("ECHO_ASR_WER", "ECHO_ASR_WER_NoPause", "ECHO_ASR_WER_OwnText", "ECHO_ASR_BLEU")
    result = score(speech_log, quality=names)
    # read: "ab cd 1000" with pauses, "ab cd 700" without, nothing for the second
    assert result["ECHO_ASR_WER"] == result["ECHO_ASR_WER_NoPause"] == pytest.approx(100 * 2 / 4)
    assert result["ECHO_ASR_WER_OwnText"] == pytest.approx(100 * 1 / 2)
    assert result["ECHO_ASR_BLEU"] == pytest.approx(bleu(["ab cd 1000", ""], ["ab cd ef", "gh"]))
    read = (speech_log / "transcripts.jsonl").read_text(encoding="utf-8")
    assert read.count("\n") == 2
    assert "ab cd 1000" in read
    assert "ab cd 700" in read


def test_every_quality_metric_is_known():
    expected = {f"ECHO_{name}" for name in ("BLEU", "chrF", "WER")}
    expected |= {f"ECHO_ASR_{name}{end}" for name in ("BLEU", "chrF", "WER") for end in ("", "_NoPause")}
    assert {name for name in QUALITY_SCORERS_DICT if name.startswith("ECHO_")} == {
        *expected,
        "ECHO_ASR_WER_OwnText",
    }


def test_speech_metrics_refuse_text(text_log, score, reader):
    with pytest.raises(ValueError, match="speech output"):
        score(text_log, quality=("ECHO_ASR_BLEU",))


def test_a_missing_recogniser_stops_the_evaluation(speech_log, score, monkeypatch):
    monkeypatch.setattr(asr.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="pip install faster-whisper"):
        score(speech_log, quality=("ECHO_ASR_BLEU",))
