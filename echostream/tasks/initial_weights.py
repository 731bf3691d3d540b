"""Initial weights of a new run from ``--init-encoder-from`` and ``--init-decoders-from``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from echostream.checkpoints.initialisation import PretrainedError, initialise, report
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
    if not requests:
        return
    # If this file exists, fairseq's trainer resumes from it and replaces all weights.
    resumed = Path(cfg.restore_file)
    if cfg.restore_file == "checkpoint_last.pt":  # fairseq looks for its default in the save folder; others are paths
        resumed = Path(cfg.save_dir) / resumed
    if resumed.exists():
        logger.info(f"going on from {resumed}: --init-encoder-from and --init-decoders-from are not used")
        return
    with exit_with_message(PretrainedError):
        transfers, missing = initialise(model, requests, task_state)
    notes, warnings = report(transfers, missing)
    for note in notes:
        logger.info(note)
    for warning in warnings:
        logger.warning(warning)
