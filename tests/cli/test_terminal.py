"""What the command must not do to its user: destroy a recording, or let a model steer the terminal."""

import os
import pty
import re
import sys
import threading

import numpy as np
import pytest
import soundfile
import torch
from memory import little_memory  # noqa: F401  # of every test here
from model_files import save_model

from echostream.cli import main
from echostream.cli.console import MAX_ERROR_CHARACTERS, Console
from echostream.streaming import StreamingTranslator

ESCAPE = "\x1b]0;owned\x07\x1b[31m"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model whose words hold terminal codes, and whose folder and settings do."""
    torch.set_num_threads(1)
    translator = StreamingTranslator.random(arch="echostream_tiny", seed=0, policy="fixed-rate")
    for symbols in (translator.detector.symbols, translator.writer.symbols):
        symbols[4:] = [f"{symbol}{ESCAPE}{index}" for index, symbol in enumerate(symbols[4:])]
    folder = tmp_path_factory.mktemp("model")
    return save_model(translator, folder, f"policy: fixed-rate\nsource_lang: {ascii(ESCAPE)[1:-1]!r}\n")


@pytest.fixture
def wav(tmp_path):
    samples = np.random.default_rng(0).normal(0, 0.1, 24_000).astype(np.float32)
    soundfile.write(tmp_path / "talk.wav", samples, 16_000)
    return tmp_path / "talk.wav"


@pytest.mark.parametrize("arguments", [[], ["--text"], ["-v", "--vtt", "{folder}/a.vtt"], ["--task", "asr", "--text"]])
def test_words_of_a_model_do_not_steer_the_terminal(model, wav, tmp_path, capsys, arguments):
    arguments = [argument.format(folder=tmp_path) for argument in arguments]
    assert main(["translate", str(wav), "--model", str(model), *arguments]) == 0
    shown = capsys.readouterr()
    said = shown.out + shown.err
    assert r"\x1b]0;owned\x07" in said and not set("\x1b\x07") & set(said)
    if "--vtt" in arguments:
        written = (tmp_path / "a.vtt").read_text(encoding="utf-8")
        assert r"\x1b]0;owned\x07" in written and "\x1b" not in written


@pytest.mark.parametrize(
    ("name", "value", "marks"), [("TERM", "xterm", True), ("TERM", "dumb", False), ("NO_COLOR", "1", False)]
)
def test_doubtful_words_are_faint_in_a_terminal_that_may_show_it(model, wav, tmp_path, monkeypatch, name, value, marks):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv(name, value)
    shown = in_terminal(monkeypatch, ["translate", str(wav), "--model", str(model), "-o", str(tmp_path / "out.wav")])
    said = [line for line in shown.splitlines() if " said " in line]
    assert said and bool(re.search(r"\x1b\[2m[^\x1b]+\x1b\[22m", "".join(said))) == marks
    assert "\x1b" not in re.sub(r"\x1b\[22?m", "", "".join(said)), "the words of a model are no marks"


def in_terminal(monkeypatch, arguments: list[str]) -> str:
    """What a command that ends well shows in a terminal."""
    ours, its = pty.openpty()
    shown = []

    def read() -> None:
        try:
            while piece := os.read(ours, 4096):
                shown.append(piece)
        except OSError:  # the other end was closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(its, "w", encoding="utf-8") as terminal, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", terminal)
        status = main(arguments)
    reader.join()
    os.close(ours)
    assert status == 0
    return b"".join(shown).decode()


def test_neither_do_its_settings_and_names(model, wav, tmp_path, capsys, monkeypatch):
    named = tmp_path / f"a{ESCAPE}b"
    named.symlink_to(model)
    monkeypatch.setenv("ECHOSTREAM_MODELS", str(tmp_path))
    for arguments in (["info", str(named)], ["models", "list"], ["translate", f"{ESCAPE}.wav", "--model", "x"]):
        main(arguments)
        shown = capsys.readouterr()
        assert r"\x1b]0;owned" in shown.out + shown.err and not set("\x1b\x07") & set(shown.out + shown.err)
    with pytest.raises(SystemExit):
        main(["translate", f"--{ESCAPE}"])
    assert "\x1b" not in capsys.readouterr().err


def test_messages_are_one_line_of_bounded_length(capsys):
    Console().error("a" * 10**6 + "\nb")
    said = capsys.readouterr().err
    assert said.startswith("error: aaa") and said.endswith("a b\n") and said.count("\n") == 1
    assert len(said) < MAX_ERROR_CHARACTERS + 50


@pytest.mark.parametrize("link", ["same", "hard", "soft", "dots"])
@pytest.mark.parametrize("option", ["-o", "--vtt"])
def test_recording_is_no_output_under_any_name(model, wav, tmp_path, capsys, link, option):
    other = tmp_path / ("other.wav" if option == "-o" else "other.vtt")
    before = wav.read_bytes()
    match link:
        case "same":
            other = wav if option == "-o" else wav.rename(tmp_path / "talk.vtt")
        case "hard":
            os.link(wav, other)
        case "soft":
            other.symlink_to(wav)
        case "dots":
            (tmp_path / "folder").mkdir()
            renamed = wav if option == "-o" else wav.rename(tmp_path / "talk.vtt")
            other = tmp_path / "folder" / ".." / renamed.name
    source = wav if wav.exists() else tmp_path / "talk.vtt"
    assert main(["translate", str(source), "--model", str(model), option, str(other)]) == 2
    assert "is both a recording and an output: choose another output" in capsys.readouterr().err
    assert source.read_bytes() == before


def test_recording_on_the_standard_input_is_no_output(model, wav, tmp_path, capfd):
    other = tmp_path / "out.wav"
    os.link(wav, other)
    before, stdin = wav.read_bytes(), os.dup(0)
    try:
        with wav.open("rb") as file:
            os.dup2(file.fileno(), 0)
            assert main(["translate", "-", "--model", str(model), "-o", str(other)]) == 2
    finally:
        os.dup2(stdin, 0)
        os.close(stdin)
    assert "is both a recording and an output" in capfd.readouterr().err and wav.read_bytes() == before
    assert sys.stdin is not None


def test_two_outputs_that_are_one_file_are_refused(model, wav, tmp_path, capsys):
    speech, subtitles = tmp_path / "out.wav", tmp_path / "out.vtt"
    speech.touch()
    os.link(speech, subtitles)
    assert main(["translate", str(wav), "--model", str(model), "-o", str(speech), "--vtt", str(subtitles)]) == 2
    assert "would both be written to" in capsys.readouterr().err
