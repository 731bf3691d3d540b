"""Recordings, a model and a corpus for tests that damage them."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from memory import little_memory  # noqa: F401  # of every test here
from spoilt import NUM_UNITS, RATE, SIZES, TESTS, VOCODER, load_by_path

from echostream.checkpoints.vocoder_files import save_vocoder
from echostream.cli import main
from echostream.models import EchoStreamConfig, EchoStreamModel
from echostream.streaming import StreamingTranslator
from echostream.vocoders.registry import build_vocoder

corpus = load_by_path("tasks_conftest", TESTS / "tasks" / "conftest.py").corpus  # the fixture of the tests of training


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def content() -> dict[str, Any]:
    """Content of a checkpoint; it must be copied before it is changed."""
    symbols = ["<s>", "<pad>", "</s>", "<unk>"] + [f"{'▁' if index % 2 else ''}w{index}" for index in range(4, 20)]
    cfg = EchoStreamConfig(**SIZES)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = EchoStreamModel(cfg, len(symbols), len(symbols), NUM_UNITS)
    return {
        "cfg": {"model": {**dataclasses.asdict(cfg), "_name": "echostream_tiny"}},
        "model": model.state_dict(),
        "task_state": {"source_symbols": symbols, "target_symbols": symbols, "num_units": NUM_UNITS},
    }


@pytest.fixture(scope="session")
def model(content, tmp_path_factory) -> Path:
    """A checkpoint with its vocoder in the same folder."""
    folder = tmp_path_factory.mktemp("model")
    torch.save(content, folder / "checkpoint.pt")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        save_vocoder(build_vocoder(VOCODER), folder / "vocoder")
    assert StreamingTranslator.from_checkpoint(folder / "checkpoint.pt").vocoder is not None
    return folder / "checkpoint.pt"


@pytest.fixture
def changed(content, tmp_path) -> Callable[[Callable[[dict], Any]], Path]:
    """Write a checkpoint that a function has changed, or the object that the function returns."""

    def write(change: Callable[[dict], Any]) -> Path:
        copied = {name: dict(part) for name, part in content.items()}
        copied["cfg"]["model"] = dict(copied["cfg"]["model"])
        other = change(copied)
        torch.save(copied if other is None else other, tmp_path / "checkpoint.pt")
        return tmp_path / "checkpoint.pt"

    return write


@pytest.fixture(scope="session")
def recordings(tmp_path_factory) -> dict[str, Path]:
    """A file for each row of ``cases.RECORDINGS``, a valid recording, and a long one."""
    folder = tmp_path_factory.mktemp("recordings")
    noise = np.random.default_rng(0).normal(0, 0.1, 5 * RATE).astype(np.float32)
    short = noise[:5600]
    spoilt = {value: np.where(np.arange(len(short)) == 4000, value, short) for value in (np.nan, -np.inf, 20_000.0)}
    waves = {
        "good": (short, RATE),
        "other": (short[::-1], RATE),
        "long": (noise, RATE),
        "a header alone": (short[:0], RATE),
        "cut short (WAV)": (noise[:RATE], RATE),
        "NaN": (spoilt[np.nan], RATE),
        "infinity": (spoilt[-np.inf], RATE),
        "integers as floats": (spoilt[20_000.0], RATE),
        "clipped": (np.sign(short), RATE),
        "silent": (0 * short, RATE),
        "1 sample": (short[:1], RATE),
        "8 kHz": (short, 8_000),
        "44.1 kHz": (np.repeat(short, 3), 44_100),
        "48 kHz": (np.repeat(short, 3), 48_000),
        "stereo": (np.stack([short] * 2, axis=1), RATE),
        "6 channels": (np.stack([short] * 6, axis=1), RATE),
    }
    paths = {}
    for number, (name, (wave, rate)) in enumerate(waves.items()):
        paths[name] = folder / f"{number}.wav"
        soundfile.write(paths[name], wave, rate, subtype="FLOAT")
    paths["cut short (WAV)"].write_bytes(paths["cut short (WAV)"].read_bytes()[: 4 * RATE // 3])
    paths["cut short (FLAC)"] = folder / "cut.flac"
    soundfile.write(paths["cut short (FLAC)"], noise[:RATE], RATE)
    paths["cut short (FLAC)"].write_bytes(paths["cut short (FLAC)"].read_bytes()[:15_000])
    paths["missing"], paths["a folder"] = folder / "nowhere.wav", folder / "folder.wav"
    paths["a folder"].mkdir()
    paths["empty (0 bytes)"], paths["text, not audio"] = folder / "empty.wav", folder / "text.wav"
    paths["empty (0 bytes)"].touch()
    paths["text, not audio"].write_text("no sound in here " * 99)
    return paths


@pytest.fixture
def echostream(capsys) -> Callable[..., tuple[int, list[str]]]:
    """Run the command in this process; returns its status and its standard error."""

    def run(*arguments: object) -> tuple[int, list[str]]:
        capsys.readouterr()
        try:
            status = main([*map(str, arguments)])
        except SystemExit as ended:
            status = ended.code
        return status, capsys.readouterr().err.splitlines()

    return run


@pytest.fixture
def simuleval(model, tmp_path, monkeypatch) -> Callable[..., int | str]:
    """Evaluate recordings in this process with an agent file; returns 0, or the value of SystemExit."""
    from simuleval import cli
    from simuleval.utils import agent as simulevals_agents

    import echostream.evaluation  # noqa: F401  # registers the metrics

    def run(sources: list[Path], output: Path, *options: str, task: str = "speech_to_text.s2tt") -> int | str:
        (tmp_path / "wavs").write_text("".join(f"{path}\n" for path in sources))
        (tmp_path / "text").write_text("one two\n" * len(sources))
        agent = TESTS.parent / "agent" / f"{task}.echostream.agent.py"
        lists = ["--source", str(tmp_path / "wavs"), "--target", str(tmp_path / "text"), "--output", str(output)]
        asked = ["--model-path", str(model), "--policy", "fixed-rate", "--source-segment-size", "320"]
        scores = ["--quality-metrics", "ECHO_BLEU", "--latency-metrics", "ECHO_ATD"]
        simulevals_agents.EVALUATION_SYSTEM_LIST.clear()
        arguments = ["simuleval", "--agent", str(agent), *asked, *lists, *scores, "--no-progress-bar", *options]
        monkeypatch.setattr(sys, "argv", arguments)
        try:
            cli.main()
        except SystemExit as ended:
            return ended.code
        finally:
            simulevals_agents.EVALUATION_SYSTEM_LIST.clear()
        return 0

    return run


@pytest.fixture
def train(monkeypatch, capsys) -> Callable[..., int | str]:
    """Run fairseq-train in this process; returns 0, or the value of SystemExit."""
    from fairseq_cli.train import cli_main

    def run(corpus: Any, save_dir: Path, updates: int, *options: str) -> int | str:
        sizes = {**SIZES, "dropout": 0.0}
        arguments = ["fairseq-train", str(corpus.folder), "--task", "echostream", "--criterion", "echostream_multitask"]
        arguments += ["--arch", "echostream_tiny", "--cpu", "--optimizer", "adam", "--max-tokens", "300"]
        arguments += ["--num-units", "20", "--num-workers", "0", "--required-batch-size-multiple", "1"]
        arguments += ["--save-dir", str(save_dir), "--max-update", str(updates), "--disable-validation"]
        arguments += ["--save-interval-updates", "1", "--no-epoch-checkpoints", "--log-format", "simple"]
        arguments += [word for name, value in sizes.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        monkeypatch.setattr(sys, "argv", [*arguments, *options])
        try:
            cli_main()
        except SystemExit as ended:
            return ended.code
        return 0

    return run
