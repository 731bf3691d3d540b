"""Damaged, foreign or malicious checkpoints and vocoders; invalid checkpoints that a training would resume from."""

from __future__ import annotations

import gzip
import json
import pickle
import shutil
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases import CHECKPOINTS, LANGUAGE_MODELS, LOADERS, RESUMED, VOCODERS
from spoilt import NUM_UNITS, SIZES, VOCODER, Evil

from echostream.checkpoints.vocoder_files import save_vocoder
from echostream.models import EchoStreamConfig
from echostream.tasks import EchoStreamTask, EchoStreamTaskConfig
from echostream.vocoders.registry import build_vocoder


def option(name: str, value: object) -> Callable[[dict], None]:
    return lambda content: content["cfg"]["model"].update({name: value})


def tensor(name: str, change: Callable[[torch.Tensor], Any]) -> Callable[[dict], None]:
    return lambda content: content["model"].update({name: change(content["model"].get(name, torch.zeros(2)))})


def symbols(side: str, change: Callable[[list], list]) -> Callable[[dict], None]:
    return lambda content: content["task_state"].update({side: change(content["task_state"][side])})


def without(*keys: str) -> Callable[[dict], None]:
    def remove(content: dict) -> None:
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return remove


HEAD = "asr_head.output.weight"
CHANGES: dict[str, Callable[[dict], Any]] = {
    "a tensor": lambda content: torch.zeros(3),
    "without its configuration": without("cfg"),
    "without its weights": without("model"),
    "without its dictionaries": without("task_state", "source_symbols"),
    "of another model": option("_name", "s2ut_transformer"),
    "an option missing": without("cfg", "model", "encoder_layers"),
    "an option mistyped": option("encoder_layrs", 3),
    "an option of the wrong type": option("encoder_dim", "wide"),
    "an option out of range": option("encoder_layers", -1),
    "options that don't go together": option("encoder_heads", 7),
    "an option asking for terabytes": option("encoder_ffn_dim", 10**12),
    "another architecture": option("encoder_conv_kernel", 0),
    "a tensor missing": without("model", HEAD),
    "a tensor too many": tensor("more", torch.clone),
    "something else for a tensor": tensor(HEAD, str),
    "weights with NaN": tensor(HEAD, lambda value: value * torch.nan),
    "a shorter source dictionary": symbols("source_symbols", lambda known: known[:-1]),
    "a longer target dictionary": symbols("target_symbols", lambda known: [*known, "▁more"]),
    "another number of units": lambda content: content["task_state"].update({"num_units": NUM_UNITS - 1}),
    "CMVN of 40 mel bins": tensor("fbank.cmvn_std", lambda value: value[:40]),
    "CMVN of zeros": tensor("fbank.cmvn_std", torch.zeros_like),
}


@pytest.fixture
def checkpoint(model, changed, tmp_path) -> Callable[[str], Path]:
    """Write the checkpoint of a row of ``cases.CHECKPOINTS``; code in it would create the folder ``ran``."""

    def make(name: str) -> Path:
        path = tmp_path / "checkpoint.pt"
        if name == "empty":
            path.touch()
        elif name == "cut short":
            path.write_bytes(model.read_bytes()[:-5000])
        elif name == "cut short near its beginning":
            path.write_bytes(model.read_bytes()[:9000])
        elif name == "text":
            path.write_text("not a checkpoint\n" * 99)
        elif name == "a pickle that runs a command":
            changed(lambda content: content.update({"extra_state": Evil(tmp_path / "ran")}))
        elif name == "the same in torch's older format":
            path.write_bytes(pickle.dumps({"model": Evil(tmp_path / "ran")}, protocol=2))
        elif name in CHANGES:
            changed(CHANGES[name])
        return path

    return make


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoint_is_rejected_in_one_line(name, checkpoint, echostream, tmp_path):
    path = checkpoint(name)
    status, said = echostream("info", path)
    assert status == 1 and len(said) == 1
    assert said[0].startswith("error: ") and str(path) in said[0] and CHECKPOINTS[name] in said[0], said
    assert "weights_only" not in said[0]  # torch advises to switch off its safe loader
    assert not (tmp_path / "ran").exists()


def test_unsafe_loader_would_run_the_pickle(tmp_path):
    with pytest.raises(AttributeError):  # None, which the command returns, has no items
        pickle.loads(pickle.dumps(Evil(tmp_path / "ran"))).items()
    assert (tmp_path / "ran").is_dir()


@pytest.mark.parametrize("command", LOADERS)
def test_all_commands_reject_a_malicious_checkpoint(command, checkpoint, echostream, recordings, simuleval, tmp_path):
    path = checkpoint("a pickle that runs a command")
    if command == "SimulEval agents":
        # If an option is given twice, the last one counts.
        message = simuleval([recordings["good"]], tmp_path / "out", "--model-path", str(path))
        assert "\n" not in message
    else:
        name = command.split()[1]
        if name == "serve":
            pytest.importorskip("aiohttp")
            pytest.importorskip("prometheus_client")
        inputs = [] if name == "serve" else [recordings["good"]]
        status, said = echostream(name, *inputs, "--model", path)
        message = said[-1]
        assert status == 1 and sum(line.startswith("error: ") for line in said) == 1
    assert message.startswith("error: ") and str(path) in message and "posix.system" in message
    assert not (tmp_path / "ran").exists()


def config_without(folder: Path, key: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config[key]
    (folder / "config.json").write_text(json.dumps(config))


VOCODER_DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing": shutil.rmtree,
    "a folder without one": lambda folder: [path.unlink() for path in folder.iterdir()],
    "weights missing": lambda folder: (folder / "vocoder.pt").unlink(),
    "weights cut short": lambda folder: (folder / "vocoder.pt").write_bytes(
        (folder / "vocoder.pt").read_bytes()[:-999]
    ),
    "a pickle that runs a command": lambda folder: torch.save(
        {"generator": Evil(folder.parent / "ran")}, folder / "vocoder.pt"
    ),
    "no vocoder's weights": lambda folder: torch.save({"model": {}}, folder / "vocoder.pt"),
    "weights of another size": lambda folder: (folder / "config.json").write_text(
        json.dumps(VOCODER | {"channels": 24})
    ),
    "config.json that is no JSON": lambda folder: (folder / "config.json").write_text("{"),
    "config.json with a key missing": lambda folder: config_without(folder, "num_embeddings"),
    "of another kind": lambda folder: (folder / "config.json").write_text(json.dumps(VOCODER | {"type": "griffin"})),
    "of another number of units": lambda folder: save_vocoder(build_vocoder(VOCODER | {"num_embeddings": 50}), folder),
}


@pytest.mark.parametrize("name", VOCODERS)
def test_vocoder_is_rejected_in_one_line(name, model, recordings, echostream, tmp_path):
    shutil.copytree(model.parent / "vocoder", tmp_path / "vocoder")
    VOCODER_DAMAGE[name](tmp_path / "vocoder")
    options = ["--vocoder", tmp_path / "vocoder", "-o", tmp_path / "out.wav", "-q"]
    status, said = echostream("translate", recordings["good"], "--model", model, *options)
    assert status == 1 and len(said) == 1
    assert said[0].startswith("error: ") and VOCODERS[name] in said[0], said
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out.wav").exists()


ARPA = "\\data\\\nngram 1=4\n\n\\1-grams:\n-0.5\t</s>\n-99\t<s>\n-0.6\t<unk>\n-0.7\t<pad>\n\n\\end\\\n"


@pytest.mark.parametrize("name", [*LANGUAGE_MODELS, "as it should be"])
def test_language_model_is_rejected_in_one_line(name, model, recordings, echostream, tmp_path):
    path = tmp_path / ("lm.arpa.gz" if "gzipped" in name else "lm.arpa")
    whole = ARPA.encode()
    contents = {
        "missing": None,
        "empty": b"",
        "a zip file": b"PK\x03\x04\xff\xfe",
        "a wrong number": whole.replace(b"-0.6", b"much"),
        "cut short": whole[: whole.index(b"-99")],
        "cut short, gzipped": gzip.compress(whole)[:-9],
        "other subwords": whole.replace(b"<pad>", b"elsewhere"),
        "as it should be": whole,
    }
    if contents[name] is not None:
        path.write_bytes(contents[name])
    options = ["--source-lm", path, "-o", tmp_path / "out.wav", "-q"]
    status, said = echostream("translate", recordings["good"], "--model", model, *options)
    if name not in LANGUAGE_MODELS:
        assert status == 0 and not said
        return
    assert status == 1 and len(said) == 1 and not (tmp_path / "out.wav").exists()
    assert said[0].startswith("error: ") and LANGUAGE_MODELS[name] in said[0], said


# --- trainings ---------------------------------------------------------------------------------------------------


def build(corpus, **options: Any) -> None:
    """The steps of fairseq before it loads the checkpoint that a training resumes from."""
    cfg = {"data": str(corpus.folder), "seed": 1, "train_subset": "train", "num_units": 20}
    cfg |= {"save_dir": str(corpus.folder / "run"), "restore_file": "checkpoint_last.pt"}
    task = EchoStreamTask.setup_task(EchoStreamTaskConfig(**{**cfg, **options.pop("task", {})}))
    task.build_model(Namespace(**vars(EchoStreamConfig(**SIZES | options)) | {"_name": "echostream_tiny"}))


@pytest.mark.parametrize("name", RESUMED)
def test_training_does_not_resume_from_an_invalid_checkpoint(name, corpus, checkpoint_of, tmp_path):
    path = checkpoint_of(corpus)
    build(corpus)  # valid without changes
    before, options = path.read_bytes(), {}
    match name:
        case "cut short":
            path.write_bytes(before[:-999])
        case "a pickle that runs a command":
            torch.save({"model": {}, "extra_state": Evil(tmp_path / "ran")}, path)
        case "not of EchoStream":
            torch.save({"model": {}, "args": None}, path)
        case "another architecture":
            options = {"encoder_layers": 2}
        case "other dictionaries":
            corpus.replace("source.txt", "jour", "soir")
        case "another number of units":
            options = {"task": {"num_units": 21}}
        case "another CMVN":
            np.savez(corpus.folder / "gcmvn.npz", mean=np.full(80, 11.0), std=np.full(80, 2.0))
        case "weights with NaN":
            content = torch.load(path, weights_only=True)
            content["model"] = {key: value * np.nan for key, value in content["model"].items()}
            torch.save(content, path)
        case "--restore-file with --checkpoint-suffix, missing":
            options = {"task": {"restore_file": str(tmp_path / "run.pt"), "checkpoint_suffix": "_b"}}
        case "--checkpoint-suffix, of another architecture":
            path = path.rename(path.with_name("checkpoint_last_b.pt"))
            options = {"encoder_layers": 2, "task": {"checkpoint_suffix": "_b"}}
        case "--finetune-from-model missing":
            path = path.rename(tmp_path / "other.pt")
            options = {"task": {"finetune_from_model": "none.pt"}}
        case "--finetune-from-model of other dictionaries":
            path = path.rename(tmp_path / "other.pt")
            corpus.replace("source.txt", "jour", "soir")
            options = {"task": {"finetune_from_model": str(path)}}
        case "--continue-once cut short":
            path = path.rename(tmp_path / "other.pt")
            path.write_bytes(before[:-999])
            options = {"task": {"continue_once": str(path)}}
        case "--restore-file missing":
            options = {"task": {"restore_file": str(tmp_path / "none.pt")}}
        case "--init-encoder-from cut short":
            path = path.rename(tmp_path / "other.pt")
            path.write_bytes(before[:-999])
            options = {"task": {"init_encoder_from": str(path)}}
        case "--init-decoders-from a pickle that runs a command":
            path = path.rename(tmp_path / "other.pt")
            torch.save({"model": {}, "extra_state": Evil(tmp_path / "ran")}, path)
            options = {"task": {"init_decoders_from": str(path)}}
    spoilt = path.read_bytes()
    with pytest.raises(SystemExit) as ended:
        build(corpus, **options)
    said = str(ended.value)
    assert said.startswith("echostream: ") and RESUMED[name] in said and "\n" not in said
    assert path.read_bytes() == spoilt and not (tmp_path / "ran").exists()


def test_error_suggests_the_previous_checkpoint(corpus, checkpoint_of):
    path = checkpoint_of(corpus)
    for name in ("checkpoint_1_9.pt", "checkpoint_2_10.pt"):
        shutil.copy(path, path.with_name(name))
    path.write_bytes(path.read_bytes()[:-999])
    with pytest.raises(SystemExit, match=r"cp .*checkpoint_2_10\.pt .*checkpoint_last\.pt"):
        build(corpus)


@pytest.fixture
def checkpoint_of() -> Callable[..., Path]:
    """A checkpoint as it would be after the first update of a training on this corpus."""

    def make(corpus) -> Path:
        cfg = {"data": str(corpus.folder), "seed": 1, "train_subset": "train", "num_units": 20}
        cfg |= {"save_dir": str(corpus.folder / "run"), "restore_file": "checkpoint_last.pt"}
        task = EchoStreamTask.setup_task(EchoStreamTaskConfig(**cfg))
        options = Namespace(**vars(EchoStreamConfig(**SIZES)) | {"_name": "echostream_tiny"})
        (corpus.folder / "run").mkdir()
        content = {"model": task.build_model(options).state_dict(), "task_state": task.state_dict()}
        torch.save(content, corpus.folder / "run" / "checkpoint_last.pt")
        return corpus.folder / "run" / "checkpoint_last.pt"

    return make
