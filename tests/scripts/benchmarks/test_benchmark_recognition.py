"""The table of recognition over look-ahead: what is measured is what the runtime hears, and how far it was off."""

import json
import sys

import numpy as np
import pytest
import soundfile
import torch
from tiny_translator import noise

from echostream.checkpoints.model_files import LoadedModel, ModelContent, load_model, save_released
from echostream.models import EchoStreamModel, architecture_config
from echostream.modules.ctc import BLANK, CTCReader
from echostream.streaming import StreamingTranslator
from echostream.text import pieces_to_text
from scripts.benchmarks import benchmark_recognition
from scripts.benchmarks.recognition import (
    Errors,
    Joined,
    Setting,
    operations,
    places,
    plan_streams,
    read_set,
    transcribe_alone,
    transcribe_joined,
)

SYMBOLS = ["<s>", "<pad>", "</s>", "<unk>", *(f"{'▁' if n % 2 else ''}{chr(97 + n)}" for n in range(20))]
DIM, FFN, LAYERS, LEFT, STACK = 32, 64, 2, 12, 2
FRAMES = 32  # of 20 ms in each recording: two segments of 320 ms


def make_model(folder, positions="none", seed=0):
    """A released model of Whisper's shape with random weights, whose head answers more than blanks."""
    torch.manual_seed(seed)
    cfg = architecture_config("echostream_whisper_base")
    cfg.encoder_dim, cfg.encoder_layers, cfg.encoder_heads, cfg.encoder_ffn_dim = DIM, LAYERS, 2, FFN
    cfg.mt_dim, cfg.mt_layers, cfg.mt_ffn_dim, cfg.unit_layers, cfg.st_layers = 32, 1, 32, 1, 1
    cfg.unit_dim, cfg.unit_ffn_dim, cfg.encoder_stack, cfg.left_context_frames = 32, 32, STACK, LEFT
    cfg.encoder_positions, cfg.subsampler_hidden_dim = positions, 32
    model = EchoStreamModel(cfg, len(SYMBOLS), len(SYMBOLS), 10)
    with torch.no_grad():  # what all frames have in common must not decide
        model.asr_head.output.weight.mul_(8)
        frames, _, _ = model.eval().encoder(model.fbank(torch.from_numpy(noise(2.0, 9)))[0][None], segment=8)
        model.asr_head.output.bias -= model.asr_head.output(frames).mean(dim=(0, 1))
    content = ModelContent(vars(cfg), model.state_dict(), SYMBOLS, SYMBOLS, 10)
    folder.mkdir(parents=True)
    save_released(content, folder, "0")
    return folder / "model.safetensors"


def make_set(folder, loaded: LoadedModel, setting: Setting, count=4):
    """Noise, and as its transcript what the model hears in it."""
    folder.mkdir()
    files = [folder / f"{number}.wav" for number in range(count)]
    for number, file in enumerate(files):
        soundfile.write(file, noise(FRAMES * 0.02, number), 16_000)
    (folder / "source.txt").write_text("".join(f"{file}\n" for file in files))
    (folder / "source_text.txt").write_text("x\n" * count)
    texts = transcribe_alone(loaded, read_set(folder), setting)
    assert all(len(text.split()) > 1 for text in texts)
    (folder / "source_text.txt").write_text("".join(f"{text}\n" for text in texts))
    return folder


@pytest.mark.parametrize("setting", [Setting(320, 0), Setting(80, 160), Setting(0, 0)])
def test_it_hears_what_the_runtime_hears(tmp_path, setting):
    loaded = load_model(make_model(tmp_path / "model", "cyclic"))
    recordings = read_set(make_set(tmp_path / "set", loaded, Setting(320, 320)))
    translator = StreamingTranslator(loaded.model, SYMBOLS, SYMBOLS, task="asr", segment_ms=setting.segment_ms)
    translator.right_context_frames = setting.right_context_ms // 40
    texts = transcribe_alone(loaded, recordings, setting)
    for text, recording in zip(texts, recordings, strict=True):
        samples = soundfile.read(recording.audio, dtype="float32")[0]
        assert text == translator.step(samples, translator.init_state(), is_last=True).source_text.strip()


def test_a_stream_of_one_recording_is_that_recording_and_of_many_each_has_its_own(tmp_path):
    loaded = load_model(make_model(tmp_path / "model"))
    setting = Setting(320, 160)
    recordings = read_set(make_set(tmp_path / "set", loaded, setting))
    alone = transcribe_alone(loaded, recordings, setting)
    length = FRAMES * 320
    assert transcribe_joined(loaded, recordings, [Joined(2, 0, length)], 0, setting) == [alone[2]]
    gap = 4_480
    (stream,) = plan_streams([length] * 4, 4 * (length + gap), gap)
    joined = transcribe_joined(loaded, recordings, stream, gap, setting)
    # The same from one forward pass over all of it, cut where the recordings begin.
    parts = [part for one in recordings for part in (soundfile.read(one.audio, dtype="float32")[0], np.zeros(gap))]
    features = loaded.model.fbank(torch.from_numpy(np.concatenate(parts).astype(np.float32)))[0]
    logits = loaded.model.encode(features[None], torch.tensor([len(features)]), **setting.frames(loaded.model))
    labels = [BLANK, *logits["asr_logits"][0].argmax(-1).tolist()]
    cuts = [(length + gap) // 640 * number for number in range(4)] + [len(labels)]
    for text, begin, end in zip(joined, cuts, cuts[1:], strict=False):
        symbols, _ = CTCReader(labels[begin]).read(labels[begin + 1 : end + 1])
        assert text == pieces_to_text([SYMBOLS[symbol] for _, symbol in symbols]).strip()
    assert len(set(joined)) > 1


def test_streams_are_as_long_as_asked_for_and_go_round_where_there_is_too_little():
    streams = plan_streams([100, 200, 300], 500, 50)
    assert [[one.number for one in stream] for stream in streams] == [[0, 1, 2]]
    assert [(one.begin, one.end) for one in streams[0]] == [(0, 100), (150, 350), (400, 700)]
    assert [[one.number for one in stream] for stream in plan_streams([100, 100], 250, 0)] == [[0, 1, 0]]
    assert [[one.number for one in stream] for stream in plan_streams([100, 100, 100], 100, 0)] == [[0], [1], [2]]


def test_places_in_a_stream(tmp_path):
    model = load_model(make_model(tmp_path / "model")).model
    second = 16_000
    for begin, end, expected in [
        (0, 10, ["minute 1", "elsewhere"]),
        (29, 31, ["minute 1", "over the seam"]),
        (61, 70, ["minute 2", "elsewhere"]),
        (590, 601, ["minute 10", "over the seam"]),
    ]:
        assert list(places(Joined(0, begin * second, end * second), model)) == expected


def test_operations_are_those_of_the_matrices(tmp_path):
    model = load_model(make_model(tmp_path / "model", "relative")).model
    segment, right = 4, 3  # frames of 40 ms
    queries = STACK * (segment + right)
    layer = queries * (4 * DIM * DIM + 2 * DIM * FFN) + 2 * queries * (LEFT + queries) * DIM
    new = STACK * segment
    front_end = 2 * new * 3 * 80 * DIM + new * 3 * DIM * DIM
    expected = 2 * (LAYERS * layer + front_end + segment * STACK * DIM * DIM)
    assert operations(model, Setting(160, 120)) == pytest.approx(expected / 0.16)
    assert operations(model, Setting(0, 0)) is None
    assert operations(model, Setting(40, 320)) > 3 * operations(model, Setting(320, 320))


def test_errors_of_words_and_letters():
    errors = Errors.of("La Maison bleu", "la maison bleue !") + Errors.of("", "un")
    assert errors == Errors(2, 4, 3, 17)
    assert (errors.word_rate, errors.letter_rate) == (50, pytest.approx(300 / 17))
    assert Errors.of("un", "").word_rate is None


def run(monkeypatch, capsys, *options):
    monkeypatch.setattr(sys, "argv", ["benchmark_recognition.py", *map(str, options)])
    benchmark_recognition.main()
    return capsys.readouterr().out


def test_the_table_from_the_command_line_goes_on_where_it_stopped(tmp_path, monkeypatch, capsys):
    models = {name: make_model(tmp_path / name, name) for name in ("none", "relative")}
    folder = make_set(tmp_path / "set", load_model(models["none"]), Setting(320, 160))
    options = ["--output", tmp_path / "out", "--model", f"a={models['none']}", "--set", f"human={folder}"]
    options += ["--right-contexts-ms", 0, 160, "--stream-s", 61]
    output = run(monkeypatch, capsys, *options)
    assert (tmp_path / "out" / "recognition.md").read_text() == output
    rows = json.loads((tmp_path / "out" / "recognition.json").read_text())["rows"]
    assert [row["right_context_ms"] for row in rows] == [0, 160, 320]
    assert rows[0]["word_errors"] > 0
    assert (rows[1]["word_errors"], rows[1]["letter_errors"]) == (0, 0)
    assert rows[1]["operations_per_s"] > rows[0]["operations_per_s"]
    assert "| a | none | 320 | 160 |" in output
    assert "| 0.0 | 0.0 |" in output
    (stream,) = [row for row in rows if "stream_s" in row]
    counted = {place: rates["words"] for place, rates in stream["joined"].items()}
    assert (
        counted["all"] == counted["minute 1"] + counted["minute 2"] == counted["over the seam"] + counted["elsewhere"]
    )
    assert {place: rates["words"] for place, rates in stream["alone"].items()} == counted
    assert "| a | none | human | 1 of 61 s | minute 2 |" in output

    def never(*_):
        raise AssertionError("this was measured before")

    with monkeypatch.context() as patched:
        patched.setattr(benchmark_recognition, "measure_row", never)
        assert run(monkeypatch, capsys, *options) == output
    more = run(monkeypatch, capsys, *options, "--model", f"b={models['relative']}")
    assert "| b | relative | 320 | 160 |" in more
    first = (folder / "source_text.txt").read_text().split("\n")
    (folder / "source_text.txt").write_text("\n".join([f"{first[0]} z", *first[1:]]))
    run(monkeypatch, capsys, *options)
    rows = json.loads((tmp_path / "out" / "recognition.json").read_text())["rows"]
    assert rows[1]["word_errors"] == 1
    assert len(rows) == 6, "what is not asked for this time stays in the file"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--right-contexts-ms", 30], "30 ms is no multiple of the model's frames of 40 ms"),
        (["--set", "other={tmp}/nowhere"], "nowhere"),
        (["--model", "other={tmp}/nothing.pt"], "no checkpoint at"),
    ],
)
def test_what_cannot_be_measured_is_one_line(tmp_path, monkeypatch, capsys, change, message):
    path = make_model(tmp_path / "model")
    folder = make_set(tmp_path / "set", load_model(path), Setting(320, 160), 1)
    options = ["--output", tmp_path / "out", "--model", f"a={path}", "--set", f"human={folder}"]
    with pytest.raises(SystemExit, match=message) as stopped:
        run(monkeypatch, capsys, *options, *(str(part).format(tmp=tmp_path) for part in change))
    assert "\n" not in str(stopped.value)


def test_lists_that_do_not_fit_are_refused(tmp_path):
    (tmp_path / "source.txt").write_text("a.wav\nb.wav\n")
    (tmp_path / "source_text.txt").write_text("un\n")
    with pytest.raises(ValueError, match=r"source\.txt has 2 lines, source_text\.txt 1"):
        read_set(tmp_path)
    (tmp_path / "source_text.txt").write_text("un\ndeux\n")
    with pytest.raises(ValueError, match=r"no recording a\.wav"):
        read_set(tmp_path)
