"""What a translator without files is made of: random weights and made-up words, for benchmarks and tests."""

from __future__ import annotations

import torch

from echostream.constants import SAMPLE_RATE, UNIT_SAMPLES
from echostream.models.config import architecture_config
from echostream.models.echostream_model import EchoStreamModel
from echostream.text import WORD_MARK
from echostream.vocoders.interface import UnitVocoder
from echostream.vocoders.registry import build_vocoder


def random_parts(arch: str, seed: int) -> tuple[EchoStreamModel, list[str], UnitVocoder]:
    """Model, symbols of both dictionaries, and vocoder; the smallest architecture gets small ones of all."""
    small = arch == "echostream_tiny"
    vocab, num_units = (200, 100) if small else (6000, 1000)
    symbols = ["<s>", "<pad>", "</s>", "<unk>"]
    symbols += [f"{WORD_MARK if index % 2 else ''}w{index}" for index in range(4, vocab)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = EchoStreamModel(architecture_config(arch), vocab, vocab, num_units)
        vocoder = build_vocoder(
            {
                "num_embeddings": num_units,
                "embedding_dim": 32 if small else 128,
                "model_in_dim": 32 if small else 128,
                "upsample_rates": [5, 4, 4, 2, 2],
                "upsample_kernel_sizes": [11, 8, 8, 4, 4],
                "upsample_initial_channel": 32 if small else 512,
                "resblock": "1",
                "resblock_kernel_sizes": [3, 7, 11],
                "resblock_dilation_sizes": [[1, 3, 5]] * 3,
                "sampling_rate": SAMPLE_RATE,
                "code_hop_size": UNIT_SAMPLES,
                "dur_prediction_weight": 1.0,
                "dur_predictor_params": {
                    "encoder_embed_dim": 32 if small else 128,
                    "var_pred_hidden_dim": 32 if small else 128,
                    "var_pred_kernel_size": 3,
                    "var_pred_dropout": 0.5,
                },
            }
        )
    return model, symbols, vocoder
