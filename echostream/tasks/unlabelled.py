"""Speech without transcripts, cut to pieces of one length, for the distillation of the encoder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from echostream.constants import SAMPLE_RATE
from echostream.tasks.features import FeatureReader
from echostream.tasks.manifests import AudioFiles, ManifestError, read_rows
from echostream.tasks.segments import number_of

COLUMNS = ("id", "audio")


class UnlabelledSpeech:
    """Recordings of a table, of which pieces are made: one after another until a piece is full.

    A piece is a function of the key it is drawn with, so that a resumed run draws those of an uninterrupted one. All
    pieces have the same length and no padding, as the teacher's position means need them.

    Args:
        path: TSV table with the columns ``id`` and ``audio`` (a file or ``archive.zip:offset:length``), relative to the
            table's folder; other columns are ignored.
        reader: computes the model's features.
        piece_s: length of a piece in seconds.

    Raises:
        ManifestError: the table names what there is not, or pieces of no length.
    """

    def __init__(self, path: Path, reader: FeatureReader, piece_s: float) -> None:
        if not 0 < piece_s <= 30:
            raise ManifestError(f"--unlabelled-piece-s is {piece_s:g}; Whisper hears more than 0 and at most 30 s")
        files = AudioFiles(path.parent)
        self.audio = [files.name(path, number, row["audio"]) for number, row in read_rows(path, COLUMNS)]
        self.reader = reader
        self.num_samples = round(piece_s * SAMPLE_RATE)

    def pieces(self, count: int, *key: object) -> Tensor:
        """``count`` pieces: features ``(count, T, 80)``.

        Args:
            count: how many.
            key: what they depend on.

        Raises:
            FeatureError: a recording can't be read.
        """
        generator = np.random.default_rng(number_of(*key))
        waveforms = [self._piece(generator) for _ in range(count)]
        return torch.stack([torch.from_numpy(self.reader.of_samples(waveform)) for waveform in waveforms])

    def batches(self, count: int, size: int, *key: object) -> Iterator[Tensor]:
        """``count`` batches of ``size`` pieces each."""
        return (self.pieces(size, *key, number) for number in range(count))

    def _piece(self, generator: np.random.Generator) -> Tensor:
        parts: list[Tensor] = []
        missing = self.num_samples
        while missing > 0:
            samples = self.reader.samples(self.audio[generator.integers(len(self.audio))])
            # A long recording is entered anywhere, so that its middle is heard as often as its start.
            start = int(generator.integers(max(0, len(samples) - missing) + 1))
            parts.append(samples[start : start + missing])
            missing -= len(parts[-1])
        return torch.cat(parts)
