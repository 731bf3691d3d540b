"""Source features: audio files to log-mel frames, by the front end that the stream uses.

The file formats are those of fairseq's manifests (audio, ``.npy`` features, or a slice of an uncompressed
zip). Reading is our own because fairseq's reader needs ``torchaudio.sox_effects``, which torchaudio no
longer has.
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
    """An utterance whose features can't be had; the message names its file."""


class FeatureReader:
    """Reads the source side of an utterance as log-mel frames with the transforms of its split applied.

    Log-mel features are kept in memory until ``cache_bytes`` are used, so that a small training set is
    analysed once; normalisation and masks come after the cache and are drawn anew each time.
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
            FeatureError: the audio is damaged, cut short or shorter than one frame, its features are not 80 wide, or
                something in them is NaN or infinite.
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
