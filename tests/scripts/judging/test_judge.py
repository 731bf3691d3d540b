"""The judgement of a model: what is run, what is made of it, and how it gets into a page."""

import json
import sys
from argparse import Namespace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile

SCRIPTS = Path(__file__).parents[3] / "scripts"
SCORES = {
    "ECHO_ASR_BLEU": 61.0,
    "ECHO_ASR_BLEU_NoPause": 62.0,
    "ECHO_ASR_BLEU@tiny.en": 63.0,
    "ECHO_SourceWER": 20.0,
    "ECHO_ATD": 900.0,
    "ECHO_StartOffset": 1500.0,
    "ECHO_StartOffset_FirstWord": 800.0,
    "ECHO_StepP95": 12.4,
}


def row(name: str, segment_ms: int, system: str = "alignment", **scores: float | None) -> dict:
    return {
        "set": name,
        "system": system,
        "segment_ms": segment_ms,
        "sentences": 300,
        "scores": {**SCORES, **scores},
    }


@pytest.fixture
def results() -> dict:
    return {
        "machine": {"cpu": "a CPU", "cores": 2},
        "model": {},
        "judges": ["base", "tiny.en"],
        "judge_compute": "int8",
        "policies": ["alignment", "wait-k"],
        "policy_options": {"stride_n": 1, "lag_k": 2, "beam": 4},
        "jobs": 2,
        "rows": [
            row("sentences", 0, ECHO_ASR_BLEU=70.0),
            row("sentences", 40, ECHO_ASR_BLEU=49.0),
            row("sentences", 320),
            row("sentences", 320, "wait-k", ECHO_ATD=1900.0),
            row("sentences", 0, "cascade", ECHO_ASR_BLEU=55.5),
            row("my own", 320, ECHO_SourceWER=None),
        ],
        "ceilings": {"sentences": {"base": {"BLEU": 93.2}, "tiny.en": {"BLEU": 94.0}}},
    }


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_reach_is_worked_out_from_the_scores(results):
    from scripts.judging.judgement import reach

    assert [line[1:] for line in cells(reach(results))] == [
        ["61.0", "at least 60", "yes"],
        ["0.87", "at least 0.9", "**no**"],  # 61 / 70
        ["0.70", "at least 0.8", "**no**"],  # 49 / 70
        ["20.0", "under 15", "**no**"],
        ["0.80", "under 1", "yes"],
    ]
    results["rows"] = results["rows"][-1:]
    assert {tuple(line[1:]) for line in cells(reach(results))} > {("–", "under 15", "–")}


def test_aims_are_those_of_the_sets_that_were_judged(results):
    from scripts.judging.judgement import aims

    assert not cells(aims(results))
    results["rows"] += [
        row("asterisk", 320, ECHO_BLEU=20.0, ECHO_SourceWER=25.0),
        row("asterisk", 160, ECHO_BLEU=18.0),
        row("asterisk", 40, ECHO_BLEU=18.0),
        row("asterisk", 320, "wait-k", ECHO_BLEU=1.0),
        row("tatoeba", 320, ECHO_ASR_BLEU=34.9),
    ]
    human, tatoeba = "Asterisk, human speech", "Tatoeba, unseen sentences"
    assert cells(aims(results)) == [
        [human, "text BLEU at 320 ms", "at least 17", "20.0", "yes"],
        ["", "WER of the recognised source at 320 ms, %", "at most 25", "25.0", "yes"],
        ["", "text BLEU at 160 ms over that at 320 ms", "at least 0.95", "0.90", "**no**"],
        ["", "text BLEU at 40 ms over that at 320 ms", "at least 0.9", "0.90", "yes"],
        [tatoeba, "ASR-BLEU at 320 ms", "at least 35", "34.9", "**no**"],
        ["", "the same over its offline value", "at least 0.92", "–", "–"],
    ]
    results["rows"] += [row("tatoeba", 0, ECHO_ASR_BLEU=35.0), row("armelle", 320, ECHO_SourceWER=40.1)]
    assert cells(aims(results))[4:] == [
        ["Armelle, human speech at 8 kHz", "WER of the recognised source at 320 ms, %", "at most 40", "40.1", "**no**"],
        [tatoeba, "ASR-BLEU at 320 ms", "at least 35", "34.9", "**no**"],
        ["", "the same over its offline value", "at least 0.92", "1.00", "yes"],
    ]


def test_tables_go_by_segment_size_and_say_what_is_missing(results):
    from scripts.judging.judgement import baselines, latency, policies, quality, summary

    table = cells(quality(results))
    assert [line[:4] for line in table] == [
        ["phrasebook, unseen sentences (300)", "40 ms", "49.0", "62.0"],
        ["", "320 ms", "61.0", "62.0"],
        ["", "offline", "70.0", "62.0"],
        ["my own (300)", "320 ms", "61.0", "62.0"],
    ]
    assert table[0][4] == "63.0 / –"
    assert (table[2][8], table[3][8]) == ("20.0 %", "–")
    assert cells(latency(results))[0][:4] == ["phrasebook, unseen sentences", "40 ms", "1.50", "0.80 / –"]
    assert [line[1:4] for line in cells(policies(results))] == [
        ["alignment", "40 ms", "49.0"],
        ["", "320 ms", "61.0"],
        ["", "offline", "70.0"],
        ["wait-k", "320 ms", "61.0"],
    ]
    assert [line[1:4] for line in cells(baselines(results))] == [
        ["ours, 320 ms", "61.0", "63.0"],
        ["ours, offline", "70.0", "63.0"],
        ["cascade: Whisper base, Hibari", "55.5", "63.0"],
        ["ceiling: the reference recordings", "93.2", "94.0"],
        ["ours, 320 ms", "61.0", "63.0"],
    ]
    assert cells(summary(results)) == [
        ["phrasebook, unseen sentences (300)", "–", "61.0", "55.5", "20.0 %", "0.80"],
        ["my own (300)", "–", "61.0", "–", "–", "0.80"],
    ]


@pytest.fixture
def page(tmp_path) -> Path:
    path = tmp_path / "docs" / "page.md"
    path.parent.mkdir()
    marks = (f"<!-- figures:{name}:begin -->\nold\n<!-- figures:{name}:end -->" for name in ("reach", "plot-sets"))
    path.write_text("before\n{}\nbetween\n{}\nafter\n".format(*marks), encoding="utf-8")
    return path


@pytest.fixture
def report(monkeypatch, results, tmp_path):
    from scripts.judging import judge_report

    (tmp_path / "results.json").write_text(json.dumps(results), encoding="utf-8")

    def run(page: Path, *options: str) -> None:
        arguments = ["--results", tmp_path / "results.json", "--plots", tmp_path / "plots", "--fill", page]
        monkeypatch.setattr(sys, "argv", ["judge_report.py", *map(str, arguments), *options])
        judge_report.main()

    return run


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="draws")
def test_figures_are_put_between_their_marks(page, report, results, tmp_path):
    from scripts.judging.judgement import reach

    report(page)
    text = page.read_text(encoding="utf-8")
    assert f"<!-- figures:reach:begin -->\n{reach(results)}\n<!-- figures:reach:end -->\nbetween" in text
    assert 'src="../plots/quality_latency_sets.png"' in text
    assert "old" not in text
    light, dark = (tmp_path / "plots" / f"quality_latency_sets{end}.png" for end in ("", "-dark"))
    assert light.read_bytes()[:4] == dark.read_bytes()[:4] == b"\x89PNG"
    assert light.read_bytes() != dark.read_bytes()
    report(page, "--check")
    page.write_text(text.replace("61.0", "99.0"), encoding="utf-8")
    with pytest.raises(SystemExit, match=r"page\.md: not the figures"):
        report(page, "--check")
    assert "99.0" in page.read_text(encoding="utf-8")


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="draws")
@pytest.mark.parametrize("policies", [["alignment", "wait-k"], ["alignment"]])
def test_policies_are_drawn_if_there_are_several(results, policies, tmp_path):
    from scripts.judging.judgement import write_plots

    drawn = {path.name for path in write_plots({**results, "policies": policies}, tmp_path)}
    assert ("quality_latency_policies.png" in drawn) == (len(policies) > 1)
    assert drawn == {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        ("<!-- figures:speed:begin -->", "has a mark figures:speed; known are aims, baselines"),
        ("<!-- figures:reach:begin -->", "without its begin or end"),
    ],
)
def test_wrong_marks_are_named(page, report, mark, message):
    before = page.read_text(encoding="utf-8") + mark
    page.write_text(before, encoding="utf-8")
    with pytest.raises(SystemExit, match=message):
        report(page)
    assert page.read_text(encoding="utf-8") == before


@pytest.fixture
def judge(monkeypatch, tmp_path):
    """Runs the script in this process, with a checkpoint that is there."""
    from scripts.judging import judge as script

    (tmp_path / "model.pt").write_bytes(b"weights")

    def run(*options: object) -> None:
        arguments = ["--model", tmp_path / "model.pt", "--output", tmp_path / "out", *options]
        monkeypatch.setattr(sys, "argv", ["judge.py", *map(str, arguments)])
        script.main()

    run.script = script
    return run


@pytest.fixture
def test_set(tmp_path) -> Path:
    folder = tmp_path / "set"
    folder.mkdir()
    for name in ("source.txt", "target.txt", "source_text.txt"):
        (folder / name).write_text("a\n", encoding="utf-8")
    return folder


def test_long_streams_are_run_on_request_and_reported(judge, test_set, tmp_path, monkeypatch):
    jobs = []
    monkeypatch.setattr(judge.script, "run_all", lambda these, at_a_time: jobs.extend(these) or [])
    judge("--set", f"mine={test_set}", "--no-cascade")
    assert not any("long" in job.name for job in jobs)
    jobs.clear()
    scores = dict.fromkeys(("bleu", "chrf", "stream_laal", "long_yaal", "ca_stream_laal", "ca_long_yaal"), 50.0)
    result = {"pause_ms": 300, "segment_ms": 320, "alone": {"bleu": 62.5}, "scores": scores, "words_due": 9}
    result |= {"words_said": 8, "by_position": [{"bleu": 51.0}, {"bleu": 49.0}]}
    out = tmp_path / "out" / "mine"
    (out / "long").mkdir(parents=True)
    (out / "long" / "results.json").write_text(json.dumps([result]), encoding="utf-8")
    finished = out / "alignment" / "segment_320ms" / "segment_320ms"
    finished.mkdir(parents=True)
    (finished / "scores.tsv").write_text("ECHO_BLEU\n62.5\n", encoding="utf-8")
    (finished / "instances.log").write_text("{}\n", encoding="utf-8")
    judge("--set", f"mine={test_set}", "--no-cascade", "--long-minutes", 10)
    (job,) = (job for job in jobs if "long" in job.name)
    assert job.command[0].endswith("scripts/evaluate_long.sh") and "--minutes 10" in " ".join(job.command)
    (row,) = cells((tmp_path / "out" / "report" / "long.md").read_text(encoding="utf-8"))
    assert row[:5] == ["mine", "0.3 s", "320 ms", "50.0", "0.80"] and row[6] == "51.0 / 49.0"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "no test sets: give --data-root"),
        (("--set", "mine"), "--set is NAME=FOLDER"),
        (("--set", "mine=nowhere", "--sets", "mine"), "the test set mine lacks nowhere/source.txt"),
        (("--sets", "sentences"), "no test set sentences: known are none"),
    ],
)
def test_sets_that_are_not_there_are_named(judge, options, message):
    with pytest.raises(SystemExit, match=message):
        judge(*options)


@pytest.fixture(scope="module")
def recording() -> tuple[np.ndarray, float]:
    """ "Hello", half a second of silence, and more, at 16 kHz; and the length of the first word."""
    hibari, soxr = pytest.importorskip("hibari"), pytest.importorskip("soxr")
    from echostream.evaluation.asr import find_model

    try:
        find_model("base", "en")
    except ValueError as error:
        pytest.skip(str(error))
    voice = hibari.Hibari(threads=1)
    parts = [
        soxr.resample(voice(text, seed=0), voice.sample_rate, 16000) for text in ("Hello.", "My friends are here.")
    ]
    return np.concatenate([parts[0], np.zeros(8000), parts[1]]).astype(np.float32), len(parts[0]) / 16000


def test_the_first_word_ends_before_the_second(recording, tmp_path, monkeypatch):
    from scripts.judging import word_ends

    samples, first_s = recording
    soundfile.write(tmp_path / "a.wav", samples, 16000)
    memory = tmp_path / "ends.jsonl"
    (end,) = word_ends.find_all([str(tmp_path / "a.wav")], ["hello my friends are here"], "en", memory)
    assert 0.15 < end < first_s + 0.55
    memory.write_text(memory.read_text(encoding="utf-8") + '{"key": "cut o', encoding="utf-8")
    monkeypatch.setattr(word_ends, "WordAligner", None)  # not needed again
    assert word_ends.find_all([str(tmp_path / "a.wav")], ["hello my friends are here"], "en", memory) == [end]
    (tmp_path / "list.txt").write_text(f"{tmp_path / 'a.wav'}\n", encoding="utf-8")
    (tmp_path / "text.txt").write_text("hello my friends are here\n", encoding="utf-8")
    lists = ["--source", tmp_path / "list.txt", "--source-text", tmp_path / "text.txt", "--language", "en"]
    monkeypatch.setattr(sys, "argv", ["word_ends.py", *map(str, lists), "--output", str(memory.with_suffix(".txt"))])
    written = []
    for _ in range(2):
        word_ends.main()
        written.append(memory.with_suffix(".txt").stat().st_mtime_ns)
    assert written[0] == written[1], "evaluations that used it go on"


def test_sound_begins_where_it_is_heard(monkeypatch):
    from scripts.judging.word_ends import onset

    tone = np.sin(np.arange(16000) / 5).astype(np.float32)
    assert onset(np.concatenate([np.zeros(8000, np.float32), tone])) == pytest.approx(0.5, abs=0.02)
    assert onset(np.zeros(100, np.float32)) == 0.0


def test_what_two_hypotheses_agree_on_is_final():
    from scripts.judging.streaming_cascade_agent import LocalAgreement, Part

    agreement = LocalAgreement()

    def hear(text: str, is_last: bool = False) -> str:
        return " ".join(agreement.add([Part(tuple(text.split()), 1.0)], is_last))

    assert hear("I have a cat") == ""
    assert hear("I have a hat, and") == "I have a"
    assert hear("I have a hat and you") == "hat and", "punctuation may change"
    assert hear("I had a hat and you came") == "you", "what was said is not said again, nor taken back"
    assert hear("You") == ""
    assert hear("I have a hat and you left us.", is_last=True) == "left us."


def test_finished_phrases_leave_the_buffer():
    from scripts.judging.streaming_cascade_agent import LocalAgreement, Part

    agreement = LocalAgreement()
    parts = [Part(("Good", "day."), 1.5), Part(("How", "are", "you?"), 3.0), Part(("I",), 3.5)]
    agreement.add(parts, False)
    agreement.add(parts[:2], False)
    assert agreement.cut(parts) == 3.0
    assert agreement.before.strip() == "Good day. How are you?"
    assert agreement.add([Part(("I", "am"), 1.0)], True) == ["I", "am"]


def test_the_streaming_cascade_speaks_before_the_end(recording):
    from simuleval.data.segments import SpeechSegment

    from echostream.evaluation.record import CONFIG_KEY, StepRecord
    from scripts.judging.streaming_cascade_agent import StreamingCascadeAgent

    samples, _ = recording
    agent = StreamingCascadeAgent(Namespace(source_language="en", asr_compute="int8", device="cpu"))
    states = agent.build_states()
    records, speech = [], 0
    pieces = np.array_split(samples, 4)
    for number, piece in enumerate(pieces):
        segment = SpeechSegment(content=piece.tolist(), sample_rate=16000, finished=number == len(pieces) - 1)
        spoken = agent.pushpop(segment, states)
        records.append(StepRecord.from_dict(spoken.config[CONFIG_KEY]))
        speech += 0 if spoken.is_empty else len(spoken.content)
    words = [word for record in records for word in record.words]
    assert "friends" in " ".join(word.text for word in words)
    assert any(record.words for record in records[:-1]), "something was final before the end"
    assert [word.start_ms for word in words] == sorted(word.start_ms for word in words)
    assert words[-1].end_ms == pytest.approx(speech / 16)
    assert spoken.finished


def test_the_cascade_waits_then_speaks(recording):
    from simuleval.data.segments import SpeechSegment

    from echostream.evaluation.record import CONFIG_KEY, StepRecord
    from scripts.judging.cascade_agent import CascadeAgent

    samples, _ = recording
    args = Namespace(source_language="en", asr_compute="int8", device="cpu")
    agent = CascadeAgent(args)
    states = agent.build_states()
    half = len(samples) // 2

    def push(part: np.ndarray, finished: bool):
        return agent.pushpop(SpeechSegment(content=part.tolist(), sample_rate=16000, finished=finished), states)

    assert push(samples[:half], False).is_empty
    spoken = push(samples[half:], True)
    record = StepRecord.from_dict(spoken.config[CONFIG_KEY])
    assert "friends" in record.text
    assert record.arrived_ms == pytest.approx(len(samples) / 16)
    assert record.output_ms > 500
    assert record.output_ms == pytest.approx(len(spoken.content) / 16)
    assert record.words[-1].end_ms == pytest.approx(record.output_ms)
    assert spoken.finished
