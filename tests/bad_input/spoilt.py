"""Helpers of the tests of invalid input."""

from __future__ import annotations

import importlib.util
import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from echostream.models import ARCHITECTURES

TESTS = Path(__file__).resolve().parents[1]
RATE = 16_000
SIZES = ARCHITECTURES["echostream_tiny"] | {
    "encoder_layers": 1, "encoder_dim": 32, "encoder_ffn_dim": 32, "subsampler_hidden_dim": 32, "mt_layers": 1,
    "mt_dim": 32, "mt_ffn_dim": 32, "unit_layers": 1, "unit_dim": 32, "unit_ffn_dim": 32,
}  # fmt: skip
NUM_UNITS = 100
VOCODER = {
    "type": "istft", "num_embeddings": NUM_UNITS, "channels": 16, "hidden_channels": 32, "layers": 1, "kernel_size": 5,
    "embedding_dim": 16, "n_fft": 640, "spectra_per_frame": 2, "sampling_rate": RATE, "code_hop_size": 320,
    "dur_prediction_weight": 1.0,
    "dur_predictor_params": {
        "encoder_embed_dim": 16, "var_pred_hidden_dim": 16, "var_pred_kernel_size": 3, "var_pred_dropout": 0.5,
    },
}  # fmt: skip


def load_by_path(name: str, path: Path) -> ModuleType:
    """A module that belongs to no installed package."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look up their module there
    spec.loader.exec_module(module)
    return module


class Evil:
    """An object that creates a folder when an unsafe loader unpickles it."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple:
        return os.system, (f"mkdir '{self.place}'",)


@contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    """Limit the size of files; for a writer this equals a full disk, apart from the error code (EFBIG)."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
