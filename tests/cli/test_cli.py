"""The ``echostream`` command, on a small random model that is saved and loaded like a trained one."""

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch

from echostream.audio.output import to_s16le
from echostream.checkpoints.vocoder_files import save_vocoder
from echostream.cli import main
from echostream.streaming import StreamingTranslator
from echostream.streaming.text_to_speech import TextToSpeech

RATE = 16_000
SPEECH = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def translator() -> StreamingTranslator:
    return StreamingTranslator.random(arch="echostream_tiny", seed=0, policy="fixed-rate")


@pytest.fixture(scope="module")
def model(translator, tmp_path_factory) -> list[str]:
    """Options for a checkpoint with its vocoder in the same folder."""
    folder = tmp_path_factory.mktemp("a model")
    save_vocoder(translator.vocoder, folder / "vocoder")
    symbols = {"source_symbols": translator.detector.symbols, "target_symbols": translator.writer.symbols}
    content = {
        "cfg": {"model": {**dataclasses.asdict(translator.model.cfg), "_name": "echostream_tiny"}},
        "model": translator.model.state_dict(),
        "task_state": {**symbols, "num_units": translator.model.unit_decoder.num_units},
    }
    torch.save(content, folder / "checkpoint.pt")
    return ["--model", str(folder / "checkpoint.pt"), "--policy", "fixed-rate"]


@pytest.fixture
def wav(tmp_path) -> Path:
    soundfile.write(tmp_path / "talk.wav", SPEECH, RATE, subtype="FLOAT")
    return tmp_path / "talk.wav"


@pytest.fixture
def pipe(monkeypatch):
    """Replace the standard input by bytes."""

    def put(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    return put


def expected(translator, samples: np.ndarray, task: str = "s2st"):
    """Output of the translator itself for a recording: 16-bit speech, and the words of both languages."""
    translator.task = task
    output = translator.step(samples, translator.init_state(), is_last=True)
    return np.frombuffer(to_s16le(output.samples), "<i2"), output.text.split(), output.source_text.split()


def speech_in(path: Path) -> np.ndarray:
    samples, rate = soundfile.read(path, dtype="int16")
    assert rate == RATE
    return samples


def one_line(text: str) -> str:
    assert text.startswith("error: ") and text.count("\n") == 1 and text.endswith("\n"), text
    return text


def test_speech_subtitles_and_words_of_a_recording(translator, model, wav, tmp_path, capsys):
    arguments = ["translate", str(wav), *model, "-o", str(tmp_path / "out.wav"), "--vtt", str(tmp_path / "out.vtt")]
    assert main(arguments) == 0
    speech, words, source = expected(translator, SPEECH)
    assert speech.size and words and source
    np.testing.assert_array_equal(speech_in(tmp_path / "out.wav"), speech)
    shown, status = capsys.readouterr()
    for verb, said in (("heard", source), ("said", words)):
        lines = [line.split(f" s  {verb}")[1] for line in shown.splitlines() if f" s  {verb}" in line]
        assert "".join(lines).split() == said or " ".join(lines).split() == said
    assert "1.0 s heard" in status and "real-time factor" in status and "out.wav" in status
    subtitles = (tmp_path / "out.vtt").read_text()
    assert "source 1\n" in subtitles and "translation 1\n" in subtitles
    assert main([*arguments, "-q"]) == 0  # files named by options are overwritten
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (44_100, 2), (48_000, 6)])
def test_any_rate_and_channels(translator, model, tmp_path, rate, channels):
    wave = np.random.default_rng(rate).normal(0, 0.1, (rate, channels)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", wave, rate, subtype="FLOAT")
    assert main(["translate", str(tmp_path / "a.wav"), *model, "-q", "-o", str(tmp_path / "b.wav")]) == 0
    mono = wave[:, 0] if channels == 1 else wave.mean(axis=1)
    np.testing.assert_array_equal(
        speech_in(tmp_path / "b.wav"), expected(translator, soxr.resample(mono, rate, RATE))[0]
    )


def test_text_only_output(translator, model, wav, tmp_path, capsys):
    assert main(["translate", str(wav), *model, "--text", "-q"]) == 0
    shown, status = capsys.readouterr()
    assert shown.split() == expected(translator, SPEECH, "s2tt")[1] and shown.endswith("\n") and not status
    assert main(["asr", str(wav), *model, "--text"]) == 0
    shown, status = capsys.readouterr()
    assert shown.split() == expected(translator, SPEECH, "asr")[2] and "1.0 s heard" in status
    assert sorted(path.name for path in tmp_path.iterdir()) == ["talk.wav"]


def test_a_pipe_gives_what_a_file_gives(translator, model, pipe, tmp_path, capfdbinary):
    pipe(np.round(SPEECH * 32768).astype("<i2").tobytes())
    assert main(["translate", "-", *model, "--vtt", str(tmp_path / "a.vtt")]) == 0
    speech, status = capfdbinary.readouterr()
    heard = np.round(SPEECH * 32768).astype(np.float32) / 32768
    np.testing.assert_array_equal(np.frombuffer(speech, "<i2"), expected(translator, heard)[0])
    assert b"heard" in status and b"in the pipe" in status
    pipe(np.repeat(SPEECH, 2).astype("<f4").tobytes())
    options = ["--input-format", "f32le", "--input-channels", "2", "--input-rate", "16000"]
    assert main(["asr", "-", *model, *options, "--text", "-q"]) == 0
    assert capfdbinary.readouterr().out.decode().split() == expected(translator, SPEECH, "asr")[2]


def test_pipe_is_translated_live_and_closed_output_ends_quietly(model, tmp_path):
    command = [sys.executable, "-m", "echostream.cli", "translate", "-", *model, "--vtt", str(tmp_path / "a.vtt"), "-q"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, env=environment, **pipes) as process:
        process.stdin.write(to_s16le(SPEECH))
        process.stdin.flush()
        assert len(process.stdout.read(640)) == 640  # speech before the source has ended
        process.stdout.close()
        try:
            for _ in range(20):
                process.stdin.write(to_s16le(SPEECH))
            process.stdin.close()
        except BrokenPipeError:
            process.stdin = None
        assert process.stderr.read() == b""
        assert process.wait() == 141
    assert (tmp_path / "a.vtt").read_text().startswith("WEBVTT\n\n")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_output_before_an_interruption_is_kept(model, tmp_path, capsys, number, status):
    soundfile.write(tmp_path / "long.wav", np.tile(SPEECH, 200), RATE)
    out, ended = tmp_path / "out.wav", threading.Event()

    def interrupt() -> None:
        while not ended.wait(0.01):
            if out.exists() and out.stat().st_size > 20_000:
                os.kill(os.getpid(), number)
                return

    thread = threading.Thread(target=interrupt)
    arguments = ["translate", str(tmp_path / "long.wav"), *model, "-o", str(out), "--vtt", str(tmp_path / "out.vtt")]
    thread.start()
    try:
        assert main(arguments) == status
    finally:
        ended.set()
        thread.join()
    # The header counts all samples in the file.
    assert 44 + 2 * soundfile.info(out).frames == out.stat().st_size > 20_000
    cues = (tmp_path / "out.vtt").read_text()
    assert "translation 1\n" in cues and cues.endswith("\n")
    assert "out.wav is kept as far as it goes" in capsys.readouterr().err


def test_folder_is_translated_and_existing_output_kept(model, wav, tmp_path, capsys):
    soundfile.write(tmp_path / "b.flac", SPEECH[:8000], RATE)
    (tmp_path / "c.wav").write_bytes(b"no sound" * 9)
    (tmp_path / "notes.txt").write_text("no recording")
    assert main(["translate", str(tmp_path), *model, "--vtt", str(tmp_path / "vtt")]) == 1  # c.wav
    status = capsys.readouterr().err
    assert status.count("error: ") == 1 and "c.wav as audio" in status
    made = [tmp_path / "b.translated.wav", tmp_path / "talk.translated.wav"]
    made += [tmp_path / "vtt" / "b.vtt", tmp_path / "vtt" / "talk.vtt"]
    assert all(path.stat().st_size > 44 for path in made)
    (tmp_path / "c.wav").unlink()
    made[0].write_bytes(b"mine")
    assert main(["translate", str(tmp_path), *model]) == 0
    assert capsys.readouterr().err.count("exists, skipped") == 2
    assert made[0].read_bytes() == b"mine"
    assert main(["translate", str(tmp_path), *model, "--force", "-q"]) == 0
    assert made[0].stat().st_size > 44
    assert sorted(tmp_path.rglob("*.wav")) == sorted([*made[:2], wav])


def test_names_of_files_may_be_any_bytes(model, wav, tmp_path, capsys):
    """As of a disk from another time, in Latin 1."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    for suffix in (".wav", ".mp3"):
        samples, rate = soundfile.read(wav)
        with (folder / os.fsdecode(b"\xe9t\xe9" + suffix.encode())).open("wb") as file:
            soundfile.write(file, samples, rate, format=suffix[1:].upper())
    (folder / os.fsdecode(b"not\xe9")).touch()
    out = tmp_path / os.fsdecode(b"\xe0 c\xf4t\xe9")
    where = [str(out), "--vtt", str(out), "--json", str(out), "-v"]
    for name in (".wav", ".mp3"):
        recording = folder / os.fsdecode(b"\xe9t\xe9" + name.encode())
        speech, json_file = (tmp_path / os.fsdecode(b"dit \xe9" + end) for end in (name.encode(), b".json"))
        assert main(["translate", str(recording), *model, "-o", str(speech), "--json", str(json_file)]) == 0
        assert "\\udce9t\\udce9" in capsys.readouterr().err
        assert soundfile.read(os.fsencode(speech))[0].size
        assert json.loads(json_file.read_text(encoding="utf-8"))["recording"].endswith(f"\\udce9t\\udce9{name}")
    assert main(["translate", str(folder), *model, "-o", *where]) == 2  # both would be called the same
    (folder / os.fsdecode(b"\xe9t\xe9.mp3")).unlink()
    assert main(["translate", str(folder), *model, "-o", *where]) == 0
    assert len(list(out.iterdir())) == 3
    assert main(["translate", str(recording), *model]) == 1 and "no such file" in capsys.readouterr().err


def test_text_of_several_recordings(translator, model, wav, tmp_path, capsys):
    soundfile.write(tmp_path / "b.wav", SPEECH[:8000], RATE, subtype="FLOAT")
    assert main(["asr", str(wav), str(tmp_path / "b.wav"), *model, "--text", "-q"]) == 0
    first, second = capsys.readouterr().out.split("\n\n")
    assert first.split()[3:] == expected(translator, SPEECH, "asr")[2] and first.startswith(f"==> {wav} <==")
    assert second.split()[3:] == expected(translator, SPEECH[:8000], "asr")[2]


@pytest.mark.parametrize(
    ("samples", "warning"),
    [(np.zeros(16_000), ""), (np.zeros(1), ""), (np.sign(np.sin(np.arange(16_000) / 9)), "is clipped: 100")],
)
def test_silent_short_and_clipped_recordings_are_translated(model, tmp_path, capsys, samples, warning):
    soundfile.write(tmp_path / "a.wav", samples, RATE)
    options = ["--policy", "alignment", "-o", str(tmp_path / "b.wav"), "--vtt", str(tmp_path / "b.vtt")]
    assert main(["translate", str(tmp_path / "a.wav"), *model, *options]) == 0
    status = capsys.readouterr().err
    assert "error" not in status and warning in status
    speech_in(tmp_path / "b.wav")
    assert (tmp_path / "b.vtt").read_text().startswith("WEBVTT\n")


def test_invalid_recordings_give_one_line(model, tmp_path, capsys):
    spoilt = np.full(8000, 0.1, dtype=np.float32)
    spoilt[5000] = np.nan
    soundfile.write(tmp_path / "nan.wav", spoilt, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "cut.wav", SPEECH, RATE)
    (tmp_path / "cut.wav").write_bytes((tmp_path / "cut.wav").read_bytes()[:20_000])
    (tmp_path / "empty.wav").touch()
    (tmp_path / "words.wav").write_text("no sound in here" * 9)
    for name, message in (
        ("nowhere.wav", "no such file"),
        ("empty.wav", "is empty (0 bytes)"),
        ("words.wav", "cannot read"),
        ("nan.wav", "NaN or infinity after 0.28 s"),
        ("cut.wav", "is cut short after 0.62 s"),
    ):
        out = tmp_path / f"out.{name}"
        assert main(["translate", str(tmp_path / name), *model, "-q", "-o", str(out)]) == 1
        assert message in one_line(capsys.readouterr().err)
        assert out.exists() == (name in ("nan.wav", "cut.wav"))
    assert soundfile.info(tmp_path / "out.cut.wav").frames > 1000  # the readable part is translated


def test_outputs_that_cannot_be_written_and_models_that_cannot_be_read(model, wav, tmp_path, capsys):
    (tmp_path / "file").touch()
    broken = tmp_path / "broken.pt"
    broken.write_bytes(Path(model[1]).read_bytes()[:9000])
    for arguments, message in (
        ([*model, "-o", str(tmp_path / "file" / "out.wav")], "cannot write"),
        ([*model, "--vtt", "/proc/nowhere/out.vtt", "--task", "asr"], "cannot write"),
        (["--model", "nowhere.pt"], "no checkpoint at nowhere.pt"),
        (["--model", str(broken)], "damaged"),
        ([*model, "--vocoder", str(tmp_path / "nowhere")], "no vocoder at"),
        ([*model, "--device", "cuda:99"], "cannot use --device cuda:99"),
    ):
        assert main(["translate", str(wav), *arguments, "-q"]) == 1
        assert message in one_line(capsys.readouterr().err)


def test_conflicting_options_are_rejected(model, wav, tmp_path, pipe, capsys):
    pipe(b"")
    talk = str(wav)
    for arguments, message in (
        ([talk, "--task", "s2tt", "-o", "a.wav"], "-o is for speech"),
        ([talk, "--task", "s2tt", "--vtt-clock", "speech"], "needs speech"),
        ([talk, "-o", "-", "--text"], "can't both go"),
        ([talk, "-o", "a.aac"], "ends in .wav, .flac, .mp3, .ogg, .opus"),
        ([talk, "--vtt", "-", "--text"], "ends in .vtt"),
        ([talk, "--srt", "a.vtt", "--text"], "ends in .srt"),
        ([talk, "--json", "-", "--text"], "can't both go"),
        ([talk, "--json", "-", "-o", "-"], "can't both go"),
        ([talk, "-o", talk], "both a recording and an output"),
        ([talk, "b.wav", "-o", "out.wav"], "must be a folder"),
        ([talk, talk], "given twice"),
        ([talk, str(tmp_path / "a" / "talk.wav"), "-o", str(tmp_path / "out")], "would both be written"),
        ([talk, "-"], "can't be mixed"),
        ([talk, "--input-rate", "8000"], "--input-rate is for - alone"),
    ):
        assert main(["translate", *arguments, *model]) == 2
        assert message in one_line(capsys.readouterr().err)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["talk.wav"]


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("--segment-ms", ("50", "-40", "3600040", "x")),
        ("--policy", ("guess",)),
        ("--stride-n", ("0",)),
        ("--lag-k", ("-1", "1.5")),
        ("--beam", ("0", "101")),
        ("--lm-weight", ("nan", "1001", "much")),
        ("--lm-bonus", ("inf",)),
        ("--least-language", ("-0.1", "1", "nan")),
        ("--least-confidence", ("-0.1", "1", "nan")),
        ("--max-tempo", ("0.9", "1.6", "nan")),
        ("--threads", ("-1", "1025")),
        ("--task", ("tts",)),
    ],
)
@pytest.mark.parametrize("command", ["translate", "serve", "mic"])
def test_values_out_of_range_end_with_status_2_in_every_command(command, option, values, capsys):
    for value in values:
        with pytest.raises(SystemExit) as ended:
            main([command, *(["talk.wav"] if command == "translate" else []), option, value])
        assert ended.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: argument {option}: ") and value in line


def test_options_that_the_policy_does_not_have_end_with_status_2(model, wav, capsys):
    for options, message in (
        (["--policy", "wait-k", "--lag-k", "0"], "wait-k needs lag_k of at least 1, got 0"),
        (["--policy-option", "patience=3"], "has no option patience"),
        (
            ["--policy", "fixed-rate", "--policy-option", f"token_frames={'9' * 5_000}"],
            "can't be made with token_frames",
        ),
    ):
        assert main(["translate", str(wav), "--text", *model[:2], *options]) == 2
        said = one_line(capsys.readouterr().err)
        assert message in said and len(said) < 500
    assert main(["export", *model[:2], "--output", "onnx", "--segment-ms", "0"]) == 2
    assert "choose a segment of at least one frame" in one_line(capsys.readouterr().err)


def test_empty_pipe_and_empty_folder_are_reported(model, pipe, tmp_path, capsys):
    pipe(b"")
    assert main(["asr", "-", *model, "-q"]) == 1
    assert "stdin is empty" in one_line(capsys.readouterr().err)
    assert main(["asr", str(tmp_path), *model, "-q"]) == 1
    assert "no recordings in" in one_line(capsys.readouterr().err)


def test_realtime_takes_as_long_as_the_recording(model, tmp_path, capsys):
    soundfile.write(tmp_path / "a.wav", SPEECH[:4800], RATE)
    assert main(["asr", str(tmp_path / "a.wav"), *model, "--realtime"]) == 0
    assert "0.3 s heard" in capsys.readouterr().err


def test_info_describes_a_model_and_its_requirements(model, tmp_path, capsys):
    assert main(["info", model[1]]) == 0
    shown = capsys.readouterr().out
    assert "parameters" in shown and "100 units, 16000 Hz" in shown
    (tmp_path / "alone.pt").write_bytes(Path(model[1]).read_bytes())
    assert main(["info", str(tmp_path / "alone.pt")]) == 0
    assert "speech needs --vocoder" in capsys.readouterr().out
    assert main(["info", str(tmp_path)]) == 1
    assert "no checkpoint at" in one_line(capsys.readouterr().err)


def test_text_is_spoken_the_same_from_the_command_line_and_from_a_pipe(translator, model, pipe, tmp_path, capsys):
    words = translator.writer.symbols[5:30:2]
    text = " ".join(words).replace("▁", "")
    expected, _ = TextToSpeech(translator).step(text, TextToSpeech(translator).init_state(), is_last=True)
    assert main(["speak", text, *model[:2], "-o", str(tmp_path / "a.wav")]) == 0
    assert f"{len(words)} words, " in capsys.readouterr().err
    assert np.array_equal(speech_in(tmp_path / "a.wav"), np.frombuffer(to_s16le(expected.samples), "<i2"))
    pipe(f"{text}\n".encode())
    assert main(["speak", "-", *model[:2], "-o", str(tmp_path / "b.wav")]) == 0
    assert (tmp_path / "b.wav").read_bytes() == (tmp_path / "a.wav").read_bytes()
    capsys.readouterr()
    assert main(["speak", "日本", *model[:2], "-o", str(tmp_path / "c.wav")]) == 1
    assert "no subword with '日'" in one_line(capsys.readouterr().err)
    assert main(["speak", text, *model[:2], "-o", str(tmp_path)]) == 2
    assert "must be a file that ends in .wav" in one_line(capsys.readouterr().err)
    assert main(["speak", text, *model[:2], "-o", "/proc/nowhere/d.mp3"]) == 1
    assert "cannot write" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize("command", ["translate", "asr", "speak", "mic", "serve", "info", "models", "export"])
def test_help_has_examples_and_says_what_the_exit_status_means(capsys, command):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0 and f"\n  echostream {command}" in shown and "\nexit status: 0 all done" in shown


def test_missing_sound_system_gives_one_line(model, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert main(["mic", *model]) == 1
    assert "pip install -e" in one_line(capsys.readouterr().err)
    assert main(["mic"]) == 1  # without --model, the same package is missing first
    assert "needs the package sounddevice" in one_line(capsys.readouterr().err)


@pytest.mark.skipif(find_spec("sounddevice") is None, reason="needs pip install -e '.[mic]'")
def test_missing_microphone_gives_one_line(model, capsys):
    assert main(["mic", *model, "--input", "no such microphone"]) == 1
    message = one_line(capsys.readouterr().err)
    assert "no microphone found" in message or "install PortAudio" in message
