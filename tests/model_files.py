"""Save the parts of a translator as the files that training writes."""

import dataclasses
from pathlib import Path

import torch

from echostream.checkpoints.vocoder_files import save_vocoder
from echostream.streaming import StreamingTranslator


def save_model(translator: StreamingTranslator, folder: Path, settings: str = "") -> Path:
    """``folder`` with checkpoint.pt, voice/ and model.yaml, which ends in ``settings``."""
    save_vocoder(translator.vocoder, folder / "voice")
    symbols = {"source_symbols": translator.detector.symbols, "target_symbols": translator.writer.symbols}
    content = {
        "cfg": {"model": {**dataclasses.asdict(translator.model.cfg), "_name": "echostream_tiny"}},
        "model": translator.model.state_dict(),
        "task_state": {**symbols, "num_units": translator.model.unit_decoder.num_units},
    }
    torch.save(content, folder / "checkpoint.pt")
    (folder / "model.yaml").write_text(f"checkpoint: checkpoint.pt\nvocoder: voice\n{settings}", encoding="utf-8")
    return folder
