"""Weights to start a new run from: what ``--init-encoder-from`` and ``--init-decoders-from`` do, and when."""

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


def start_from_files(model: nn.Module, cfg: EchoStreamTaskConfig, task_state: Mapping[str, Any]) -> None:
    """Copy the weights that the options name into ``model`` and log what was copied, unless the run is resumed.

    Raises:
        SystemExit: with one line about a file that can't be used.
    """
    named = {"encoder": cfg.init_encoder_from, "decoders": cfg.init_decoders_from}
    requests = {part: path for part, path in named.items() if path}
    if not requests:
        return
    # fairseq's trainer resumes from this file, if it is there, and replaces every weight
    resumed = Path(cfg.restore_file)
    if cfg.restore_file == "checkpoint_last.pt":  # fairseq's default, and only that, is in the save folder
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
