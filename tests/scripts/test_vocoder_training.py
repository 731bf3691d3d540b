"""Training of unit vocoders, from the command line to a loadable model, on a few seconds of tones."""

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

from echostream.modules.vocoder import load_vocoder

SCRIPTS = Path(__file__).parents[2] / "scripts" / "vocoder"
DURATIONS = {
    "encoder_embed_dim": 16,
    "var_pred_hidden_dim": 16,
    "var_pred_kernel_size": 3,
    "var_pred_dropout": 0.1,
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
    sys.path.insert(0, str(SCRIPTS))
    try:
        spec = importlib.util.spec_from_file_location("vocoder_training", SCRIPTS / "train.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(SCRIPTS))
    return module


@pytest.fixture
def corpus(tmp_path):
    """Four utterances in which unit ``u`` is a tone of ``200 (u + 1)`` Hz; the audio is a bit longer."""
    rng = np.random.default_rng(0)
    lines = ["id\taudio\tunits"]
    (tmp_path / "wav").mkdir()
    for number in range(4):
        units = rng.integers(0, 4, 12).repeat(rng.integers(1, 6, 12))
        hertz = np.append(200.0 * (units + 1).repeat(320), np.full(100, 200.0))
        wave = 0.3 * np.sin(2 * np.pi * np.cumsum(hertz) / 16000)
        sf.write(tmp_path / "wav" / f"{number}.wav", wave, 16000)
        lines.append(f"{number}\twav/{number}.wav\t{' '.join(map(str, units))}")
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
        return training.Trainer(ISTFT | {"dur_prediction_weight": 0}, (corpus / "units.tsv", corpus), 3, "cpu", False)

    whole, part = fresh(), fresh()
    for step in range(6):
        whole.step(step / 6)
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
    small = training.Discriminators
    monkeypatch.setattr(training, "Discriminators", lambda: small(channels=4))
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


def test_shell_recipe_runs_the_trainer(corpus):
    places = [str(corpus / name) for name in ("missing.tsv", ".", "out")]
    environment = os.environ | {"PYTHON": "echo"}
    done = subprocess.run(
        ["bash", str(SCRIPTS / "train.sh"), *places, "--minutes", "1"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "train.py --units" in done.stdout and done.stdout.rstrip().endswith(f"--out {places[2]} --minutes 1")
    assert subprocess.run(["bash", str(SCRIPTS / "train.sh")], capture_output=True).returncode == 2


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
