"""Unit vocoders: what every one of them offers, and how one is loaded and saved.

A unit vocoder turns discrete speech units, repeats removed, into a waveform; how long each unit lasts it predicts
itself (Polyak et al. 2021, "Speech Resynthesis from Discrete Disentangled Self-Supervised Representations"; Lee et
al. 2022, "Direct Speech-to-Speech Translation With Discrete Units"). One unit frame is ``hop_samples`` long: 20 ms
for the published models.
"""

from __future__ import annotations

import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from echostream.modules.state import State

CONFIG_NAME = "config.json"
# No speech sound lasts longer; without a bound one odd prediction could ask for hours of audio.
MAX_UNIT_FRAMES = 250


class VocoderError(ValueError):
    """A vocoder that cannot be loaded, or input that it cannot take."""


@dataclass
class VocoderState(State):
    """What a stream of units has left behind; each vocoder derives its own.

    Attributes:
        speaker: voice of a multi-speaker vocoder, fixed for the stream.
        finished: the stream was closed with ``is_last``.
    """

    speaker: int | None = None
    finished: bool = False


@dataclass
class VocoderOutput:
    """What one step makes.

    Attributes:
        samples: float32 ``(m,)``; audio that will not change any more.
        durations: int64 ``(k,)``; lengths, in unit frames, of the ``k`` units whose duration this step settled,
            in the order in which they were given.
    """

    samples: Tensor
    durations: Tensor


class UnitVocoder(nn.Module, ABC):
    """Common interface of the vocoders. A model serves any number of streams: ``step`` changes only its state.

    Attributes:
        config: the model's ``config.json``.
        sample_rate: of the output, Hz.
        hop_samples: samples of one unit frame.
        num_units: units are 0 to ``num_units - 1``.
        num_speakers: voices; 1 when there is nothing to choose.
        lookahead_units: units to come that help to tell how long one lasts.
    """

    kind: ClassVar[str]
    config: dict[str, Any]
    sample_rate: int
    hop_samples: int
    num_units: int
    num_speakers: int = 1

    lookahead_units: int = 0

    @abstractmethod
    def log_durations(self, units: Tensor, flushes: Sequence[int] = ()) -> Tensor:
        """Predict ``log(frames + 1)`` of de-duplicated units ``(B, T)`` -> ``(B, T)``; differentiable.

        ``flushes``, increasing: numbers of units after which a stream would be flushed, see :meth:`step`.
        """

    def predict_durations(self, units: Tensor) -> Tensor:
        """Unit frames of each of an utterance's de-duplicated units ``(T,)`` -> int64 ``(T,)``."""
        return to_durations(self.log_durations(units[None]))[0]

    @abstractmethod
    def synthesise(self, frames: Tensor, speaker: int | None = None, remaining: Tensor | None = None) -> Tensor:
        """Waveform ``(B, F * hop_samples)`` of frame-level units ``(B, F)``, repeats included; differentiable.

        ``remaining`` ``(B, F)`` says for how many more frames each frame's unit goes on, which the frames of a piece
        cut from an utterance do not show at its end. Not every vocoder uses it.
        """

    @torch.no_grad()
    def forward(
        self,
        units: Tensor,
        durations: Tensor | None = None,
        lengths: Tensor | None = None,
        speaker: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Synthesise whole utterances, row by row: some convolutions would see the padding of a batch.

        Args:
            units: int64 ``(B, T)``, de-duplicated.
            durations: int64 ``(B, T)``, unit frames; predicted when absent.
            lengths: int64 ``(B,)``, valid units of each row; all when absent. What the padding holds is ignored.
            speaker: voice of a multi-speaker model, by default the first.

        Returns:
            Waveforms float32 ``(B, samples)``, zero after the end of each, and the durations int64 ``(B, T)``,
            zero in the padding.
        """
        count = units.size(1)
        waves, frames = [], []
        for row, size in enumerate([count] * len(units) if lengths is None else lengths.tolist()):
            known = self.check_units(units[row, :size])
            if durations is not None:
                length = durations[row, :size].to(self.device)
            else:
                length = self.predict_durations(known) if size else known
            repeated, remaining = known.repeat_interleave(length), remaining_frames(length)
            wave = self.synthesise(repeated[None], speaker, remaining[None])[0] if len(repeated) else torch.empty(0)
            waves.append(wave.to(self.device))
            frames.append(F.pad(length, (0, count - size)))
        return pad_sequence(waves, batch_first=True), torch.stack(frames)

    @abstractmethod
    def init_state(self, speaker: int | None = None) -> VocoderState:
        """Start a stream."""

    @abstractmethod
    def step(self, units: Tensor, state: VocoderState, is_last: bool = False, flush: bool = False) -> VocoderOutput:
        """Take the next units ``(n,)``, ``n >= 0``, of a stream; ``is_last`` makes all audio that is still due.

        ``flush``, at the end of a word say, lets no unit wait for those that help to tell how long it lasts, which may
        be long in coming. It does nothing for a vocoder whose audio itself waits for what follows, CodeHiFiGAN's.
        """

    @staticmethod
    def checkpoint_name(step: int) -> str:
        """File name of weights after ``step`` training steps."""
        return "vocoder.pt"

    @staticmethod
    def to_checkpoint(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """From the module's tensors to those of its file format."""
        return weights

    @staticmethod
    def from_checkpoint(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """From the tensors of a file to the module's."""
        return weights

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def check_units(self, units: Tensor) -> Tensor:
        """``units`` as int64 on the model's device; a :class:`VocoderError` if one of them is not the vocoder's."""
        units = torch.as_tensor(units, dtype=torch.long, device=self.device)
        if units.numel():
            low, high = (int(value) for value in units.aminmax())
            if low < 0 or high >= self.num_units:
                wrong = low if low < 0 else high
                raise VocoderError(f"unit {wrong} is not among this vocoder's units 0 to {self.num_units - 1}")
        return units

    def check_speaker(self, speaker: int | None) -> int | None:
        """A valid voice, the first by default; a :class:`VocoderError` if the model does not have it."""
        if speaker is not None and not 0 <= speaker < self.num_speakers:
            raise VocoderError(f"speaker {speaker} is not among this vocoder's {self.num_speakers} voices")
        return speaker or 0

    def check_open(self, state: VocoderState, units: Tensor) -> None:
        """Refuse ``units``, if there are any, for a stream that was closed, with a :class:`VocoderError`."""
        if state.finished and units.numel():
            raise VocoderError("this stream of units was closed with is_last; start another with init_state()")


def to_durations(log_durations: Tensor) -> Tensor:
    """Whole unit frames, at least one, from predicted ``log(frames + 1)``."""
    return torch.round(log_durations.exp() - 1).clamp(min=1, max=MAX_UNIT_FRAMES).long()


def deduplicate(frames: Tensor) -> tuple[Tensor, Tensor]:
    """Split frame-level units ``(F,)`` into units without repeats ``(T,)`` and their durations ``(T,)``."""
    return torch.unique_consecutive(frames, return_counts=True)


def remaining_frames(durations: Tensor) -> Tensor:
    """How many frames of its unit come after each frame: ``[2, 3] -> [1, 0, 2, 1, 0]``."""
    ends = durations.cumsum(0).repeat_interleave(durations)
    return ends - 1 - torch.arange(len(ends), device=ends.device)


def build_vocoder(config: dict[str, Any]) -> UnitVocoder:
    """Make a vocoder with random weights from its configuration.

    Published unit vocoders carry no ``type``: they are CodeHiFiGANs.

    Raises:
        VocoderError: for an unknown type, or a setting that is missing or makes no sense.
    """
    from echostream.modules.code_hifigan import CodeHiFiGAN
    from echostream.modules.istft_vocoder import ISTFTVocoder

    kinds: dict[str, type[UnitVocoder]] = {cls.kind: cls for cls in (CodeHiFiGAN, ISTFTVocoder)}
    kind = config.get("type", CodeHiFiGAN.kind)
    if kind not in kinds:
        raise VocoderError(f"unknown vocoder type {kind!r}; known: {', '.join(sorted(kinds))}")
    try:
        return kinds[kind](config)
    except KeyError as error:
        raise VocoderError(f"the {kind} vocoder's config lacks {error}") from error
    except (TypeError, RuntimeError) as error:
        raise VocoderError(f"the {kind} vocoder's config makes no sense: {str(error).splitlines()[0]}") from error


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a vocoder's JSON configuration.

    Raises:
        VocoderError: if there is none, or if it is no JSON object.
    """
    try:
        config = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise VocoderError(f"cannot read the vocoder config {path}: {error}") from error
    if not isinstance(config, dict):
        raise VocoderError(f"the vocoder config {path} is not a JSON object")
    return config


def find_checkpoint(directory: Path) -> Path:
    """The weights in a vocoder's directory: ``vocoder.pt``, else the ``g_*`` with the most steps.

    Raises:
        VocoderError: if there is neither.
    """
    if (directory / "vocoder.pt").is_file():
        return directory / "vocoder.pt"
    generators = [path for path in directory.glob("g_*") if re.fullmatch(r"g_\d+", path.name)]
    if not generators:
        raise VocoderError(f"no vocoder.pt and no g_* checkpoint in {directory}")
    return max(generators, key=lambda path: int(path.name[2:]))


def load_vocoder(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> UnitVocoder:
    """Load a vocoder for inference.

    Args:
        path: a directory with ``config.json`` and ``vocoder.pt`` or ``g_*``, or that checkpoint file itself with
            ``config.json`` beside it.
        device: where to put it.

    Raises:
        VocoderError: if a file is missing or damaged, or if weights and configuration disagree.
    """
    path = Path(path)
    if not path.exists():
        raise VocoderError(f"no vocoder at {path}")
    directory = path if path.is_dir() else path.parent
    vocoder = build_vocoder(read_config(directory / CONFIG_NAME))
    checkpoint = find_checkpoint(path) if path.is_dir() else path
    weights = vocoder.from_checkpoint(_read_weights(checkpoint))
    expected = {name: tuple(value.shape) for name, value in vocoder.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    if differing := sorted(name for name in expected | found if expected.get(name) != found.get(name)):
        name = differing[0]
        raise VocoderError(
            f"{checkpoint} does not fit {CONFIG_NAME} beside it: {len(differing)} tensors differ, the first {name}: "
            f"checkpoint {found.get(name, 'absent')}, config {expected.get(name, 'absent')}"
        )
    vocoder.load_state_dict(weights)
    return vocoder.to(device).eval().requires_grad_(False)


def _read_weights(checkpoint: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # the loader raises whatever the damage makes it stumble over
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise VocoderError(f"cannot read the vocoder checkpoint {checkpoint}: {reason}") from error
    weights = content.get("generator") if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise VocoderError(f"{checkpoint} is no vocoder checkpoint: no weights under 'generator'")
    return weights


def save_vocoder(vocoder: UnitVocoder, directory: str | os.PathLike[str], step: int = 0) -> Path:
    """Write ``config.json`` and the weights in the format that :func:`load_vocoder` reads.

    A CodeHiFiGAN is written as the published ones are: ``g_`` and the step in eight digits, weight norm split up,
    so that fairseq loads it as well.

    Args:
        vocoder: the model.
        directory: made if it does not exist.
        step: training steps so far.

    Returns:
        Path of the checkpoint.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().cpu().contiguous() for name, value in vocoder.state_dict().items()}
    path = directory / vocoder.checkpoint_name(step)
    write_atomically(path, {"generator": vocoder.to_checkpoint(weights)})
    temporary = directory / f"{CONFIG_NAME}.tmp"
    temporary.write_text(json.dumps(vocoder.config, indent=2) + "\n", encoding="utf-8")
    temporary.replace(directory / CONFIG_NAME)
    return path


def write_atomically(path: Path, content: object) -> None:
    """``torch.save`` that leaves either the old file or the new one, whatever happens in between."""
    temporary = path.with_name(f"{path.name}.tmp")
    torch.save(content, temporary)
    temporary.replace(path)
