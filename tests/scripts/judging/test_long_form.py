"""Long streams are given back to their sentences, and scored with results by hand; a miniature with the real model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from shipped_model import MODEL, short_samples

from echostream.evaluation.record import StepRecord, UtteranceRecord, WordRecord, append_record
from scripts.judging import long_form

SCRIPTS = Path(__file__).parents[3] / "scripts"
# Two sentences: of four words from 0 to 4 s, and of two from 65 to 67 s.
SENTENCES = ["the cat is here", "good night"]
SEGMENTS = [
    {"wav": "stream_001.wav", "offset": 0.0, "duration": 4.0, "line": 0},
    {"wav": "stream_001.wav", "offset": 65.0, "duration": 2.0, "line": 1},
]


@pytest.fixture
def test_set(tmp_path) -> Path:
    folder = tmp_path / "sets" / "pause_1000ms"
    folder.mkdir(parents=True)
    (folder / "source.txt").write_text("/elsewhere/stream_001.wav\n", encoding="utf-8")
    (folder / "sentences.txt").write_text("".join(f"{text}\n" for text in SENTENCES), encoding="utf-8")
    (folder / "segments.json").write_text(json.dumps(SEGMENTS), encoding="utf-8")
    return folder


def record(*words: tuple[str, float], spoken: bool = False) -> UtteranceRecord:
    """A stream of 67 s whose words come in steps of their own, with 50 ms of computation; a spoken one takes 500 ms."""
    steps, said_ms = [], 0.0
    for text, at_ms in words:
        word = WordRecord(text, at_ms, said_ms, said_ms + 500 * spoken)
        steps.append(StepRecord(at_ms, 50.0, 500.0 * spoken, f" {text}", words=(word,)))
        said_ms += 500 * spoken
    return UtteranceRecord(0, 67_000.0, steps)


EXACT = (("the", 1000), ("cat", 2000), ("is", 3000), ("here", 4000), ("good", 66_000), ("night", 66_500))


@pytest.fixture
def score(test_set, tmp_path):
    pytest.importorskip("omnisteval", reason="needs the extra long-form")

    def score(stream: UtteranceRecord, speech: bool = False, language: str | None = None) -> dict:
        run = tmp_path / "pause_1000ms" / "segment_320ms"
        run.mkdir(parents=True, exist_ok=True)
        append_record(run, stream, fresh=True)
        return long_form.score(run, test_set, speech, language, minutes=1.0)

    return score


def test_latencies_are_those_of_each_sentence(score):
    found = score(record(*EXACT))
    scores = found["scores"]
    assert scores["bleu"] == pytest.approx(100) and scores["chrf"] == pytest.approx(100)
    # Ideal: a word each second from 0, so 1 s behind; in the second sentence words at 0 and 1 s of 2: 1 and 0.5 s.
    assert scores["long_yaal"] == pytest.approx((1000 + 750) / 2)
    # StreamLAAL stops at the first word that comes when the sentence is over, which is the last of each here.
    assert scores["stream_laal"] == pytest.approx((1000 + 750) / 2)
    assert scores["ca_long_yaal"] == pytest.approx(scores["long_yaal"] + 50)
    assert (found["words_due"], found["words_said"], found["sentences_said"]) == (6, 6, 2)
    assert [(part["from_minute"], part["sentences"]) for part in found["by_position"]] == [(0.0, 1), (1.0, 1)]
    assert [part["long_yaal"] for part in found["by_position"]] == pytest.approx([1000, 750])


def test_words_of_no_sentence_count_against_the_one_beside_them(score, tmp_path):
    late = [*EXACT[:4], ("what", 30_000), ("noise", 30_100), *EXACT[4:]]
    found = score(record(*late))
    assert found["scores"]["bleu"] < 90 and found["words_said"] == 8
    path = tmp_path / "pause_1000ms" / "segment_320ms" / "long_form" / "resegmented.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["reference"] for line in lines] == SENTENCES


def test_a_spoken_word_counts_when_its_end_is_heard(score):
    found = score(record(*EXACT, spoken=True), speech=True)
    # "night" waits for "good": 66 to 66.5 s, 66.5 to 67 s
    assert found["scores"]["stream_laal"] == pytest.approx((1500 + (1500 + 1000) / 2) / 2)
    lag = found["spoken_lag"]
    assert lag["lag"]["most_ms"] == pytest.approx(500) and lag["lag"]["drift_ms_a_minute"] == pytest.approx(0)
    assert lag["ca_lag"]["most_ms"] == pytest.approx(550)


def test_a_lost_sentence_is_seen(score):
    found = score(record(*EXACT[:4]))
    assert (found["sentences_due"], found["sentences_said"]) == (2, 1)
    assert found["by_position"][1]["bleu"] == 0 and found["by_position"][1]["long_yaal"] is None


def test_table_sets_streams_beside_sentences_alone(score, tmp_path):
    found = score(record(*EXACT))
    run = tmp_path / "alone" / "segment_320ms"
    run.mkdir(parents=True)
    for index, text in enumerate(SENTENCES):
        words = [(word, 1000.0 + place) for place, word in enumerate(text.split())]
        stream = record(*words)
        append_record(run, UtteranceRecord(index, 4000.0, stream.steps))
    sets = tmp_path / "sets" / "alone"
    sets.mkdir()
    (sets / "target.txt").write_text("".join(f"{text}\n" for text in SENTENCES), encoding="utf-8")
    (sets / "segments.json").write_text(json.dumps([{"line": 0}, {"line": 1}]), encoding="utf-8")
    row = long_form.table(tmp_path).splitlines()[2]
    assert [cell.strip() for cell in row.strip("|").split("|")][:4] == ["1 s", "320 ms", "100.0", "1.00"]
    (result,) = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert result["scores"] == found["scores"] and result["alone"]["bleu"] == pytest.approx(100)


def test_an_unfinished_run_and_an_empty_folder_are_refused(score, tmp_path):
    stream = record(*EXACT)
    with pytest.raises(ValueError, match="finish it first"):
        score(UtteranceRecord(3, 67_000.0, stream.steps))
    with pytest.raises(SystemExit, match="holds no scores"):
        long_form.main(["table", str(tmp_path / "nothing")])


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "omnisteval", None)
    monkeypatch.setitem(sys.modules, "omnisteval.io", None)
    with pytest.raises(SystemExit, match=r"^error: cannot import omnisteval.*long-form.*$"):
        long_form.main(["check"])


def run(*options: object) -> subprocess.CompletedProcess:
    command = [SCRIPTS / "evaluate_long.sh", *options]
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    return subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment, check=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "--model is missing"),
        (("--model", "m", "--source", "s", "--target", "t"), "--output is missing"),
        (("--vad", "--precision", "bfloat16", "--modle", "m"), "unknown option --modle"),
        (("--model", "m", "--source", "s", "--target", "t", "--output", "o", "--task", "asr"), "not 'asr'"),
    ],
)
def test_invalid_options_end_with_one_line(options, message):
    result = run(*options)
    assert result.returncode == 1 and message in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.integration
def test_a_miniature_with_the_shipped_model(tmp_path):
    pytest.importorskip("omnisteval", reason="needs the extra long-form")
    samples = short_samples(8)
    for name, texts in (
        ("source", [sample.path for sample in samples]),
        ("target", [sample.target for sample in samples]),
        ("source_text", [sample.source for sample in samples]),
    ):
        (tmp_path / f"{name}.txt").write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    options = [
        "--model", MODEL, "--source", tmp_path / "source.txt", "--target", tmp_path / "target.txt",
        "--source-text", tmp_path / "source_text.txt", "--pauses", "0.3", "--minutes", "0.15",
        "--part-minutes", "0.02", "--output", tmp_path / "out",
    ]  # fmt: skip
    result = run(*options)
    assert result.returncode == 0, result.stderr
    (found,) = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert found["sentences_due"] >= len(samples) and len(found["by_position"]) > 1
    assert found["alone"]["bleu"] > 0 and found["scores"]["chrf"] > 10
    assert found["scores"]["long_yaal"] > 0
    assert 0 < found["scores"]["stream_laal"] < found["scores"]["ca_stream_laal"]
    assert found["spoken_lag"]["lag"]["most_ms"] > 0

    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("instances.log")}
    again = run(*options)
    assert again.returncode == 0, again.stderr
    assert len(made) == 2 and all(path.stat().st_mtime_ns == time_ns for path, time_ns in made.items())
