"""Unit vocoders: what every one of them offers.

A unit vocoder turns discrete speech units, repeats removed, into a waveform; how long each unit lasts it predicts
itself (Polyak et al. 2021, "Speech Resynthesis from Discrete Disentangled Self-Supervised Representations"; Lee et
al. 2022, "Direct Speech-to-Speech Translation With Discrete Units"). One unit frame is ``hop_samples`` long: 20 ms
for the published models.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from echostream.modules.state import State

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


StateT = TypeVar("StateT", bound=VocoderState)


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


class UnitVocoder(nn.Module, ABC, Generic[StateT]):
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
    def init_state(self, speaker: int | None = None) -> StateT:
        """Start a stream."""

    @abstractmethod
    def step(self, units: Tensor, state: StateT, is_last: bool = False, flush: bool = False) -> VocoderOutput:
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

    def check_open(self, state: StateT, units: Tensor) -> None:
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
