"""Training data of a unit vocoder: audio and its frame-level units, cut into random pieces."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import numpy as np
import soundfile as sf
import torch
from torch import Tensor

from echostream.vocoders.interface import UnitVocoder, VocoderError, deduplicate, remaining_frames

COLUMNS = ["id", "audio", "units"]
# Unit extractors differ by a frame or two in how they treat the edges; more means that the files do not match.
TOLERANCE_FRAMES = 5


class UnitCorpus:
    """All utterances end to end, so that pieces can be cut anywhere and short utterances need no padding.

    Args:
        table: TSV with the header ``id``, ``audio``, ``units``; units are space-separated, one a frame, with repeats.
        audio_root: folder that the paths in ``audio`` are relative to.
        vocoder: gives sample rate, hop and number of units.

    Attributes:
        audio: int16 ``(F * hop,)``.
        frames: int64 ``(F,)``, units with repeats.
        remaining: int64 ``(F,)``, frames that each unit goes on for.
        units, durations: int64 ``(T,)``, the same without repeats.
        digest: checksum of sound and units.

    Raises:
        VocoderError: naming the line or file that does not fit.
    """

    def __init__(self, table: Path, audio_root: Path, vocoder: UnitVocoder) -> None:
        audio, frames, units, durations = [], [], [], []
        for row in read_table(table):
            unit_frames = parse_units(row, vocoder.num_units)
            wave = read_audio(audio_root / row["audio"], vocoder.sample_rate)
            count = min(len(unit_frames), len(wave) // vocoder.hop_samples)
            if max(len(unit_frames), len(wave) // vocoder.hop_samples) - count > TOLERANCE_FRAMES:
                raise VocoderError(
                    f"utterance {row['id']}: {len(unit_frames)} units do not fit {len(wave)} samples of "
                    f"{row['audio']}; one unit stands for {vocoder.hop_samples} samples"
                )
            audio.append(wave[: count * vocoder.hop_samples])
            frames.append(unit_frames[:count])
            unit, duration = deduplicate(unit_frames[:count])
            units.append(unit)
            durations.append(duration)
        if not sum(len(f) for f in frames):
            raise VocoderError(f"{table} lists no audio to train on")
        self.hop_samples = vocoder.hop_samples
        self.audio = torch.from_numpy(np.concatenate(audio))
        self.frames, self.units, self.durations = torch.cat(frames), torch.cat(units), torch.cat(durations)
        self.remaining = remaining_frames(self.durations)
        self.seconds = len(self.audio) / vocoder.sample_rate
        checksum = hashlib.blake2b(self.audio.numpy(), digest_size=16)
        checksum.update(self.frames.numpy())
        self.digest = checksum.hexdigest()

    def pieces(self, batch_size: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Random pieces: frames and remaining ``(B, length)``, waveforms float32 ``(B, length * hop)``."""
        start = _starts(len(self.frames), batch_size, length, generator)
        index = _windows(start, min(length, len(self.frames)))
        samples = _windows(start * self.hop_samples, index.size(1) * self.hop_samples)
        return self.frames[index], self.remaining[index], self.audio[samples].float() / 32768

    def unit_runs(self, batch_size: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Random runs of units and their durations, both ``(B, length)``."""
        start = _starts(len(self.units), batch_size, length, generator)
        index = _windows(start, min(length, len(self.units)))
        return self.units[index], self.durations[index]


def _starts(total: int, batch_size: int, length: int, generator: torch.Generator) -> Tensor:
    return torch.randint(max(total - length, 0) + 1, (batch_size,), generator=generator)


def _windows(start: Tensor, length: int) -> Tensor:
    return start[:, None] + torch.arange(length)


def read_table(table: Path) -> list[dict[str, str]]:
    """Rows with an id, a path and units.

    Raises:
        VocoderError: naming file and line.
    """
    try:
        with table.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    except (OSError, UnicodeDecodeError) as error:
        raise VocoderError(f"cannot read the units {table}: {error}") from error
    for number, row in enumerate(rows, start=2):
        if any(row.get(column) is None for column in COLUMNS):
            raise VocoderError(f"{table}, line {number}: expected the columns {', '.join(COLUMNS)}")
    return rows


def parse_units(row: dict[str, str], num_units: int) -> Tensor:
    """Units ``(F,)`` of a row; a :class:`VocoderError` for what is no unit of the vocoder's."""
    try:
        units = torch.tensor([int(unit) for unit in row["units"].split()], dtype=torch.long)
    except ValueError as error:
        raise VocoderError(f"utterance {row['id']}: units must be whole numbers: {error}") from error
    if len(units) and not 0 <= int(units.min()) <= int(units.max()) < num_units:
        raise VocoderError(
            f"utterance {row['id']} has units {int(units.min())} to {int(units.max())}, "
            f"but the config says num_embeddings {num_units}"
        )
    return units


def read_audio(path: Path, sample_rate: int) -> np.ndarray:
    """Samples, int16 ``(n,)``; a :class:`VocoderError` for a file that cannot be read or has another rate."""
    try:
        wave, rate = sf.read(path, dtype="int16", always_2d=True)
    except (OSError, sf.LibsndfileError) as error:
        raise VocoderError(f"cannot read the audio {path}: {error}") from error
    if rate != sample_rate:
        raise VocoderError(f"{path} is sampled at {rate} Hz; the vocoder's config wants {sample_rate}")
    return wave[:, 0]
