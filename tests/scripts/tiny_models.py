"""A HuBERT of the published shape in small, saved as fairseq saves it, and speech-like sound, for tests of recipes."""

from __future__ import annotations

import argparse
import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from fairseq.data.dictionary import Dictionary
from fairseq.models.hubert.hubert import HubertConfig, HubertModel
from fairseq.tasks.hubert_pretraining import HubertPretrainingConfig
from omegaconf import OmegaConf

WIDTH = 32


def save_hubert(
    path: Path, seed: int = 0, layer_norm_first: bool = False, normalize: bool = False, old: bool = False
) -> HubertModel:
    """Write a checkpoint with what a published one holds besides tensors: options and label dictionaries.

    With `old` the options are objects, as early versions of fairseq saved them.
    """
    logging.getLogger("fairseq").setLevel(logging.WARNING)
    torch.manual_seed(seed)
    dictionary = Dictionary()
    for label in range(10):
        dictionary.add_symbol(str(label))
    task = HubertPretrainingConfig(data="/not/here", labels=["km"], label_rate=50.0, normalize=normalize)
    config = HubertConfig(
        label_rate=50.0,
        conv_feature_layers=f"[({WIDTH},10,5)] + [({WIDTH},3,2)] * 4 + [({WIDTH},2,2)] * 2",
        encoder_layers=3,
        encoder_embed_dim=WIDTH,
        encoder_ffn_embed_dim=2 * WIDTH,
        encoder_attention_heads=4,
        final_dim=16,
        layer_norm_first=layer_norm_first,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model = HubertModel(config, task, [dictionary]).eval()
    options = {
        "task": {**OmegaConf.to_container(OmegaConf.structured(task)), "_name": "hubert_pretraining"},
        "model": {**OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True), "_name": "hubert"},
    }
    options["model"]["label_rate"] = 50.0
    state = {
        "args": argparse.Namespace(arch="hubert") if old else None,
        "cfg": OmegaConf.create(options) if old else options,
        "model": model.state_dict(),
        "criterion": None,
        "optimizer_history": [{"criterion_name": "HubertCriterion", "optimizer_name": "FairseqAdam", "num_updates": 1}],
        "task_state": {"dictionaries": [dictionary]},
        "extra_state": {"train_iterator": {"epoch": 1}, "val_loss": None},
    }
    torch.save(state, path)
    return model


def speech_like(seconds: float, sample_rate: int, seed: int) -> np.ndarray:
    """Voiced syllables of changing pitch and colour over a little noise, float32 in [-1, 1]."""
    generator = np.random.default_rng(seed)
    time_s = np.arange(round(seconds * sample_rate)) / sample_rate
    pitch = 120 + 30 * np.sin(2 * np.pi * generator.uniform(0.3, 1.0) * time_s + generator.uniform(0, 6))
    phase = 2 * np.pi * np.cumsum(pitch) / sample_rate
    colour = 1 + 4 * np.abs(np.sin(2 * np.pi * generator.uniform(1.0, 3.0) * time_s))
    voice = sum(np.sin(k * phase) * np.exp(-k / colour) for k in range(1, 12))
    syllables = np.clip(np.sin(2 * np.pi * generator.uniform(2.0, 4.0) * time_s), 0, None)
    sound = voice * syllables + 0.02 * generator.normal(size=len(time_s))
    return (0.5 * sound / np.abs(sound).max()).astype(np.float32)
