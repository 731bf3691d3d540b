"""Speech without transcripts, cut to pieces of one length, for the distillation of the encoder.

Of a share of the pieces the student hears what a telephone leaves of them, while the teacher hears them whole: so the
student learns to understand what the teacher itself would not. Played faster or slower, a voice becomes another one for
both.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor
from torchaudio.functional import highpass_biquad, resample

from echostream.constants import SAMPLE_RATE
from echostream.tasks.features import FeatureReader
from echostream.tasks.manifests import AudioFiles, ManifestError, read_rows
from echostream.tasks.segments import number_of

COLUMN = "audio"
TELEPHONE_HZ, LOWEST_HZ = 8000, 300  # sample rate of a telephone, and the lowest tone that it carries
SPEED_STEPS = 100  # to which speeds are rounded: fractions with small terms are cheap to resample by
CODECS = ("ULAW", "GSM610")


class UnlabelledSpeech:
    """Recordings of a table, of which pieces are made: one after another until a piece is full.

    A piece is a function of the key it is drawn with, so that a resumed run draws those of an uninterrupted one. All
    pieces have the same length and no padding, as the teacher's position means need them.

    Args:
        path: TSV table with the columns ``id`` and ``audio`` (a file or ``archive.zip:offset:length``), relative to the
            table's folder; other columns are ignored.
        reader: computes the model's features.
        piece_s: length of a piece in seconds.
        telephone_share: of the pieces that the student hears over a telephone.
        speeds: one of them, from 0.5 to 2, is drawn for each recording, which is played so much faster, and higher.
        column: of the table that names the recordings.
        root: what they are relative to; None: the table's folder.

    Raises:
        ManifestError: the table names what there is not, pieces of no length, or a share that is none.
    """

    def __init__(
        self,
        path: Path,
        reader: FeatureReader,
        piece_s: float,
        telephone_share: float = 0.0,
        speeds: Sequence[float] = (1.0,),
        column: str = COLUMN,
        root: Path | None = None,
    ) -> None:
        if not 0 < piece_s <= 30:
            raise ManifestError(f"--unlabelled-piece-s is {piece_s:g}; Whisper hears more than 0 and at most 30 s")
        if not 0 <= telephone_share <= 1:
            raise ManifestError(f"--unlabelled-telephone-share is {telephone_share:g}; it must be from 0 to 1")
        files = AudioFiles(root or path.parent)
        self.audio = [files.name(path, number, row[column]) for number, row in read_rows(path, ("id", column))]
        self.reader = reader
        self.num_samples = round(piece_s * SAMPLE_RATE)
        self.telephone_share = telephone_share
        self.speeds = speeds

    def pieces(self, count: int, *key: object) -> tuple[Tensor, Tensor]:
        """``count`` pieces: features ``(count, T, 80)`` that the student hears, and those that the teacher hears.

        Args:
            count: how many.
            key: what they depend on.

        Raises:
            FeatureError: a recording can't be read.
        """
        generator = np.random.default_rng(number_of(*key))
        whole = [self._piece(generator) for _ in range(count)]
        heard = whole_features = self._features(whole)
        for row, waveform in enumerate(whole):
            if generator.random() < self.telephone_share:
                if heard is whole_features:
                    heard = whole_features.clone()
                codec = CODECS[generator.integers(len(CODECS))]
                heard[row] = self._features([over_telephone(waveform, codec)])[0]
        return heard, whole_features

    def batches(self, count: int, size: int, *key: object) -> Iterator[Tensor]:
        """``count`` batches of ``size`` pieces each, as the teacher hears them."""
        return (self.pieces(size, *key, number)[1] for number in range(count))

    def _features(self, waveforms: list[Tensor]) -> Tensor:
        return torch.stack([torch.from_numpy(self.reader.of_samples(waveform)) for waveform in waveforms])

    def _piece(self, generator: np.random.Generator) -> Tensor:
        parts: list[Tensor] = []
        missing = self.num_samples
        while missing > 0:
            samples = self.reader.samples(self.audio[generator.integers(len(self.audio))])
            if len(self.speeds) > 1:  # one speed takes no number from the generator, so that pieces are those of old
                samples = at_speed(samples, self.speeds[int(generator.integers(len(self.speeds)))])
            # A long recording is entered anywhere, so that its middle is heard as often as its start.
            start = int(generator.integers(max(0, len(samples) - missing) + 1))
            parts.append(samples[start : start + missing])
            missing -= len(parts[-1])
        return torch.cat(parts)


def parse_speeds(text: str) -> tuple[float, ...]:
    """Parse a list of speeds such as ``"0.9,1,1.1"``.

    Raises:
        ManifestError: ``text`` is not such a list, or a speed is not from 0.5 to 2.
    """
    try:
        speeds = tuple(float(part) for part in text.split(","))
    except ValueError:
        speeds = ()
    if not speeds or not all(0.5 <= speed <= 2 for speed in speeds):
        raise ManifestError(f"--unlabelled-speeds is {text!r}; it must be numbers from 0.5 to 2, as '0.9,1,1.1'")
    return speeds


def at_speed(waveform: Tensor, speed: float) -> Tensor:
    """A waveform ``(n,)`` played ``speed`` times as fast, and so as much higher: ``(n / speed,)``."""
    return resample(waveform, round(speed * SPEED_STEPS), SPEED_STEPS)


def over_telephone(waveform: Tensor, codec: str) -> Tensor:
    """What a telephone line leaves of a waveform ``(n,)`` @16 kHz: 300 to 4,000 Hz, coded as ``ULAW`` or ``GSM610``."""
    narrow = highpass_biquad(resample(waveform, SAMPLE_RATE, TELEPHONE_HZ), TELEPHONE_HZ, LOWEST_HZ)
    stream = io.BytesIO()
    soundfile.write(stream, narrow.clamp(-1, 1).numpy(), TELEPHONE_HZ, format="WAV", subtype=codec)
    stream.seek(0)
    coded, _ = soundfile.read(stream, dtype="float32")
    wide = resample(torch.from_numpy(coded), TELEPHONE_HZ, SAMPLE_RATE)
    # GSM codes blocks of 160 samples, the last one filled up.
    return torch.nn.functional.pad(wide[: len(waveform)], (0, max(0, len(waveform) - len(wide))))
