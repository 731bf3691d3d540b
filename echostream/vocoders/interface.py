"""Common interface of the unit vocoders.

A unit vocoder turns discrete speech units without repeats into a waveform, and predicts the duration of each unit
(Polyak et al. 2021, "Speech Resynthesis from Discrete Disentangled Self-Supervised Representations"; Lee et al. 2022,
"Direct Speech-to-Speech Translation With Discrete Units"). A unit frame has ``hop_samples`` samples: 20 ms for the
published models.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from echostream.modules.state import State

# Longest duration of a unit. Without a limit, a single wrong prediction could produce hours of audio.
MAX_UNIT_FRAMES = 250


class VocoderError(ValueError):
    """A vocoder cannot be loaded, or its input is not valid."""


@dataclass
class VocoderState(State):
    """State of a stream of units; each vocoder derives its own.

    Attributes:
        speaker: voice of a multi-speaker vocoder, fixed for the stream.
        finished: whether the stream was closed with ``is_last``.
        tempo: by which predicted durations are divided from now on; the runtime sets it, see
            :mod:`echostream.streaming.tempo`. A vocoder that takes no notice of it speaks at its own tempo.
    """

    speaker: int | None = None
    finished: bool = False
    tempo: float = field(default=1.0, kw_only=True)


StateT = TypeVar("StateT", bound=VocoderState)


@dataclass
class VocoderOutput:
    """Output of one step.

    Attributes:
        samples: float32 ``(m,)``; final audio.
        durations: int64 ``(k,)``; durations in unit frames of the ``k`` units whose duration became final in this step,
            in the order of the input.
    """

    samples: Tensor
    durations: Tensor


@dataclass(frozen=True)
class VocoderInput(Generic[StateT]):
    """What one stream brings to a step: the arguments of :meth:`UnitVocoder.step`."""

    units: Tensor
    state: StateT
    is_last: bool = False
    flush: bool = False


class UnitVocoder(nn.Module, ABC, Generic[StateT]):
    """Common interface of the vocoders. One model serves any number of streams: it remembers nothing of them.

    Attributes:
        config: the model's ``config.json``.
        sample_rate: sample rate of the output in Hz.
        hop_samples: samples per unit frame.
        num_units: number of units; units are 0 to ``num_units - 1``.
        num_speakers: number of voices; 1 for a single-speaker model.
        lookahead_units: number of following units that the duration of a unit depends on.
    """

    config: dict[str, Any]
    sample_rate: int
    hop_samples: int
    num_units: int
    num_speakers: int = 1

    lookahead_units: int = 0

    @abstractmethod
    def log_durations(self, units: Tensor, flushes: Sequence[int] = ()) -> Tensor:
        """Predict ``log(frames + 1)`` of de-duplicated units ``(B, T)`` -> ``(B, T)``; differentiable.

        ``flushes`` holds, in increasing order, the numbers of units after which a stream would be flushed, see
        :meth:`step`.
        """

    def predict_durations(self, units: Tensor) -> Tensor:
        """Duration of each de-duplicated unit of an utterance in unit frames, ``(T,)`` -> int64 ``(T,)``."""
        return to_durations(self.log_durations(units[None]))[0]

    @abstractmethod
    def synthesise(self, frames: Tensor, speaker: int | None = None, remaining: Tensor | None = None) -> Tensor:
        """Waveform ``(B, F * hop_samples)`` of frame-level units ``(B, F)``, repeats included; differentiable.

        ``remaining`` ``(B, F)`` is the number of frames for which the unit of each frame continues after it. It is
        needed for an excerpt of an utterance, whose last unit may be cut off. Not every vocoder uses it.
        """

    @torch.no_grad()
    def forward(
        self,
        units: Tensor,
        durations: Tensor | None = None,
        lengths: Tensor | None = None,
        speaker: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Synthesise whole utterances, one row at a time, because some convolutions would see the padding of a batch.

        Args:
            units: int64 ``(B, T)``, de-duplicated.
            durations: int64 ``(B, T)``, unit frames; None: predicted.
            lengths: int64 ``(B,)``, valid units of each row; None: all. The content of the padding is ignored.
            speaker: voice of a multi-speaker model; None: the first one.

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
        """The state of a new stream."""

    @abstractmethod
    def step(
        self, units: Tensor, state: StateT, is_last: bool = False, flush: bool = False
    ) -> tuple[VocoderOutput, StateT]:
        """Process the next units ``(n,)``, ``n >= 0``, of a stream; ``is_last`` emits all remaining audio.

        Returns the output and the next state. ``state`` and its tensors stay as they are, so that a step can be taken
        again from it, whether it succeeded or failed.

        ``flush`` makes the durations of all units final without waiting for the following units that they normally
        depend on, for example at the end of a word. It has no effect on CodeHiFiGAN, whose audio itself depends on the
        following units.
        """

    def step_batch(self, inputs: Sequence[VocoderInput[StateT]]) -> list[tuple[VocoderOutput, StateT]]:
        """:meth:`step` for several streams: each gets what it would get alone, samples to 1e-5.

        A vocoder whose streams can share a pass has a method of its own; here they are stepped one by one.
        """
        return [self.step(one.units, one.state, one.is_last, one.flush) for one in inputs]

    @staticmethod
    def checkpoint_name(step: int) -> str:
        """File name of weights after ``step`` training steps."""
        return "vocoder.pt"

    @staticmethod
    def to_checkpoint(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Convert the module's weights to those of its file format."""
        return weights

    @staticmethod
    def from_checkpoint(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Convert the weights of a file to those of the module."""
        return weights

    @property
    def device(self) -> torch.device:
        """Device of the weights, or of the buffers of a vocoder that has no weights."""
        return next(chain(self.parameters(), self.buffers())).device

    def check_units(self, units: Tensor) -> Tensor:
        """``units`` as int64 on the model's device; raises :class:`VocoderError` for a unit out of range."""
        units = torch.as_tensor(units, dtype=torch.long, device=self.device)
        if units.numel():
            low, high = (int(value) for value in units.aminmax())
            if low < 0 or high >= self.num_units:
                wrong = low if low < 0 else high
                raise VocoderError(f"unit {wrong} is not among this vocoder's units 0 to {self.num_units - 1}")
        return units

    def check_speaker(self, speaker: int | None) -> int | None:
        """The voice to use, the first by default; raises :class:`VocoderError` if the model does not have it."""
        if speaker is not None and not 0 <= speaker < self.num_speakers:
            raise VocoderError(f"speaker {speaker} is not among this vocoder's {self.num_speakers} voices")
        return speaker or 0

    def check_open(self, state: StateT, units: Tensor) -> None:
        """Raise :class:`VocoderError` if there are ``units`` for a stream that has been closed."""
        if state.finished and units.numel():
            raise VocoderError("this stream of units was closed with is_last; start another with init_state()")


def to_durations(log_durations: Tensor) -> Tensor:
    """Durations in whole unit frames, at least one, from predicted ``log(frames + 1)``."""
    return torch.round(log_durations.exp() - 1).clamp(min=1, max=MAX_UNIT_FRAMES).long()


def carried_durations(log_durations: Tensor, carry: float, tempo: float = 1.0) -> tuple[Tensor, float]:
    """Durations in whole frames whose rounding errors don't add up, so that speech keeps its tempo.

    Args:
        log_durations: ``(T,)`` predicted ``log(frames + 1)``.
        carry: rounding error of the unit before, in frames: what it should have been minus what it was.
        tempo: by which the predicted durations are divided.

    Returns:
        int64 ``(T,)``, and the error to carry to the next unit.
    """
    durations = []
    for frames in ((log_durations.double().exp() - 1) / tempo).clamp(max=MAX_UNIT_FRAMES).tolist():
        whole = min(max(round(frames + carry), 1), MAX_UNIT_FRAMES)
        # A unit much shorter than a frame is rounded up to one; the following units must not pay for all of it.
        carry = min(max(frames + carry - whole, -0.5), 0.5)
        durations.append(whole)
    return torch.tensor(durations, dtype=torch.long, device=log_durations.device), carry


def deduplicate(frames: Tensor) -> tuple[Tensor, Tensor]:
    """Split frame-level units ``(F,)`` into units without repeats ``(T,)`` and their durations ``(T,)``."""
    return torch.unique_consecutive(frames, return_counts=True)


def remaining_frames(durations: Tensor) -> Tensor:
    """Number of frames of the same unit that follow each frame: ``[2, 3] -> [1, 0, 2, 1, 0]``."""
    ends = durations.cumsum(0).repeat_interleave(durations)
    return ends - 1 - torch.arange(len(ends), device=ends.device)
