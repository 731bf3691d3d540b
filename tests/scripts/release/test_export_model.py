"""A release folder: half precision, no training state, no paths, checked, and refused where it isn't right."""

import dataclasses
import json
import logging
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import soundfile
import torch

from echostream.checkpoints.model_folder import ModelSettings
from echostream.checkpoints.vocoder_files import load_vocoder, save_vocoder
from echostream.streaming import StreamingTranslator

SCRIPTS = Path(__file__).parents[3] / "scripts"
SPEECH = (np.random.default_rng(0).standard_normal(16000) * 0.1).astype(np.float32)


@pytest.fixture
def export(monkeypatch, capsys):
    """Runs the script, in this process: importing torch and fairseq anew takes longer than all the rest."""
    from scripts.release import export_model

    def run(*options: object) -> str:
        monkeypatch.setattr(sys, "argv", ["export_model.py", *map(str, options)])
        export_model.main()
        return capsys.readouterr().out

    level = logging.getLogger().level
    yield run
    logging.getLogger().setLevel(level)


@pytest.fixture
def training(tmp_path) -> Path:
    """A training's checkpoint with all that fairseq puts into one, and its data set with a vocoder."""
    data = tmp_path / "data"
    translator = StreamingTranslator.random(arch="echostream_tiny", seed=0)
    save_vocoder(translator.vocoder, data / "vocoder")
    model = translator.model.state_dict()
    symbols = {"source_symbols": translator.detector.symbols, "target_symbols": translator.writer.symbols}
    state = {
        "args": None,
        "cfg": {
            "common": {"seed": 7, "user_dir": str(tmp_path / "echostream"), "plasma_path": "/tmp/plasma"},
            "model": {**dataclasses.asdict(translator.model.cfg), "_name": "echostream_tiny"},
            "task": {"_name": "echostream", "data": str(data), "segment_sizes": "1,8,0"},
            "optimization": {"lr": [0.002], "max_update": 9},
        },
        "model": model,
        "criterion": None,
        "optimizer_history": [
            {"criterion_name": "C", "optimizer_name": "FairseqAdam", "lr_scheduler_state": {}, "num_updates": 9}
        ],
        "task_state": {**symbols, "num_units": translator.model.unit_decoder.num_units},
        "extra_state": {
            "train_iterator": {"epoch": 3, "version": 2, "shuffle": True},
            "previous_training_time": torch.tensor(5400.0),
            "metrics": {"of": "training"},
        },
        "last_optimizer_state": {name: torch.cat([value.float().flatten()] * 2) for name, value in model.items()},
    }
    torch.save(state, tmp_path / "checkpoint.pt")
    for name, key in (("source_unigram", "source_symbols"), ("target_unigram", "target_symbols")):
        (data / name).mkdir()
        (data / name / "dict.txt").write_text("".join(f"{symbol} 1\n" for symbol in symbols[key][4:]), encoding="utf-8")
        (data / name / "spm_unigram.model").write_bytes(b"subwords")
    (data / "config_gcmvn.yaml").write_text("global_cmvn:\n  stats_npz_path: gcmvn.npz\n", encoding="utf-8")
    targets = "".join(f"{name}:\n  dict: {name}/dict.txt\n" for name in ("source_unigram", "target_unigram"))
    (data / "config_multitask.yaml").write_text(targets, encoding="utf-8")
    np.savez(data / "gcmvn.npz", mean=np.zeros(80), std=np.ones(80))
    (data / "train.tsv").write_text("id\tsrc_n_frames\na\t180000\nb\t180000\n", encoding="utf-8")
    (data / "simuleval").mkdir()
    soundfile.write(data / "a.wav", SPEECH, 16000)
    (data / "simuleval" / "source.txt").write_text(f"{data / 'a.wav'}\n", encoding="utf-8")
    (data / "simuleval" / "target.txt").write_text("a\n", encoding="utf-8")
    return tmp_path


def options(training: Path) -> list[object]:
    return ["--checkpoint", training / "checkpoint.pt", "--data", training / "data", "--output", training / "release"]


def test_a_release_is_small_and_whole_and_can_be_moved(export, training):
    (training / "release" / "samples").mkdir(parents=True)
    (training / "release" / "samples" / "samples.tsv").write_text("id\n", encoding="utf-8")
    played = ["--lag-k", "2", "--right-context-frames", "3"]
    said = export(*options(training), "--note", "command=train.sh --seed 7", *played)
    assert "translations are the same" in said
    facts = json.loads((training / "release" / "release.json").read_text(encoding="utf-8"))
    known = {name: facts[name] for name in ("updates", "training_hours", "seed", "precision", "corpus", "notes")}
    assert known == {
        "updates": 9,
        "training_hours": 1.5,
        "seed": 7,
        "precision": "fp16",
        "corpus": {"recordings": 2, "source_hours": 1.0},
        "notes": {"command": "train.sh --seed 7"},
    }
    assert str(training) not in json.dumps(facts)
    size = (training / "checkpoint.pt").stat().st_size
    assert (
        training / "release" / "model.safetensors"
    ).stat().st_size < size / 5  # half of weights alone, once of three
    assert (training / "release" / "samples" / "samples.tsv").is_file()
    original = StreamingTranslator.from_checkpoint(training / "checkpoint.pt", vocoder=training / "data" / "vocoder")
    shutil.rmtree(training / "data")
    (training / "release").rename(training / "elsewhere")
    assert str(training) not in (training / "elsewhere" / "model.json").read_text(encoding="utf-8")
    assert not list((training / "elsewhere").rglob("*.pt")), "nothing in it could run code"
    moved = StreamingTranslator.from_checkpoint(training / "elsewhere")
    assert moved.right_context_frames == 3
    assert (moved.policy.lag_k, ModelSettings.of(training / "elsewhere").source_lang) == (2, "fr")
    for name, weight in moved.model.state_dict().items():
        assert weight.dtype == original.model.state_dict()[name].dtype  # loaded as it computes
        torch.testing.assert_close(weight, original.model.state_dict()[name], rtol=1e-3, atol=1e-6)
    fbank = moved.model.fbank.state_dict()
    assert all(torch.equal(value, original.model.fbank.state_dict()[name]) for name, value in fbank.items())


def test_matrices_can_be_bytes_but_for_those_of_durations(export, training):
    export(*options(training))
    (training / "release" / "model_2.safetensors").write_bytes(b"of a larger model that was here before")
    half = (training / "release" / "model.safetensors").stat().st_size
    export(*options(training), "--precision", "int8")
    assert (training / "release" / "model.safetensors").stat().st_size < 0.6 * half
    assert not (training / "release" / "model_2.safetensors").exists()
    facts = json.loads((training / "release" / "release.json").read_text(encoding="utf-8"))
    assert facts["precision"] == "int8" and facts["check"]["logit_difference"] > 0
    (voice,) = (training / "release" / "vocoder").glob("*.safetensors")
    stored = safetensors.torch.load_file(voice)
    of_durations = {value.dtype for name, value in stored.items() if name.startswith(("dict.", "dur_predictor."))}
    assert of_durations == {torch.float16}
    assert torch.int8 in {value.dtype for value in stored.values()}
    original, moved = load_vocoder(training / "data" / "vocoder"), load_vocoder(voice.parent)
    for name, value in original.state_dict().items():
        torch.testing.assert_close(moved.state_dict()[name], value, rtol=1e-3, atol=float(value.abs().max()) / 250)


def test_a_language_model_goes_with_it_if_it_fits(export, training):
    words = ["</s>", "<s>", "<unk>", StreamingTranslator.random("echostream_tiny").detector.symbols[5]]
    for name, known in (("lm.arpa", words), ("other.arpa", [*words[:3], "elsewhere"])):
        lines = ["\\data\\", "ngram 1=4", "\\1-grams:", *(f"-0.6\t{word}" for word in known), "\\end\\"]
        (training / name).write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(SystemExit, match="'elsewhere', which the source dictionary lacks"):
        export(*options(training), "--source-lm", training / "other.arpa")
    assert not (training / "release").exists()
    export(*options(training), "--source-lm", training / "lm.arpa")
    assert ModelSettings.of(training / "release").source_lm == training / "release" / "lm.arpa"
    assert StreamingTranslator.from_checkpoint(training / "release").transcriber is not None


def test_what_is_too_large_is_not_written(export, training):
    with pytest.raises(SystemExit, match=r"more than --max-mb 0\.5 \(largest: model\.safetensors"):
        export(*options(training), "--max-mb", "0.5")
    assert not (training / "release").exists()
    assert not list(training.glob(".export*"))


def test_parts_that_do_not_belong_together_are_named(export, training):
    with pytest.raises(SystemExit, match="no vocoder at"):
        export(*options(training), "--vocoder", training / "none")
    dictionary = training / "data" / "source_unigram" / "dict.txt"
    dictionary.write_text(dictionary.read_text(encoding="utf-8").replace("w4 ", "other "), encoding="utf-8")
    with pytest.raises(SystemExit, match=r"source_unigram/dict\.txt is not the dictionary of the checkpoint"):
        export(*options(training))
    dictionary.unlink()
    with pytest.raises(SystemExit, match=r"lacks .*dict\.txt"):
        export(*options(training))


def test_a_path_of_this_machine_is_no_part_of_a_release(export, training):
    config = training / "data" / "config_gcmvn.yaml"
    config.write_text(f"{config.read_text(encoding='utf-8')}audio_root: {training}\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="holds on this machine only: 'audio_root"):
        export(*options(training))


def test_narrowing_keeps_what_is_shared_and_refuses_what_does_not_fit(monkeypatch):
    from scripts.release.export_model import narrow

    matrix = torch.ones(3, 3)
    weights = narrow({"a": matrix, "b": matrix, "bias": torch.ones(3)}, torch.float16)
    assert weights["a"].data_ptr() == weights["b"].data_ptr()
    assert (weights["a"].dtype, weights["bias"].dtype) == (torch.float16, torch.float32)
    with pytest.raises(ValueError, match="the weight a is not finite as"):
        narrow({"a": 1e6 * matrix}, torch.float16)


def test_another_model_is_noticed(monkeypatch, export, training):
    from scripts.release import export_model

    def damaged(weights, dtype):
        return {name: -weight if name.startswith("asr_head") else weight for name, weight in weights.items()}

    monkeypatch.setattr(export_model, "narrow", damaged)
    with pytest.raises(SystemExit, match="the exported model is another"):
        export(*options(training))


def test_samples_are_the_first_recordings_of_each_set(tmp_path, monkeypatch, capsys):
    from scripts.demo.demo import sample_recordings
    from scripts.release import export_samples

    model, folder = tmp_path / "model", tmp_path / "set"
    (model / "samples").mkdir(parents=True)
    (model / "samples/old.flac").touch()
    (model / "model.yaml").write_text("checkpoint: checkpoint.pt\nsource_lang: fr\ntarget_lang: en\n")
    folder.mkdir()
    for name in "ab":
        soundfile.write(folder / f"{name}.wav", SPEECH, 16000)
    (folder / "source.txt").write_text(f"{folder / 'a.wav'}\n{folder / 'b.wav'}\n")
    (folder / "source_text.txt").write_text("le chat\nl'été\n")
    (folder / "target.txt").write_text("the cat\nsummer\n")

    def run(*options: object) -> None:
        monkeypatch.setattr(sys, "argv", ["export_samples.py", "--model", str(model), *map(str, options)])
        export_samples.main()

    run("--take", f"first=2:{folder}", "--take", f"again=1:{folder}")
    assert {path.name for path in (model / "samples").iterdir()} == {
        "samples.tsv", "first_1.flac", "first_2.flac", "again_1.flac"
    }  # fmt: skip
    recordings = sample_recordings(model / "samples/samples.tsv", ModelSettings.of(model))
    assert [(r.name, r.source_text, r.reference, r.group) for r in recordings][1:] == [
        ("first_2", "l'été", "summer", "first"),
        ("again_1", "le chat", "the cat", "again"),
    ]
    speech, sample_rate = soundfile.read(recordings[0].path)
    assert sample_rate == 16000
    np.testing.assert_allclose(speech, SPEECH, atol=1e-4)
    for options, message in (
        ([f"x=3:{folder}"], "has 2 recordings, not 3"),
        ([f"x=1:{tmp_path}"], "has no source.txt"),
    ):
        with pytest.raises(SystemExit, match=message):
            run("--take", *options)
    with pytest.raises(SystemExit, match="2"):
        run("--take", "nonsense")
    assert "is not NAME=N:FOLDER" in capsys.readouterr().err
