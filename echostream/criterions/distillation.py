"""Distillation of a speech encoder: a streaming student learns the frames of a teacher that hears everything.

The teacher is Whisper's encoder (Radford et al. 2022) over the whole piece of audio, without segments. Any audio will
do, in any language, transcribed or not. Three things make a squared error on hidden frames useful here:

- Frames are normalised first, each to mean 0 and variance 1, on both sides. A few per cent of Whisper's frames have
  norms 10 to 30 times the others', and a plain squared error sees little else.
- What the teacher's frames owe to their position alone, their mean over many pieces, is taken off the target: the
  student's positions begin anywhere.
- Only the upper two thirds of the layers are compared; what happens below is the student's own affair.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from echostream.checkpoints.whisper_files import read_whisper
from echostream.checkpoints.whisper_names import whisper_encoder
from echostream.models.config import architecture_config
from echostream.models.speech_encoder import EchoStreamSpeechEncoder
from echostream.modules.masks import valid_positions

LOWEST_LAYER_SHARE = 1 / 3
HEAD_DIM = 64  # of every size of Whisper
SMALLEST_VARIANCE = 1e-3


def normalised(frames: Tensor) -> Tensor:
    """Each frame with mean 0 and variance 1, in float32: ``(..., D)``."""
    return layer_norm(frames.float(), frames.shape[-1:])


def load_teacher(path: str | Path) -> EchoStreamSpeechEncoder:
    """Whisper's encoder from one of the files that :func:`read_whisper` reads, frozen.

    Raises:
        CheckpointError: the file can't be used; in one line.
    """
    tensors = whisper_encoder(read_whisper(path), None, str(path))
    cfg = architecture_config("echostream_whisper_base")
    cfg.encoder_layers = sum(name.endswith(".ffn_in.bias") for name in tensors)
    cfg.encoder_dim = tensors["subsampler.first.bias"].size(0)
    cfg.encoder_heads = max(1, cfg.encoder_dim // HEAD_DIM)
    cfg.encoder_ffn_dim = tensors["emformer.layers.0.ffn_in.bias"].size(0)
    teacher = EchoStreamSpeechEncoder(cfg)
    teacher.load_state_dict(tensors)
    return teacher.eval().requires_grad_(False)


def pair_layers(student: int, teacher: int) -> list[tuple[int, int]]:
    """Numbers of the layers that are compared: the student's upper ones, and those of the teacher at their height."""
    pairs = [(index, round((index + 1) * teacher / student) - 1) for index in range(student)]
    return [pair for pair in pairs if (pair[0] + 1) / student > LOWEST_LAYER_SHARE]


@dataclass
class PositionMeans:
    """What the teacher's normalised frames owe to their position.

    Attributes:
        means: ``(layers, T, D)``; their own mean over the positions is zero.
        variances: ``(layers,)`` of the frames around these means.
    """

    means: Tensor
    variances: Tensor


class EncoderDistillation:
    """The loss. It is no module: a checkpoint of the student holds nothing of the teacher.

    Args:
        teacher: whose frames are the targets; it reads the same features as the student.
        student_layers: number of the student's layers.
    """

    def __init__(self, teacher: EchoStreamSpeechEncoder, student_layers: int) -> None:
        self.teacher = teacher
        self.pairs = pair_layers(student_layers, len(teacher.emformer.layers))
        self.positions: PositionMeans | None = None

    @property
    def dim(self) -> int:
        """Size of the teacher's frames."""
        return self.teacher.emformer.dim

    def to(self, device: torch.device | str) -> EncoderDistillation:
        """Move the teacher."""
        self.teacher.to(device)
        return self

    @torch.no_grad()
    def _frames(self, features: Tensor, lengths: Tensor | None) -> list[Tensor]:
        layers: list[Tensor] = []
        self.teacher(features, lengths, segment=0, layer_outputs=layers)
        return [normalised(layers[number]) for _, number in self.pairs]

    def learn_positions(self, pieces: Iterable[Tensor]) -> PositionMeans:
        """Measure the means over batches of pieces ``(B, T, 80)``, all of one length, none padded.

        Raises:
            ValueError: no pieces, or of different lengths.
        """
        total = squares = None
        count = 0
        for features in pieces:
            frames = torch.stack(self._frames(features, None))  # (layers, B, T, D)
            if total is not None and frames.size(2) != total.size(1):
                raise ValueError(f"pieces of {frames.size(2)} and {total.size(1)} frames: all must be of one length")
            summed, squared = frames.sum(dim=1), frames.square().sum(dim=1)
            total = summed if total is None else total + summed
            squares = squared if squares is None else squares + squared
            count += frames.size(1)
        if total is None or squares is None:
            raise ValueError("no pieces to learn the positions' means from")
        means = total / count
        variances = (squares / count - means.square()).mean(dim=(1, 2)).clamp_min(SMALLEST_VARIANCE)
        self.positions = PositionMeans(means - means.mean(dim=1, keepdim=True), variances)
        return self.positions

    def loss_sum(self, student_layers: Sequence[Tensor], features: Tensor, lengths: Tensor) -> tuple[Tensor, int]:
        """Squared distance from the teacher, relative to its variance.

        Args:
            student_layers: frames ``(B, T', D)`` after each of the student's layers, of the same audio.
            features: ``(B, T, 80)`` that the teacher reads, its lengths ``(B,)`` valid.
            lengths: of the features.

        Returns:
            The sum over frames of the mean over layers (about 1 a frame for a student that knows nothing), and the
            number of frames.

        Raises:
            ValueError: pieces longer than those that the positions' means were measured on.
        """
        if self.positions is None:
            raise RuntimeError("learn_positions comes first")
        size = student_layers[0].size(1)
        if size > self.positions.means.size(1):
            raise ValueError(f"a piece of {size} frames, but means of {self.positions.means.size(1)} positions")
        frame_lengths = (lengths + 1) // 2
        valid = valid_positions(frame_lengths, size)
        targets = self._frames(features, lengths)
        means = self.positions.means.to(features.device)
        total = features.new_zeros((), dtype=torch.float32)
        for index, (number, _) in enumerate(self.pairs):
            target = targets[index][:, :size] - means[index, :size]
            distance = (normalised(student_layers[number]) - target).square().mean(dim=-1)
            total = total + distance.masked_select(valid).sum() / self.positions.variances[index].to(total.device)
        return total / len(self.pairs), int(frame_lengths.sum())
