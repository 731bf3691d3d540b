"""The soak at miniature size on a tiny model: its machine limits hold, and each of its faults is seen."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml

from echostream.checkpoints.vocoder_files import save_vocoder
from echostream.decoding.word_boundary import SourceWord
from echostream.streaming import OutputWord

REPOSITORY = Path(__file__).resolve().parents[3]
# Random weights talk all the time, repeat themselves and find no end; the machine has to bear that.
TALKATIVE = ["--policy", "fixed-rate", "--max-loops", "100000", "--max-silent-words", "100000"]
TALKATIVE += ["--max-growth-mb", "100"]  # the last sentence, of minutes, is spoken in one piece


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    from tiny_models import speech_like

    folder = tmp_path_factory.mktemp("speech")
    for number in range(6):
        samples = speech_like(0.8 + 0.2 * number, 16_000, number)
        soundfile.write(folder / f"{number}.{'flac' if number % 2 else 'wav'}", samples, 16_000)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """The folder of a model: a checkpoint as training writes it, a vocoder beside it, and how both are to be used."""
    from tiny_translator import make_translator

    translator, folder = make_translator("istft"), tmp_path_factory.mktemp("model")
    options = {**dataclasses.asdict(translator.model.cfg), "_name": "echostream"}
    task = {
        "source_symbols": translator.detector.symbols,
        "target_symbols": translator.writer.symbols,
        "num_units": translator.vocoder.num_units,
    }
    content = {
        "cfg": {"model": {name: getattr(value, "value", value) for name, value in options.items()}},
        "model": translator.model.state_dict(),
        "task_state": task,
    }
    torch.save(content, folder / "checkpoint.pt")
    save_vocoder(translator.vocoder, folder / "vocoder")
    settings = {"checkpoint": "checkpoint.pt", "segment_ms": 160, "confidence_slope": 1.1, "confidence_offset": 0.1}
    (folder / "model.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return folder


def soak(monkeypatch, *options: object) -> int:
    from scripts.soak import soak

    monkeypatch.setattr(sys, "argv", ["soak.py", *map(str, options)])
    return soak.main()


@pytest.mark.integration
def test_a_short_soak_holds_and_is_not_run_twice(model, recordings, tmp_path, monkeypatch, capsys):
    figures = tmp_path / "soak.json"
    options = ["--minutes", 0.7, "--model", model, "--speech", recordings, "--sessions", 20, "--json", figures]
    status = soak(monkeypatch, *options, *TALKATIVE)
    shown = capsys.readouterr()
    assert status == 0, shown.out + shown.err
    parts = json.loads(figures.read_text(encoding="utf-8"))["parts"]
    ways = [parts[way] for way in ("translator", "agent", "server")]
    assert len({way["speech_digest"] for way in ways}) == 1 and ways[0]["speech_s"] > 10
    assert all(way["words"] > 50 and not way["beyond_audio"] and not way["backwards"] for way in ways)
    assert {"digital silence", "room silence", "music", "white noise"} < set(ways[0]["words_by_kind"])
    assert "words due" in shown.out and len(ways[0]["words_alone"]) == 6
    assert sum(parts["sessions"]["ways"].values()) == 20
    assert parts["sessions"]["after"]["open sessions"] == 0
    assert soak(monkeypatch, *options, *TALKATIVE) == 0
    again = capsys.readouterr()
    assert again.err.count("already done") == 4 and "| repetition loops |" in again.out
    with pytest.raises(SystemExit, match="other options"):
        soak(monkeypatch, *options, "--seed", 1)


@pytest.fixture
def programme(recordings):
    from scripts.soak.soak_audio import Programme, read_speech

    return Programme(read_speech([recordings]), minutes=2)


def watch_of(programme, **tolerances):
    from scripts.soak.soak_watch import Tolerances, Watch

    return Watch("test", programme, Tolerances(**tolerances))


def say(watch, *words: OutputWord, audio_s: float = 120.0) -> None:
    watch.step(audio_s, list(words), [], "".join(f" {word.text}" for word in words), "")
    watch.hear(bytes(2 * round(16_000 * max((word.end_s for word in words), default=0))))


def test_a_programme_is_reproducible_and_cut_without_loss(programme, recordings):
    from scripts.soak.soak_audio import SILENCES, Programme, read_speech

    whole = np.concatenate(list(programme.pieces(iter([1, 2, 50_000, 7] + [100_000] * 99))))
    again = Programme(read_speech([recordings]), minutes=2)
    assert len(whole) == 120 * 16_000
    assert np.array_equal(whole, np.concatenate([again.render(stretch) for stretch in again.stretches]))
    assert np.array_equal(whole * 32768, np.round(whole * 32768))
    for stretch in programme.stretches:
        peak = np.abs(whole[stretch.start :][: stretch.size]).max()
        assert (peak == 0) == (stretch.kind == "digital silence")
        assert (peak > 0.02) == (stretch.kind not in SILENCES), stretch.kind
        assert programme.at(stretch.start_s) == programme.stretches.index(stretch)
    assert not np.array_equal(
        whole, np.concatenate([*Programme(again.recordings, 2, seed=1).pieces(iter(lambda: 9999, 0))])
    )


def test_sessions_that_get_something_else_are_found(recordings):
    from scripts.soak.soak_audio import read_speech
    from scripts.soak.soak_visitors import Visitors

    visitors, samples = Visitors("http://127.0.0.1:9", read_speech([recordings]), seed=0), np.arange(100)
    for words, said in ((["a"], samples), (["a"], samples + 1)):
        visitors.compare(0, words, said)
    assert not visitors.changed, "a step of 16 bits is what a batch may change"
    for index, (words, said) in enumerate(((["a"], samples + 2), (["a"], samples[1:]), (["b"], samples))):
        visitors.compare(index, ["a"], samples)
        visitors.compare(index, words, said)
    assert visitors.changed == {0, 1, 2}


def test_loops_are_found():
    from scripts.soak.soak_watch import find_loops

    assert find_loops(["to", "be", "or", "not", "to", "be", "to", "be", "to", "be", "to", "be", "the", "end"]) == [
        "to be x 4"
    ]
    assert find_loops(["no"] * 7 + ["well"] + ["yes"] * 3) == ["no x 7"]
    assert find_loops(["a", "b", "c", "a", "b", "c", "a", "b", "c"]) == []
    assert find_loops([]) == []


def test_words_in_silence_are_found_and_what_was_said_before_may_come_late(programme):
    silence = next(stretch for stretch in programme.stretches if stretch.is_silent)
    watch = watch_of(programme, grace_s=3)
    end_s = silence.start_s + silence.size / 16_000
    say(
        watch,
        OutputWord("late", silence.start_s + 2.9, 0.0, 0.4),
        OutputWord("ghost", silence.start_s + 3.1, 0.4, 0.9),
        OutputWord("prompt", end_s + 0.8, 0.9, 1.2),  # of the speech that has begun, since silence says nothing
    )
    report = watch.finish()
    assert report.words_by_kind["speech"] >= 1
    assert [word.split("'")[1] for word in report.silent_words] == ["ghost"]
    assert report.silent_speech_s == pytest.approx(0.5)
    assert report.broken == ["1 words said in silence"]


@pytest.mark.parametrize(
    ("words", "audio_s", "fault"),
    [
        ([OutputWord("a", 5.0, 0, 1)], 4.5, "1 words lie beyond the audio"),
        ([OutputWord("a", 2.0, 0, 1), OutputWord("b", 1.0, 1, 2)], 9, "1 words go back in time"),
        ([OutputWord("a", 1.0, 0, 1), OutputWord("b", 2.0, 0.5, 2)], 9, "1 words go back in time"),
        ([OutputWord("a", 1.0, n, n + 1) for n in range(4)], 9, "1 loops"),
    ],
)
def test_clocks_and_loops_are_judged(programme, words, audio_s, fault):
    watch = watch_of(programme)
    say(watch, *words, audio_s=audio_s)
    assert watch.finish().broken == [fault]
    split = watch_of(programme)
    for word in words:  # the same faults between two steps
        split.step(audio_s, [word], [], f" {word.text}", "")
    split.hear(bytes(2 * round(16_000 * words[-1].end_s)))
    assert split.finish().broken == [fault]


def test_memory_the_output_clock_and_a_late_clock_are_judged(programme):
    watch = watch_of(programme)
    for number in range(1, 13):
        watch.state(1_000_000 + 50_000 * number)
        watch.mark(10.0 * number, 500e6 + 10e6 * number)
    watch.clock(0.06)
    watch.clock(0.7)
    watch.hear(bytes(32_000))
    report = watch.finish(speech_s=1.2)
    assert report.rss_growth_mb == pytest.approx(80) and report.state_growth == pytest.approx(1.6 / 1.2 - 1)
    assert len(report.broken) == 4 and any("-200.0 ms off" in text for text in report.broken)


@pytest.mark.parametrize("drift_s", [0.0, 0.3])
def test_a_clock_that_drifts_is_seen_in_the_recordings(recordings, drift_s):
    from scripts.soak.soak_audio import SAMPLE_RATE, Programme, read_speech

    programme = Programme(read_speech([recordings]), minutes=6)
    watch = watch_of(programme)
    for stretch in programme.stretches:
        for _, place in stretch.said:
            start_s = place / SAMPLE_RATE
            start_s += 0.1 + drift_s * start_s / programme.length_s
            watch.step(start_s + 1, [], [SourceWord("word", start_s, start_s + 0.2)], "", f" {start_s}")
    report = watch.finish()
    assert report.drift_pairs == 6 and report.drift_ms == pytest.approx(1000 * drift_s * 2 / 3, abs=60)
    assert bool(report.broken) == bool(drift_s)


@pytest.mark.parametrize(("lost_late", "broken"), [(0, []), (3, ["33 % more sentences are lost at the end"])])
def test_sentences_are_counted(recordings, lost_late, broken):
    """Every third one of those that are lost; what is said late but before the next sentence counts as said of it."""
    from scripts.soak.soak_audio import SAMPLE_RATE, Programme, read_speech

    programme = Programme(read_speech([recordings]), minutes=6)
    places = [place for stretch in programme.stretches for _, place in stretch.said]
    last_third = [place for place in places if place >= 2 * programme.size // 3]
    watch, said = watch_of(programme, loops=9999), [0.0]
    for number, place in enumerate(places):
        begin_s = place / SAMPLE_RATE
        words = [OutputWord(f"w{number}", begin_s + 0.5, said[-1], said[-1] + 0.1)]
        if lost_late and place in last_third and last_third.index(place) % lost_late == 0:
            words = []
        said += [word.end_s for word in words]
        text = "".join(f" {word.text}" for word in words)
        watch.step(begin_s + 1, words, [SourceWord("word", begin_s + 0.1, begin_s + 0.3)], text, f" w{number}")
    watch.hear(bytes(2 * round(16_000 * said[-1])))
    report = watch.finish()
    assert sum(report.sentences) in (len(places), len(places) - 1)  # the last one may be cut by the end
    assert report.sentences_heard == report.sentences and report.sentences_said[:2] == report.sentences[:2]
    assert sum(report.plays) == sum(report.sentences) and sum(report.words_said) == sum(report.sentences_said)
    lost = report.sentences[2] - report.sentences_said[2]
    assert lost == (0 if not lost_late else pytest.approx(len(last_third) / lost_late, abs=1))
    assert [text.split(" %")[-1] for text in report.broken] == [text.split(" %")[-1] for text in broken]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--minutes", "0"], "--minutes must be from 0.5"),
        (["--sessions", "0"], "--sessions must be at least 1"),
        (["--model", "nowhere.pt"], "no such file or folder: nowhere.pt"),
        (["--model", __file__, "--speech", "nowhere"], "no such file or folder: nowhere"),
        (["--model", __file__, "--speech", str(REPOSITORY / "agent")], "0 recordings with sound"),
    ],
)
def test_bad_options_are_named(options, message, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stopped:
        soak(monkeypatch, *options)
    assert message in capsys.readouterr().err + str(stopped.value)


def test_a_model_that_cannot_be_served_is_told_in_a_line(recordings, monkeypatch, capsys):
    assert soak(monkeypatch, "--model", __file__, "--speech", recordings, "--minutes", 1) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and "test_soak.py" in error
