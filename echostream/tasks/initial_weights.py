"""Initial weights of a new run from ``--init-encoder-from``, ``--init-decoders-from`` and Whisper's files."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from echostream.checkpoints.errors import CheckpointError
from echostream.checkpoints.initialisation import PretrainedError, initialise, report
from echostream.checkpoints.whisper_files import read_whisper, whisper_encoder
from echostream.models.speech_encoder import EchoStreamSpeechEncoder
from echostream.tasks.config import EchoStreamTaskConfig
from echostream.tasks.manifests import exit_with_message

logger = logging.getLogger(__name__)


def load_initial_weights(model: nn.Module, cfg: EchoStreamTaskConfig, task_state: Mapping[str, Any]) -> None:
    """Copy weights from the files in the options into ``model``, and log which; no effect if the run is resumed.

    Raises:
        SystemExit: with a one-line message, if a file can't be used.
    """
    paths = {"encoder": cfg.init_encoder_from, "decoders": cfg.init_decoders_from}
    requests = {part: path for part, path in paths.items() if path}
    whisper = cfg.init_encoder_from_whisper
    if not requests and not whisper:
        return
    # If this file exists, fairseq's trainer resumes from it and replaces all weights.
    resumed = Path(cfg.restore_file)
    if cfg.restore_file == "checkpoint_last.pt":  # fairseq looks for its default in the save folder; others are paths
        resumed = Path(cfg.save_dir) / resumed
    if resumed.exists():
        logger.info(f"going on from {resumed}: the options --init-... are not used")
        return
    if whisper:
        with exit_with_message(CheckpointError, ValueError):
            if cfg.init_encoder_from:
                raise ValueError("--init-encoder-from and --init-encoder-from-whisper: the encoder starts from one")
            logger.info(take_whisper_encoder(model, whisper))
    if not requests:
        return
    with exit_with_message(PretrainedError):
        transfers, missing = initialise(model, requests, task_state)
    notes, warnings = report(transfers, missing)
    for note in notes:
        logger.info(note)
    for warning in warnings:
        logger.warning(warning)


def take_whisper_encoder(model: nn.Module, path: str) -> str:
    """Copy Whisper's encoder into that of ``model``; what was taken, in one line.

    Raises:
        CheckpointError: the file can't be used, or its sizes are not the encoder's.
    """
    encoder = model.get_submodule("encoder")
    assert isinstance(encoder, EchoStreamSpeechEncoder)
    layers = len(encoder.emformer.layers)
    weights = whisper_encoder(read_whisper(path), layers, path)
    own = encoder.state_dict()
    for name, tensor in weights.items():
        if name not in own or own[name].shape != tensor.shape:
            shape = tuple(own[name].shape) if name in own else "absent"
            raise CheckpointError(
                f"{path}: {name} has the shape {tuple(tensor.shape)}, in the model it is {shape}; choose "
                "--arch echostream_whisper_base, or one of its kind with these sizes"
            )
    left = sorted(set(own) - set(weights))
    encoder.load_state_dict(weights, strict=False)
    rest = f"; not in the file and left as they were: {', '.join(left)}" if left else ""
    return f"the encoder starts from Whisper's in {path}: {layers} layers, {len(weights)} tensors{rest}"
