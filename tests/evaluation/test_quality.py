"""Quality metrics compared with results by hand; the recogniser is used only if it is installed."""

import math

import numpy as np
import pytest
import soundfile
from simuleval.evaluator.scorers.quality_scorer import QUALITY_SCORERS_DICT

from echostream.evaluation import asr
from echostream.evaluation.quality import (
    bleu,
    chrf,
    normalise,
    remove_pauses,
    unigram_precision,
    unigram_recall,
    wer,
)
from echostream.evaluation.spoken_form import spoken_form


def test_normalise():
    assert normalise("  It's “fine”, l’été: 3€ -- isn't IT? 'quoted'") == "it's fine l'été 3 isn't it quoted"


def test_wer_is_computed_over_all_words():
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


def test_text_metrics_of_speech_output_use_its_text(speech_log, score):
    assert score(speech_log, quality=("ECHO_WER",))["ECHO_WER"] == pytest.approx(100 * 2 / 4)


@pytest.fixture
def reader(monkeypatch, tmp_path):
    """A recogniser whose transcript contains the length of the audio in ms, to test all code around Whisper."""
    monkeypatch.setattr("echostream.evaluation.quality.find_model", lambda model, language: tmp_path)
    monkeypatch.setattr(asr.Transcriber, "_transcribe", lambda self, samples: f"ab cd {len(samples) // 16}")


def test_speech_metrics_with_and_without_pauses(speech_log, score, reader):
    names = ("ECHO_ASR_WER", "ECHO_ASR_WER_NoPause", "ECHO_ASR_WER_OwnText", "ECHO_ASR_BLEU")
    result = score(speech_log, quality=names)
    # Transcripts: "ab cd 1000" with pauses, "ab cd 700" without, and an empty one for the second utterance.
    assert result["ECHO_ASR_WER"] == result["ECHO_ASR_WER_NoPause"] == pytest.approx(100 * 2 / 4)
    assert result["ECHO_ASR_WER_OwnText"] == pytest.approx(100 * 1 / 2)
    assert result["ECHO_ASR_BLEU"] == pytest.approx(bleu(["ab cd 1000", ""], ["ab cd ef", "gh"]))
    read = (speech_log / "transcripts.jsonl").read_text(encoding="utf-8")
    assert read.count("\n") == 2
    assert "ab cd 1000" in read
    assert "ab cd 700" in read


def test_all_quality_metrics_are_registered():
    expected = {f"ECHO_{name}" for name in ("BLEU", "chrF", "WER", "SourceWER", "ST_Recall", "ST_Precision")}
    spoken = [f"ECHO_ASR_{name}{end}" for name in ("BLEU", "chrF", "WER") for end in ("", "_NoPause")]
    spoken.append("ECHO_ASR_WER_OwnText")
    expected |= {f"{name}{judge}" for name in spoken for judge in ("", "@base", "@tiny.en")}
    assert {name for name in QUALITY_SCORERS_DICT if name.startswith("ECHO_")} == expected


def test_source_wer_uses_reference_transcripts(speech_log, score, tmp_path):
    (tmp_path / "source_text.txt").write_text("un deux\ntrois\n", encoding="utf-8")
    result = score(speech_log, quality=("ECHO_SourceWER",), source_text=str(tmp_path / "source_text.txt"))
    assert result["ECHO_SourceWER"] == pytest.approx(100 * 2 / 3)  # "un de", and nothing
    (tmp_path / "source_text.txt").write_text("un deux\n", encoding="utf-8")
    with pytest.raises(ValueError, match="has 1 lines, too few"):
        score(speech_log, quality=("ECHO_SourceWER",), source_text=str(tmp_path / "source_text.txt"))
    with pytest.raises(SystemExit, match="need the sources' transcripts"):
        score(speech_log, quality=("ECHO_SourceWER",), source_text=str(tmp_path / "none.txt"))


def test_words_of_the_st_ctc_count_in_any_order(speech_log, score):
    # "ef xy ab" for "ab cd ef", nothing for "gh"
    result = score(speech_log, quality=("ECHO_ST_Recall", "ECHO_ST_Precision"))
    assert result == {"ECHO_ST_Recall": pytest.approx(100 * 2 / 4), "ECHO_ST_Precision": pytest.approx(100 * 2 / 3)}


def test_repeated_words_count_once_for_each_in_the_reference():
    assert unigram_recall(["the the the cat"], ["the cat on the mat"]) == pytest.approx(100 * 3 / 5)
    assert unigram_precision(["the the the cat"], ["the cat on the mat"]) == pytest.approx(100 * 3 / 4)
    assert math.isnan(unigram_precision([""], ["a"]))


def test_one_run_can_use_two_recognisers(speech_log, score, monkeypatch, tmp_path):
    monkeypatch.setattr("echostream.evaluation.quality.find_model", lambda model, language: tmp_path / str(model))
    heard = {"base": "ab cd ef", "tiny.en": "ab"}
    monkeypatch.setattr(asr.Transcriber, "_transcribe", lambda self, samples: heard[self.model.name])
    names = ("ECHO_ASR_WER", "ECHO_ASR_WER@tiny.en")
    cache = tmp_path / "read.jsonl"
    result = score(speech_log, quality=names, asr_model="base", asr_compute="int8", asr_cache=str(cache))
    # for "ab cd ef"; and nothing for "gh"
    assert result == {"ECHO_ASR_WER": pytest.approx(100 * 1 / 4), "ECHO_ASR_WER@tiny.en": pytest.approx(100 * 3 / 4)}
    assert cache.read_text(encoding="utf-8").count("(int8)") == 2
    assert not (speech_log / "transcripts.jsonl").exists()


def test_speech_metrics_reject_text_output(text_log, score, reader):
    with pytest.raises(ValueError, match="speech output"):
        score(text_log, quality=("ECHO_ASR_BLEU",))


@pytest.mark.parametrize(
    ("read", "reference"),
    [
        ("It'd cost €760.", "it would cost seven hundred and sixty euros"),
        ("At 8:30, platform 22!", "at eight thirty platform twenty two"),
        ("The code is 9, 7, 1, 4.", "the code is nine seven one four"),
        ("In 2027, 5 kilometers.", "in twenty twenty seven, 5 kilometres"),
    ],
)
def test_equal_sounding_texts_have_equal_spoken_forms(read, reference):
    pytest.importorskip("whisper_normalizer")
    write = spoken_form("en")
    assert normalise(write(read)) == normalise(write(reference))
    assert spoken_form("fr")(read) == read


def test_a_missing_recogniser_stops_the_evaluation(speech_log, score, monkeypatch):
    monkeypatch.setattr(asr.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="pip install faster-whisper"):
        score(speech_log, quality=("ECHO_ASR_BLEU",))
