"""Training of unit vocoders, from the command line to a loadable model, on a few seconds of tones."""

import csv
import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch

from echostream.checkpoints.vocoder_files import load_vocoder
from echostream.vocoders.code_hifigan import CodeHiFiGANVocoder
from scripts.vocoder import evaluate_vocoder, make_tables, vocoder_trainer

SCRIPTS = Path(vocoder_trainer.__file__).parent
DURATIONS = {
    "encoder_embed_dim": 16,
    "var_pred_hidden_dim": 16,
    "var_pred_kernel_size": 3,
    "var_pred_dropout": 0.1,
    "var_pred_lookahead": 2,
}
TRAINING = {"learning_rate": 0.003, "batch_size": 2, "piece_frames": 16, "duration_batch_size": 2}
ISTFT = {
    "type": "istft",
    "num_embeddings": 4,
    "channels": 16,
    "hidden_channels": 32,
    "layers": 2,
    "kernel_size": 3,
    "n_fft": 640,
    "spectra_per_frame": 2,
    "dur_predictor_params": DURATIONS,
    "training": TRAINING,
}
CODE_HIFIGAN = {
    "type": "code_hifigan",
    "num_embeddings": 4,
    "embedding_dim": 16,
    "model_in_dim": 16,
    "upsample_rates": [20, 16],
    "upsample_kernel_sizes": [40, 32],
    "upsample_initial_channel": 16,
    "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1, 3]],
    "dur_predictor_params": DURATIONS,
    "training": TRAINING,
}


@pytest.fixture(scope="module")
def training():
    spec = importlib.util.spec_from_file_location("vocoder_training", SCRIPTS / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def corpus(tmp_path):
    """Four utterances in which unit ``u`` is a tone of ``200 (u + 1)`` Hz; the audio is a bit longer."""
    rng = np.random.default_rng(0)
    lines = ["id\taudio\ttext\tunits"]
    (tmp_path / "wav").mkdir()
    for number in range(4):
        units = rng.integers(0, 4, 12).repeat(rng.integers(1, 6, 12))
        hertz = np.append(200.0 * (units + 1).repeat(320), np.full(100, 200.0))
        wave = 0.3 * np.sin(2 * np.pi * np.cumsum(hertz) / 16000)
        sf.write(tmp_path / "wav" / f"{number}.wav", wave, 16000)
        lines.append(f"{number}\twav/{number}.wav\ta tune\t{' '.join(map(str, units))}")
    (tmp_path / "units.tsv").write_text("\n".join(lines) + "\n")
    return tmp_path


def arguments(corpus, config, *more):
    (corpus / "config.json").write_text(json.dumps(config))
    places = {"--units": "units.tsv", "--audio-root": ".", "--config": "config.json", "--out": "out"}
    return [word for option, name in places.items() for word in (option, str(corpus / name))] + list(more)


@pytest.mark.parametrize("config", [ISTFT, CODE_HIFIGAN], ids=["istft", "code_hifigan"])
def test_trains_resumes_and_exports(training, corpus, config, capsys):
    assert training.main(arguments(corpus, config, "--max-steps", "6")) == 0
    first = {path.name for path in (corpus / "out").iterdir()}
    assert training.main(arguments(corpus, config, "--max-steps", "9")) == 0
    output = capsys.readouterr().out
    assert "steps/s" in output and "ETA" in output and "going on from step 6" in output
    exported = {"istft": {"vocoder.pt"}, "code_hifigan": {"g_00000006"}}[config["type"]]
    assert first == {"config.json", "training.pt"} | exported
    vocoder = load_vocoder(corpus / "out")
    assert vocoder(torch.tensor([[0, 1, 2]]))[0].shape[1] >= 3 * 320
    assert "training" not in vocoder.config


def test_loss_falls(training, corpus):
    trainer = training.Trainer(ISTFT, (corpus / "units.tsv", corpus), 0, "cpu", False)
    losses = [trainer.step(0.2) for _ in range(60)]
    for name in ("spectral", "duration"):
        early, late = (np.mean([loss[name] for loss in part]) for part in (losses[:10], losses[-10:]))
        assert late < 0.8 * early, name


def test_interrupted_run_equals_an_uninterrupted_one(training, corpus):
    def fresh():
        return training.Trainer(ISTFT, (corpus / "units.tsv", corpus), 3, "cpu", False)

    whole = fresh()
    for step in range(6):
        whole.step(step / 6)
    part = fresh()
    for step in range(3):
        part.step(step / 6)
    torch.save(part.state_dict(), corpus / "state.pt")
    resumed = fresh()
    resumed.load_state_dict(torch.load(corpus / "state.pt", weights_only=True))
    for step in range(3, 6):
        resumed.step(step / 6)
    for a, b in zip(whole.average, resumed.average, strict=True):
        torch.testing.assert_close(a, b)


def test_adversarial_step(training, corpus, monkeypatch):
    small = vocoder_trainer.Discriminators
    monkeypatch.setattr(vocoder_trainer, "Discriminators", lambda: small(channels=4))
    trainer = training.Trainer(CODE_HIFIGAN, (corpus / "units.tsv", corpus), 0, "cpu", True)
    before = [parameter.clone() for parameter in trainer.discriminators.parameters()]
    losses = trainer.step(0.2)
    assert {"spectral", "duration", "gan", "features"} == losses.keys()
    assert any(not torch.equal(a, b) for a, b in zip(before, trainer.discriminators.parameters(), strict=True))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_same_command_goes_on(training, corpus, capsys, monkeypatch, number):
    args = arguments(corpus, ISTFT, "--max-steps", "5")
    step = training.Trainer.step

    def interrupted_step(trainer, progress):
        if trainer.steps == 2:
            os.kill(os.getpid(), number)
        return step(trainer, progress)

    monkeypatch.setattr(training.Trainer, "step", interrupted_step)
    assert training.main(args) == 130
    assert "stopped at step 3; the same command goes on" in capsys.readouterr().out
    assert torch.load(corpus / "out" / "training.pt", weights_only=True)["steps"] == 3
    assert not (corpus / "out" / "vocoder.pt").exists()
    assert training.main(args) == 0
    assert "going on from step 3" in capsys.readouterr().out
    assert load_vocoder(corpus / "out").num_units == 4


def test_number_of_units_can_be_given(training, corpus):
    assert training.main(arguments(corpus, ISTFT, "--max-steps", "1", "--num-units", "7")) == 0
    assert load_vocoder(corpus / "out").num_units == 7


def test_duration_loss_is_smallest_for_the_mean():
    durations = torch.tensor([[1, 1, 1, 9]])
    losses = {
        frames: vocoder_trainer.duration_deviance(torch.full((1, 4), float(np.log1p(frames))), durations).item()
        for frames in (1.0, 2.0, 3.0, 4.0, 9.0)
    }
    assert min(losses, key=losses.get) == 3.0
    assert vocoder_trainer.duration_deviance(torch.log1p(durations.float()), durations).item() == pytest.approx(0)


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_evaluations_after_a_kill_are_neither_lost_nor_doubled(training, corpus, monkeypatch):
    held_out = ["--held-out", str(corpus / "units.tsv"), "--evaluate-minutes", "1", "--evaluate-recordings", "2"]
    args = arguments(corpus, ISTFT, "--minutes", "4", *held_out)
    step, save = training.Trainer.step, training.write_checkpoint

    def half_a_minute(trainer, progress):
        trainer.seconds += 30
        return step(trainer, progress)

    def killed(self, *_):
        raise InterruptedError

    monkeypatch.setattr(training, "find_transcriber", lambda *_: None)
    monkeypatch.setattr(training.Trainer, "step", half_a_minute)
    # what a run killed after its last evaluation leaves, if the state was last saved before step 5
    monkeypatch.setattr(training, "write_checkpoint", lambda path, state: state["steps"] > 4 or save(path, state))
    assert training.main([*args[:-6], "--max-steps", "6", *held_out]) == 0
    assert [row["step"] for row in rows(corpus / "out/evaluations.tsv")] == ["2", "4", "6"]
    (corpus / "out/config.json").unlink()
    # killed during the next evaluation
    monkeypatch.setattr(training, "write_checkpoint", save)
    quick = training.Evaluation.quick
    monkeypatch.setattr(training.Evaluation, "quick", killed)
    with pytest.raises(InterruptedError):
        training.main(args)
    monkeypatch.setattr(training.Evaluation, "quick", quick)
    assert training.main(args) == 0
    table = rows(corpus / "out/evaluations.tsv")
    assert [row["step"] for row in table][:2] == ["2", "4"] and len({row["step"] for row in table}) == len(table) == 4
    assert all(float(row["mel_distance_db"]) > 0 and row["wer"] == "" for row in table)


def test_finished_run_is_left_alone_and_other_data_refused(training, corpus, capsys):
    args = arguments(corpus, ISTFT, "--max-steps", "2")
    assert training.main(args) == 0
    before = (corpus / "out/training.pt").stat().st_mtime_ns
    assert training.main(args) == 0
    assert "already trained for 2 steps" in capsys.readouterr().out
    assert (corpus / "out/training.pt").stat().st_mtime_ns == before
    sf.write(corpus / "wav/0.wav", 0.5 * sf.read(corpus / "wav/0.wav")[0], 16000)
    with pytest.raises(SystemExit, match="other recordings or units"):
        training.main(args)


class Parrot:
    """Stands where a recogniser would: hears what it is told to."""

    language = "en"

    def __init__(self, *texts):
        self.texts = list(texts)

    def __call__(self, samples):
        return self.texts.pop(0)


def test_scores(training, corpus):
    trainer = training.Trainer(ISTFT, (corpus / "units.tsv", corpus), 0, "cpu", False)
    recordings = evaluate_vocoder.read_held_out(corpus / "units.tsv", corpus, trainer.vocoder, 2)
    evaluation = evaluate_vocoder.Evaluation(recordings, 16000, None)
    before = evaluation.quick(trainer.averaged())
    for _ in range(80):
        trainer.step(0.2)
    after = evaluation.full(trainer.averaged(), corpus / "samples")
    assert after["mel_distance_db"] < 0.7 * before["mel_distance_db"]
    assert abs(np.log(after["tempo"])) < 0.5 and after["wer"] is None
    assert {path.name for path in (corpus / "samples").iterdir()} == {"0.wav", "1.wav"}
    evaluation = evaluate_vocoder.Evaluation(recordings, 16000, Parrot("A tune.", "no tune 21"))
    pytest.importorskip("whisper_normalizer")
    assert evaluation.word_error_rate([torch.zeros(1)] * 2) == 50.0  # "a" misheard, and a number made up


def test_tables(corpus, tmp_path, capsys):
    lines = ["id\tunits"] + [f"r{number:02d}\t1 2 3" for number in range(1, 31)]
    (tmp_path / "known.tsv").write_text("\n".join(lines) + "\n")
    (tmp_path / "speech.txt").write_text("".join(f"wav/r{number:02d}.wav\n" for number in range(21)))

    def tables(seed):
        places = {"--units": "known.tsv", "--audio": "speech.txt", "--audio-root": "", "--out": ""}
        options = [word for option, name in places.items() for word in (option, str(tmp_path / name))]
        make_tables.main([*options, "--held-out", "5", "--seed", str(seed)])
        return [[row["id"] for row in rows(tmp_path / f"{name}.tsv")] for name in ("train", "held_out")]

    train, held_out = tables(0)
    assert (len(train), len(held_out)) == (18, 2)  # r00 has no units; at most a tenth is held out
    assert sorted(train + held_out) == [f"r{number:02d}" for number in range(1, 21)]
    assert "1 of 21 recordings have no units" in capsys.readouterr().out
    assert tables(0) == [train, held_out] and tables(1) != [train, held_out]
    (tmp_path / "speech.txt").write_text("other.wav\n")
    with pytest.raises(SystemExit, match="none of the 1 recordings has units"):
        tables(0)


def recipe(corpus, *options):
    command = ["bash", str(SCRIPTS / "run.sh"), "--data-root", str(corpus / "voc"), "--audio-root", str(corpus)]
    command += ["--units", str(corpus / "units.tsv"), "--config", str(corpus / "config.json"), "--python"]
    return subprocess.run([*command, sys.executable, *options], capture_output=True, text=True)


def test_recipe(corpus):
    """The stages from a table of units to the published format, and a second run that finds the last one done."""
    (corpus / "config.json").write_text(json.dumps(CODE_HIFIGAN))
    lines = (corpus / "units.tsv").read_text().splitlines()
    copies = [line.replace("\t", f"{copy}\t", 1) for copy in "abc" for line in lines[1:]]
    (corpus / "units.tsv").write_text("\n".join([lines[0], *copies]) + "\n")
    done = recipe(corpus, "--minutes", "0.02", "--held-out", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    scores = json.loads((corpus / "voc/evaluation.json").read_text())
    assert scores["recordings"] == 1 and scores["mel_distance_db"] > 0
    assert isinstance(load_vocoder(corpus / "voc/vocoder"), CodeHiFiGANVocoder)
    assert [path.name[:2] for path in (corpus / "voc/vocoder").glob("g_*")] == ["g_"]
    assert len(rows(corpus / "voc/vocoder/evaluations.tsv")) == 1
    again = recipe(corpus, "--held-out", "1", "--stage", "3")
    assert again.returncode == 0 and "evaluation: already done" in again.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--minutes", "soon"], "--minutes is a number of minutes, not 'soon'"),
        (["--threads", "0"], "--threads is a number from 1"),
        (["--audio", "nowhere"], "no list or folder of recordings nowhere"),
        (["--config", "nowhere.json"], "no vocoder configuration nowhere.json"),
    ],
)
def test_recipe_refuses(corpus, options, message):
    (corpus / "config.json").write_text("{}")
    done = recipe(corpus, *options)
    assert done.returncode == 2 and message in done.stderr


def change_units(corpus, edit):
    lines = (corpus / "units.tsv").read_text().splitlines()
    lines[2] = edit(lines[2])
    (corpus / "units.tsv").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda corpus: (corpus / "units.tsv").unlink(), "cannot read the units"),
        (lambda corpus: (corpus / "wav/2.wav").unlink(), "cannot read the audio"),
        (lambda corpus: sf.write(corpus / "wav/2.wav", np.zeros(8000), 24000), "24000 Hz"),
        (lambda corpus: sf.write(corpus / "wav/2.wav", np.zeros(800), 16000), "do not fit"),
        (lambda corpus: change_units(corpus, lambda line: line + " 4"), "num_embeddings 4"),
        (lambda corpus: change_units(corpus, lambda line: line + " x"), "whole numbers"),
        (lambda corpus: change_units(corpus, lambda line: "1\twav/1.wav"), "line 3: expected the columns"),
        (lambda corpus: (corpus / "units.tsv").write_text("id\taudio\tunits\n"), "no audio to train on"),
    ],
)
def test_wrong_data_is_named(training, corpus, damage, message):
    args = arguments(corpus, ISTFT, "--max-steps", "1")
    damage(corpus)
    with pytest.raises(SystemExit, match=message):
        training.main(args)
    assert not (corpus / "out").exists()


def test_wrong_config_is_named(training, corpus):
    config = ISTFT | {"training": TRAINING | {"learning_rat": 1}}
    with pytest.raises(SystemExit, match="unknown training setting 'learning_rat'"):
        training.main(arguments(corpus, config))
    assert training.main(arguments(corpus, ISTFT, "--max-steps", "1")) == 0
    with pytest.raises(SystemExit, match="another config"):
        training.main(arguments(corpus, ISTFT | {"layers": 3}))
    (corpus / "out" / "training.pt").write_bytes(b"PK damaged")
    with pytest.raises(SystemExit, match="which is damaged; remove it"):
        training.main(arguments(corpus, ISTFT))
