"""The smallest model with every part of the real one, its weights a function of their names: the same everywhere.

torch's generator may draw other numbers in another version and NumPy promises none for its distributions either, so
the weights are made of the raw 64-bit output of Philox (Salmon et al. 2011), which NumPy keeps.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch
from torch import nn

from echostream.models import EchoStreamConfig, EchoStreamModel
from echostream.streaming import StreamingTranslator
from echostream.vocoders.interface import UnitVocoder
from echostream.vocoders.registry import build_vocoder

VOCABULARY, NUM_UNITS, SAMPLE_RATE = 60, 30, 16_000
# All settings are given explicitly, so that a changed default does not change this model.
MODEL = {
    "subsampler_hidden_dim": 16,
    "subsampler_kernel": 5,
    "encoder_dim": 16,
    "encoder_layers": 2,
    "encoder_heads": 2,
    "encoder_ffn_dim": 32,
    "encoder_conv_kernel": 5,
    "left_context_frames": 12,
    "memory_slots": 3,
    "memory_block_frames": 4,
    "right_context_frames": 1,
    "st_layers": 1,
    "st_window_frames": 16,
    "mt_dim": 16,
    "mt_layers": 1,
    "mt_heads": 2,
    "mt_ffn_dim": 32,
    "mt_window_tokens": 8,
    "mt_window_frames": 64,
    "unit_dim": 16,
    "unit_text_layers": 0,
    "unit_layers": 1,
    "unit_heads": 2,
    "unit_ffn_dim": 32,
    "unit_upsample": 5,
    "unit_frames_per_position": 2,
    "unit_window_tokens": 4,
    "dropout": 0.1,
}
DURATIONS = {
    "encoder_embed_dim": 16,
    "var_pred_hidden_dim": 16,
    "var_pred_kernel_size": 3,
    "var_pred_dropout": 0.5,
}
VOCODERS = {
    "code_hifigan": {
        "num_embeddings": NUM_UNITS,
        "embedding_dim": 16,
        "model_in_dim": 16,
        "upsample_rates": [5, 4, 4, 2, 2],
        "upsample_kernel_sizes": [11, 8, 8, 4, 4],
        "upsample_initial_channel": 32,
        "resblock": "1",
        "resblock_kernel_sizes": [3, 7],
        "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5]],
        "sampling_rate": SAMPLE_RATE,
        "code_hop_size": 320,
        "dur_prediction_weight": 1.0,
        "dur_predictor_params": DURATIONS,
    },
    "istft": {
        "type": "istft",
        "num_embeddings": NUM_UNITS,
        "channels": 16,
        "hidden_channels": 32,
        "layers": 2,
        "kernel_size": 5,
        "n_fft": 640,
        "spectra_per_frame": 2,
        "sampling_rate": SAMPLE_RATE,
        "code_hop_size": 320,
        "dur_prediction_weight": 1.0,
        "dur_predictor_params": DURATIONS,
    },
}


def uniform(name: str, size: int) -> np.ndarray:
    """float64 ``(size,)`` in [-1, 1), determined by the name on every machine."""
    raw = np.random.Philox(key=zlib.crc32(name.encode())).random_raw(size)
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1


@torch.no_grad()
def fill(module: nn.Module, gains: dict[str, float]) -> None:
    """Set all weights from the name and shape of their parameter; matrices are scaled by the first matching gain."""
    for name, parameter in module.named_parameters():
        values = torch.from_numpy(uniform(name, parameter.numel())).view(parameter.shape).float()
        if parameter.dim() > 1:
            gain = next(gain for part, gain in gains.items() if part in name)
            parameter.copy_(values * gain * (3 / parameter[0].numel()) ** 0.5)
        else:
            parameter.copy_(0.1 * values + (1.0 if name.endswith("weight") else 0.0))


def make_model(**options: int) -> EchoStreamModel:
    """The model, in inference mode, with ``options`` beside or in place of those of :data:`MODEL`."""
    model = EchoStreamModel(EchoStreamConfig(**MODEL | options), VOCABULARY, VOCABULARY, NUM_UNITS)
    fill(model, {"cross_attention": 5.0, "embedding": 0.5, "": 1.7})  # audio must matter more than the previous word
    model.fbank.set_cmvn(torch.full((80,), 20.0), torch.full((80,), 2.5))  # those of :func:`noise`
    return model.eval().requires_grad_(False)


def make_vocoder(kind: str) -> UnitVocoder:
    """One of :data:`VOCODERS`."""
    vocoder = build_vocoder(VOCODERS[kind])
    fill(vocoder, {"": 1.0})
    return vocoder.eval().requires_grad_(False)


def make_translator(
    vocoder: str = "code_hifigan", model: EchoStreamModel | None = None, **options
) -> StreamingTranslator:
    """A translator with different output for different audio; of another :func:`make_model` if one is given."""
    symbols = ["<s>", "<pad>", "</s>", "<unk>"]
    symbols += [f"{'▁' if index % 2 else ''}w{index}" for index in range(len(symbols), VOCABULARY)]
    return StreamingTranslator(model or make_model(), symbols, symbols, make_vocoder(vocoder), **options)


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise with changing loudness and spectrum, float32 ``(n,)`` @16 kHz, exact in 16-bit samples."""
    size = round(seconds * SAMPLE_RATE)
    time_s = np.arange(size) / SAMPLE_RATE
    white = uniform(f"noise {seed}", size + 1)
    colour = np.sin(2 * np.pi * (1.3 + 0.1 * seed) * time_s)
    wave = 0.2 * (white[1:] + colour * white[:-1]) * (1.1 + np.sin(2 * np.pi * 2.1 * time_s + seed))
    return ((wave * 32768).round().clip(-32768, 32767) / 32768).astype(np.float32)
