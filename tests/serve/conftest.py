"""One tiny random model for all tests of the server."""

import dataclasses
import subprocess
from collections.abc import Callable

import pytest
import torch
from memory import little_memory  # noqa: F401  # of every test here
from wire import NAME

from echostream.checkpoints.vocoder_files import save_vocoder
from echostream.serve.app import Server
from echostream.serve.limits import Limits
from echostream.serve.protocol import Settings
from echostream.streaming import StreamingTranslator
from echostream.streaming.word_level_translator import END
from echostream.vocoders.interface import UnitVocoder
from echostream.vocoders.registry import build_vocoder

VOCODER = {
    "type": "istft",
    "sampling_rate": 16000,
    "code_hop_size": 320,
    "num_embeddings": 100,
    "channels": 32,
    "hidden_channels": 64,
    "layers": 2,
    "kernel_size": 7,
    "n_fft": 640,
    "spectra_per_frame": 2,
    "dur_prediction_weight": 1.0,
    "dur_predictor_params": {
        "encoder_embed_dim": 32,
        "var_pred_hidden_dim": 32,
        "var_pred_kernel_size": 3,
        "var_pred_dropout": 0.2,
    },
}


def small_vocoder() -> UnitVocoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_vocoder(VOCODER).eval().requires_grad_(False)


@pytest.fixture(scope="session")
def translator() -> StreamingTranslator:
    """A translator with different output for different noises, which ends when the source ends."""
    torch.set_num_threads(1)  # so little work is slower with several threads
    random = StreamingTranslator.random(arch="echostream_tiny", seed=0)
    with torch.no_grad():
        for parameter in random.model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
    made = StreamingTranslator(
        random.model, random.detector.symbols, random.writer.symbols, small_vocoder(), task="s2tt"
    )
    made.writer.forbidden[END] = 1e4
    return made


@pytest.fixture
def make_server(translator) -> Callable[..., Server]:
    """Factory of servers with a fixed-rate policy and the given limits."""

    def make(max_batch: int = 32, segment_ms: int = 160, task: str = "s2st", **limits: float) -> Server:
        options = {"max_speed": 1e9, "max_messages_per_s": 1e6, "max_buffer_s": 60} | limits
        return Server(translator, Settings(segment_ms, "fixed-rate", task), Limits(**options), max_batch, "tiny")

    return make


@pytest.fixture(scope="session")
def model(tmp_path_factory, translator):
    """A checkpoint as training writes it, and a vocoder in the same folder."""
    folder = tmp_path_factory.mktemp("model")
    task = {
        "source_symbols": translator.detector.symbols,
        "target_symbols": translator.writer.symbols,
        "num_units": translator.vocoder.num_units,
    }
    options = {**dataclasses.asdict(translator.model.cfg), "_name": "echostream"}
    options = {name: getattr(value, "value", value) for name, value in options.items()}
    content = {"cfg": {"model": options}, "model": translator.model.state_dict(), "task_state": task}
    torch.save(content, folder / "checkpoint.pt")
    save_vocoder(translator.vocoder, folder / "vocoder")
    return folder / "checkpoint.pt"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A folder with cert.pem and key.pem, signed by itself."""
    folder = tmp_path_factory.mktemp("certificate")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={NAME}"]
    command += ["-addext", f"subjectAltName=DNS:{NAME}", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"]
    subprocess.run(command, check=True, capture_output=True)
    return folder
