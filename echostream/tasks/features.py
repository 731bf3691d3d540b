"""Source features: audio files to log-mel frames, with the same front end as in streaming.

The file formats are those of fairseq's manifests: audio, ``.npy`` features, or a slice of an uncompressed zip.
fairseq's own reader can't be used: it needs ``torchaudio.sox_effects``, which torchaudio has removed, and it reads
whatever there is, however long.
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import torch
import torchaudio
from fairseq.data.audio.feature_transforms import CompositeAudioFeatureTransform
from torch import Tensor

from echostream.audio.downmix import mix_down
from echostream.audio.input import duration_s, read_audio
from echostream.constants import SAMPLE_RATE
from echostream.models.front_ends import find_front_end
from echostream.tasks.data_config import SpeechDataConfig

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer as Buffer

FRAMES_PER_S = 100
STORED_FRONT_END = "fbank"  # whose features fairseq's manifests hold
# What a length may differ by from src_n_frames, which other tools count or estimate in other ways.
TOLERATED_SHARE, TOLERATED_S = 0.2, 0.5
SHORTEST_S = 0.025  # a frame's window


class FeatureError(ValueError):
    """The features of an utterance can't be read; the message names the file."""


class LengthMismatchError(FeatureError):
    """A recording is much longer or shorter than its manifest says; the message gives both lengths."""


class FeatureReader:
    """Reads the source speech of an utterance as log-mel frames and applies the transforms of the split.

    Log-mel features are cached in memory up to ``cache_bytes``, so that those of a small training set are computed
    once. Normalisation and random masks are applied after the cache, in every epoch.
    """

    def __init__(
        self, config: SpeechDataConfig, split: str, is_train: bool, cache_bytes: int = 0, front_end: str = "fbank"
    ):
        self.transforms = CompositeAudioFeatureTransform.from_config_dict(config.transform_options(split, is_train))
        self.front_end = front_end
        self.num_features = find_front_end(front_end).num_features
        self.features = find_front_end(front_end).features()
        self.free_bytes = cache_bytes
        self.cache: dict[str, np.ndarray] = {}

    def read(self, audio: str, n_frames: int | None = None) -> Tensor:
        """Features ``(T, 80)`` float32 at 100 Hz.

        Args:
            audio: a file name or ``archive.zip:offset:length``.
            n_frames: frames of 10 ms that the manifest says; None: unknown.

        Raises:
            LengthMismatchError: the audio's header says another length; nothing of it has been decoded.
            FeatureError: the audio is damaged, truncated or shorter than one frame, or its features are not of width
                80 or not finite.
        """
        features = self.cache.get(audio)
        if features is None:
            features = self._analyse(audio, n_frames)
            if features.nbytes <= self.free_bytes:
                self.cache[audio] = features
                self.free_bytes -= features.nbytes
        if self.transforms is not None:
            features = self.transforms(features)
        return torch.from_numpy(np.array(features, dtype=np.float32))

    def _analyse(self, audio: str, n_frames: int | None) -> np.ndarray:
        try:
            features = self._load(audio, n_frames)
        except FeatureError:
            raise
        except (OSError, ValueError, RuntimeError) as error:
            raise FeatureError(f"{audio}: can't be read as audio or features ({error})") from error
        if features.ndim != 2 or features.shape[1] != self.num_features or len(features) == 0:
            raise FeatureError(
                f"{audio}: features of shape {features.shape}, expected (frames > 0, {self.num_features})"
            )
        if not np.isfinite(features).all():
            raise FeatureError(f"{audio}: features that are NaN or infinite: make them again")
        return features

    def samples(self, audio: str) -> Tensor:
        """The waveform of a recording, float32 ``(n,)`` at 16 kHz, of a file name or ``archive.zip:offset:length``.

        Raises:
            FeatureError: it can't be read, or has no samples.
        """
        archive, *place = audio.rsplit(":", 2)
        try:
            if len(place) < 2 or not archive.endswith(".zip"):
                waveform = _waveform(audio, audio)
            else:
                with io.BufferedReader(_Slice(archive, *map(int, place))) as file:
                    waveform = _waveform(file, audio)
        except (OSError, ValueError, RuntimeError) as error:
            raise FeatureError(f"{audio}: can't be read as audio ({error})") from error
        if not len(waveform):
            raise FeatureError(f"{audio}: no samples")
        return waveform

    def of_samples(self, waveform: Tensor) -> np.ndarray:
        """Features ``(T, 80)`` of a waveform ``(n,)`` at 16 kHz, before normalisation and masks."""
        with torch.no_grad():
            return self.features.log_mel(waveform).numpy()

    def _load(self, audio: str, n_frames: int | None) -> np.ndarray:
        archive, *place = audio.rsplit(":", 2)
        if len(place) < 2 or not archive.endswith(".zip"):
            if not audio.endswith(".npy"):
                return self._log_mel(audio, audio, n_frames)
            file: BinaryIO = Path(audio).open("rb")  # noqa: SIM115  # closed below
        else:
            file = io.BufferedReader(_Slice(archive, *map(int, place)))
        with file:
            if file.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX:
                if self.front_end != STORED_FRONT_END:
                    raise FeatureError(
                        f"{audio}: stored features are those of the front end {STORED_FRONT_END}; the model's, "
                        f"{self.front_end}, needs audio (wav, flac, ogg)"
                    )
                _check_length(audio, _stored_frames(file) / FRAMES_PER_S, n_frames)
            elif not audio.endswith(".npy"):
                file.seek(0)
                return self._log_mel(file, audio, n_frames)
            file.seek(0)
            return np.load(file, allow_pickle=False)

    def _log_mel(self, file: str | BinaryIO, name: str, n_frames: int | None) -> np.ndarray:
        if n_frames is not None:
            _check_length(name, duration_s(file, name), n_frames)
            if not isinstance(file, str):
                file.seek(0)
        return self.of_samples(_waveform(file, name))


def _waveform(file: str | BinaryIO, name: str) -> Tensor:
    samples, rate = read_audio(file, name)
    waveform = torch.from_numpy(mix_down(samples, rate).copy())
    return waveform if rate == SAMPLE_RATE else torchaudio.functional.resample(waveform, rate, SAMPLE_RATE)


class _Slice(io.RawIOBase):
    """A part of a file as a file of its own, at any offset; nothing is read before it is asked for."""

    def __init__(self, path: str, offset: int, length: int) -> None:
        self._file = Path(path).open("rb")  # noqa: SIM115  # closed with this one
        self._offset, self._length, self._position = offset, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence]
        return self._position

    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer).cast("B")
        self._file.seek(self._offset + self._position)
        count = self._file.readinto(view[: max(0, self._length - self._position)])
        self._position += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def _stored_frames(file: BinaryIO) -> float:
    """Frames that the header of an ``.npy`` file says, of which the magic string has been read; NaN if unknown."""
    file.seek(0)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(np.lib.format.read_magic(file))
    shape = read_header(file)[0] if read_header else ()
    return shape[0] if shape else math.nan


def _check_length(audio: str, seconds: float, n_frames: int | None) -> None:
    """Compare a recording's length with its manifest; an unknown one (NaN) passes.

    Raises:
        LengthMismatchError: they differ by more than the edges of frames and resampling explain.
    """
    if n_frames is None or seconds < SHORTEST_S:  # too short for a frame, which is an error of its own
        return
    stated_s = n_frames / FRAMES_PER_S
    if abs(seconds - stated_s) > TOLERATED_SHARE * stated_s + TOLERATED_S:
        raise LengthMismatchError(
            f"the manifest says {stated_s:.2f} s (src_n_frames {n_frames}), but {audio} has {seconds:.2f} s"
        )
