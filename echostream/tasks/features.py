"""Source features: audio files to log-mel frames, with the same front end as in streaming.

The file formats are those of fairseq's manifests: audio, ``.npy`` features, or a slice of an uncompressed zip.
fairseq's own reader can't be used because it needs ``torchaudio.sox_effects``, which torchaudio has removed.
"""

from __future__ import annotations

import io
from typing import BinaryIO

import numpy as np
import torch
import torchaudio
from fairseq.data.audio.audio_utils import is_npy_data, read_from_stored_zip
from fairseq.data.audio.feature_transforms import CompositeAudioFeatureTransform
from torch import Tensor

from echostream.audio.input import read_audio
from echostream.constants import SAMPLE_RATE
from echostream.modules.fbank import NUM_MELS, OnlineFbank
from echostream.tasks.data_config import SpeechDataConfig


class FeatureError(ValueError):
    """The features of an utterance can't be read; the message names the file."""


class FeatureReader:
    """Reads the source speech of an utterance as log-mel frames and applies the transforms of the split.

    Log-mel features are cached in memory up to ``cache_bytes``, so that those of a small training set are computed
    once. Normalisation and random masks are applied after the cache, in every epoch.
    """

    def __init__(self, config: SpeechDataConfig, split: str, is_train: bool, cache_bytes: int = 0):
        self.transforms = CompositeAudioFeatureTransform.from_config_dict(config.transform_options(split, is_train))
        self.fbank = OnlineFbank()
        self.free_bytes = cache_bytes
        self.cache: dict[str, np.ndarray] = {}

    def read(self, audio: str) -> Tensor:
        """Features ``(T, 80)`` float32 at 100 Hz.

        Args:
            audio: a file name or ``archive.zip:offset:length``.

        Raises:
            FeatureError: the audio is damaged, truncated or shorter than one frame, or its features are not of width
                80 or not finite.
        """
        features = self.cache.get(audio)
        if features is None:
            features = self._analyse(audio)
            if features.nbytes <= self.free_bytes:
                self.cache[audio] = features
                self.free_bytes -= features.nbytes
        if self.transforms is not None:
            features = self.transforms(features)
        return torch.from_numpy(np.array(features, dtype=np.float32))

    def _analyse(self, audio: str) -> np.ndarray:
        try:
            features = self._load(audio)
        except (OSError, ValueError, RuntimeError) as error:
            raise FeatureError(f"{audio}: can't be read as audio or features ({error})") from error
        if features.ndim != 2 or features.shape[1] != NUM_MELS or len(features) == 0:
            raise FeatureError(f"{audio}: features of shape {features.shape}, expected (frames > 0, {NUM_MELS})")
        if not np.isfinite(features).all():
            raise FeatureError(f"{audio}: features that are NaN or infinite: make them again")
        return features

    def _load(self, audio: str) -> np.ndarray:
        if audio.endswith(".npy"):
            return np.load(audio, allow_pickle=False)
        archive, *place = audio.rsplit(":", 2)
        if len(place) < 2 or not archive.endswith(".zip"):
            return self._log_mel(audio)
        data = read_from_stored_zip(archive, int(place[0]), int(place[1]))
        if is_npy_data(data):
            return np.load(io.BytesIO(data), allow_pickle=False)
        return self._log_mel(io.BytesIO(data), audio)

    def _log_mel(self, file: str | BinaryIO, name: str | None = None) -> np.ndarray:
        samples, rate = read_audio(file, name)
        waveform = torch.from_numpy(samples.mean(axis=1))
        if rate != SAMPLE_RATE:
            waveform = torchaudio.functional.resample(waveform, rate, SAMPLE_RATE)
        with torch.no_grad():
            return self.fbank.log_mel(waveform).numpy()
