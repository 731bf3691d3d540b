"""Causal unit vocoder with an inverse STFT; its streamed output equals that for the whole utterance.

It follows Vocos (Siuzdak 2023): ConvNeXt blocks at the unit frame rate predict the magnitude and phase of a few
short-time spectra per frame, which the inverse transform turns into samples. All convolutions are causal and every
spectrum starts at the start of its frame, so that the samples of a frame are final as soon as the frame is known, and
nothing is computed twice.

The duration of a unit is known before its first frame is synthesised, so every frame gets as an input how many frames
of its unit remain. Only the durations may depend on following units; a flush at the end of a word makes them final
without waiting for the next word.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from echostream.constants import SAMPLE_RATE, UNIT_SAMPLES
from echostream.modules.causal_context import stack_contexts, unstack_contexts, with_left_context
from echostream.modules.masks import valid_positions
from echostream.modules.module_list import TypedModuleList
from echostream.vocoders.duration_predictor import DurationPredictor
from echostream.vocoders.interface import (
    UnitVocoder,
    VocoderError,
    VocoderInput,
    VocoderOutput,
    VocoderState,
    carried_durations,
    remaining_frames,
    to_durations,
)

# Largest number of remaining frames that has an embedding of its own; larger numbers share it.
MAX_REMAINING = 15
# Limit of the predicted log-magnitude: larger values are louder than any speech, and exp() could overflow in training.
MAX_LOG_MAGNITUDE = 5.0


@dataclass
class ISTFTState(VocoderState):
    """Left contexts of all convolutions, the overlap of the last spectra, and units without a final duration.

    Attributes:
        duration_contexts: left contexts of the duration predictor's convolutions, ``(1, kernel - 1, channels)`` each.
        convolution_contexts: left contexts of the generator's convolutions, ``(1, kernel - 1, channels)`` each.
        overlap: ``(1, n_fft / hop - 1, hop)`` samples that later frames add to; None before the first frame.
        waiting: int64 ``(n,)``, units that wait for the following units that their durations depend on.
        skipped: number of predictions discarded since the last flush because their look-ahead was incomplete.
        carry: rounding error of the durations so far, in frames: predicted minus emitted.
    """

    duration_contexts: list[Tensor] = field(default_factory=list)
    convolution_contexts: list[Tensor] = field(default_factory=list)
    overlap: Tensor | None = None
    waiting: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    skipped: int = 0
    carry: float = 0.0


@dataclass(frozen=True)
class _Settled:
    """Units of a stream whose durations are final now, these durations, and its next state."""

    units: Tensor
    durations: Tensor
    state: ISTFTState


class CausalDepthwise(nn.Module):
    """Causal depthwise convolution on ``(B, T, C)``."""

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(kernel_size, channels).uniform_(-1, 1) / math.sqrt(kernel_size))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(
        self, x: Tensor, contexts: list[Tensor] | None, index: int, lengths: Sequence[int] | None = None
    ) -> Tensor:
        """Convolve ``(B, T, C)``; for ``contexts``, ``index`` and ``lengths`` see :func:`with_left_context`."""
        x = with_left_context(x, len(self.weight) - 1, contexts, index, lengths)
        # An image of height one in the channels-last format: on a CPU this is three times as fast as conv1d.
        picture = x.transpose(1, 2).unsqueeze(2)
        kernel = self.weight.T[:, None, None].contiguous(memory_format=torch.channels_last)
        return F.conv2d(picture, kernel, self.bias, groups=x.size(2)).squeeze(2).transpose(1, 2)


class ConvNeXtBlock(nn.Module):
    """ConvNeXt block (Liu et al. 2022): depthwise convolution and pointwise layers with a residual connection."""

    def __init__(self, channels: int, hidden: int, kernel_size: int, scale: float) -> None:
        super().__init__()
        self.depthwise = CausalDepthwise(channels, kernel_size)
        self.norm = nn.LayerNorm(channels)
        self.expand = nn.Linear(channels, hidden)
        self.contract = nn.Linear(hidden, channels)
        self.scale = nn.Parameter(torch.full((channels,), scale))

    def forward(
        self, x: Tensor, contexts: list[Tensor] | None, index: int, lengths: Sequence[int] | None = None
    ) -> Tensor:
        y = self.norm(self.depthwise(x, contexts, index, lengths))
        return x + self.scale * self.contract(F.gelu(self.expand(y), approximate="tanh"))


class ISTFTVocoder(UnitVocoder[ISTFTState]):
    """The inverse-STFT vocoder, built from its ``config.json``.

    Settings: ``num_embeddings`` (number of units), ``channels``, ``hidden_channels`` and ``layers`` of the blocks,
    ``kernel_size`` in unit frames, ``n_fft`` in samples, ``spectra_per_frame``, ``code_hop_size`` in samples per unit
    frame, ``sampling_rate`` in Hz, and ``dur_predictor_params`` as for CodeHiFiGAN, with two more:

    - ``var_pred_lookahead`` (default 0): number of following units that the duration of a unit depends on. In a stream
      that many units are held back until a flush. The predictor sees a flush as blanks between the units, and is
      trained with such blanks.
    - ``var_pred_carry`` (default false): add the error of rounding a duration to whole frames to the duration of the
      next unit, so that speech keeps the predicted tempo.

    Raises:
        VocoderError: if the spectra do not fit the frames evenly, or if the look-ahead is larger than the receptive
            field of the duration predictor.
        KeyError: if a setting is missing.
    """

    window: Tensor  # (n_fft,)

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.config = dict(config)
        self.sample_rate = config.get("sampling_rate", SAMPLE_RATE)
        self.hop_samples = config.get("code_hop_size", UNIT_SAMPLES)
        self.num_units = config["num_embeddings"]
        self.spectra_per_frame, self.n_fft = config["spectra_per_frame"], config["n_fft"]
        self.stride = self.hop_samples // self.spectra_per_frame
        if self.hop_samples % self.spectra_per_frame or self.n_fft % self.stride or self.n_fft < 2 * self.stride:
            raise VocoderError(
                f"n_fft {self.n_fft} must be a multiple, at least twice, of the stride of the spectra, code_hop_size "
                f"{self.hop_samples} / spectra_per_frame {self.spectra_per_frame}"
            )
        channels, kernel = config["channels"], config["kernel_size"]
        self.dict = nn.Embedding(self.num_units, channels)
        self.remaining = nn.Embedding(MAX_REMAINING + 1, channels)
        self.first = CausalDepthwise(channels, kernel)
        self.mix = nn.Linear(channels, channels)
        self.norm_in = nn.LayerNorm(channels)
        self.blocks: TypedModuleList[ConvNeXtBlock] = TypedModuleList(
            ConvNeXtBlock(channels, config["hidden_channels"], kernel, 1 / config["layers"])
            for _ in range(config["layers"])
        )
        self.norm_out = nn.LayerNorm(channels)
        self.head = nn.Linear(channels, self.spectra_per_frame * (self.n_fft + 2))
        params = config["dur_predictor_params"]
        self.dur_predictor = DurationPredictor(
            channels,
            params["var_pred_hidden_dim"],
            params["var_pred_kernel_size"],
            params["var_pred_dropout"],
            causal=True,
        )
        self.carries = bool(params.get("var_pred_carry", False))
        self.lookahead_units = params.get("var_pred_lookahead", 0)
        if not 0 <= self.lookahead_units <= self.dur_predictor.context_units:
            raise VocoderError(
                f"var_pred_lookahead {self.lookahead_units} is not among the 0 to {self.dur_predictor.context_units} "
                "units that the duration predictor sees"
            )
        # Overlapping Hann windows one stride apart add up to n_fft / (2 * stride).
        window = torch.hann_window(self.n_fft) * (2 * self.stride / self.n_fft)
        self.register_buffer("window", window, persistent=False)

    def log_durations(self, units: Tensor, flushes: Sequence[int] = ()) -> Tensor:
        x = self.dict(units)  # (B, T, C)
        ahead, ends = self.lookahead_units, sorted({*flushes, units.size(1)} - {0})
        pieces = [x[:, start:end] for start, end in pairwise([0, *ends])]
        # The predictor is causal: the prediction for a unit is its output `ahead` positions later, at the end of the
        # look-ahead, which consists of units or blanks.
        predicted = self.dur_predictor(torch.cat([F.pad(piece, (0, 0, 0, ahead)) for piece in pieces], dim=1))
        lengths = [piece.size(1) + ahead for piece in pieces]
        return torch.cat([piece[:, ahead:] for piece in predicted.split(lengths, dim=1)], dim=1)

    def predict_durations(self, units: Tensor) -> Tensor:
        return self._round(self.log_durations(units[None])[0], 0.0)[0]

    def _round(self, log_durations: Tensor, carry: float, tempo: float = 1.0) -> tuple[Tensor, float]:
        """Durations in whole frames ``(T,)`` and the rounding error to carry to the next unit."""
        if self.carries or tempo != 1:
            return carried_durations(log_durations, carry, tempo)
        return to_durations(log_durations), carry

    def _settle_durations(self, inputs: Sequence[VocoderInput[ISTFTState]]) -> list[_Settled]:
        """Units of each stream whose durations are final now.

        This is the streaming form of :meth:`log_durations`.
        """
        settled, busy, embedded = [], [], []
        for row, one in enumerate(inputs):
            waiting = torch.cat([one.state.waiting.to(one.units.device), one.units])
            settled.append(_Settled(waiting[:0], waiting[:0], replace(one.state, waiting=waiting)))
            # Without waiting units there is nothing to flush.
            flushes = (one.flush or one.is_last) and len(waiting) > 0
            x = F.pad(self.dict(one.units), (0, 0, 0, self.lookahead_units if flushes else 0))
            if len(x):
                busy.append(row)
                embedded.append(x)
        if not busy:
            return settled
        contexts = stack_contexts([inputs[row].state.duration_contexts for row in busy])
        lengths = [len(x) for x in embedded]
        x = pad_sequence(embedded, batch_first=True)
        rows = self.dur_predictor(x, contexts, lengths if min(lengths) < x.size(1) else None)
        for row, predicted, own, length in zip(busy, rows, unstack_contexts(contexts, len(busy)), lengths, strict=True):
            one, state = inputs[row], settled[row].state
            skip = min(self.lookahead_units - state.skipped, length)
            durations, carry = self._round(predicted[skip:length], state.carry, state.tempo)
            final = len(durations)
            following = replace(
                state,
                duration_contexts=own,
                waiting=state.waiting[final:].clone(),
                skipped=0 if one.flush or one.is_last else state.skipped + skip,
                carry=carry,
            )
            settled[row] = _Settled(state.waiting[:final], durations, following)
        return settled

    def synthesise(self, frames: Tensor, speaker: int | None = None, remaining: Tensor | None = None) -> Tensor:
        """See :meth:`UnitVocoder.synthesise`; ``remaining`` is computed from ``frames`` if it is None."""
        self.check_speaker(speaker)
        if remaining is None:
            remaining = torch.stack(
                [remaining_frames(torch.unique_consecutive(row, return_counts=True)[1]) for row in frames]
            )
        return self._generate(frames, remaining)[0]

    def _generate(
        self,
        frames: Tensor,
        remaining: Tensor,
        contexts: list[Tensor] | None = None,
        overlap: Tensor | None = None,
        lengths: Sequence[int] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Samples ``(B, F * hop)`` and the overlap to which later frames will add.

        ``lengths``: how many frames each row has; what follows is padding, whose samples mean nothing. None: all.
        """
        x = self.dict(frames) + self.remaining(remaining.clamp(max=MAX_REMAINING))  # (B, F, C)
        x = self.norm_in(self.mix(self.first(x, contexts, 0, lengths)))
        for index, block in enumerate(self.blocks):
            x = block(x, contexts, index + 1, lengths)
        x = self.head(self.norm_out(x)).unflatten(2, (self.spectra_per_frame, -1)).flatten(1, 2)
        log_magnitude, phase = x.chunk(2, dim=2)  # (B, N, n_fft / 2 + 1)
        spectra = torch.polar(log_magnitude.clamp(max=MAX_LOG_MAGNITUDE).exp(), phase)
        pieces = (torch.fft.irfft(spectra, n=self.n_fft) * self.window).unflatten(2, (-1, self.stride))
        counts = [self.spectra_per_frame * length for length in lengths] if lengths is not None else None
        return self._overlap_add(pieces, overlap, counts)

    def _overlap_add(
        self, pieces: Tensor, overlap: Tensor | None, counts: Sequence[int] | None
    ) -> tuple[Tensor, Tensor]:
        """Overlap-add windows ``(B, N, K, stride)``, one stride apart, to the ``overlap`` of earlier windows.

        ``counts``: how many windows each row has; None: all ``N``.

        Returns:
            Final samples ``(B, N * stride)`` and the next overlap ``(B, K - 1, stride)``.
        """
        batch, count, parts, stride = pieces.shape
        if counts is not None:
            valid = valid_positions(torch.tensor(counts, device=pieces.device), count)
            pieces = pieces.masked_fill(~valid[:, :, None, None], 0.0)
        total = (
            pieces.new_zeros(batch, count + parts - 1, stride) if overlap is None else F.pad(overlap, (0, 0, 0, count))
        )
        shifted = [F.pad(pieces[:, :, k], (0, 0, k, parts - 1 - k)) for k in range(parts)]
        total = total + torch.stack(shifted).sum(0)
        ends = counts or [count] * batch
        after = torch.stack([row[end : end + parts - 1] for row, end in zip(total, ends, strict=True)])
        return total[:, :count].flatten(1), after

    def init_state(self, speaker: int | None = None) -> ISTFTState:
        return ISTFTState(speaker=self.check_speaker(speaker))

    def step(
        self, units: Tensor, state: ISTFTState, is_last: bool = False, flush: bool = False
    ) -> tuple[VocoderOutput, ISTFTState]:
        return self.step_batch([VocoderInput(units, state, is_last, flush)])[0]

    @torch.no_grad()
    def step_batch(self, inputs: Sequence[VocoderInput[ISTFTState]]) -> list[tuple[VocoderOutput, ISTFTState]]:
        inputs = [replace(one, units=self.check_units(one.units)) for one in inputs]
        for one in inputs:
            self.check_open(one.state, one.units)
        settled = self._settle_durations(inputs)
        silence = torch.empty(0, device=self.device)
        samples = [silence for _ in inputs]
        states = [
            replace(one.state, finished=one.state.finished or given.is_last)
            for one, given in zip(settled, inputs, strict=True)
        ]
        due = [row for row, one in enumerate(settled) if len(one.units)]
        if due:
            frames = [settled[row].units.repeat_interleave(settled[row].durations) for row in due]
            remaining = [remaining_frames(settled[row].durations) for row in due]
            lengths = [len(row) for row in frames]
            contexts = stack_contexts([states[row].convolution_contexts for row in due])
            rows, overlaps = self._generate(
                pad_sequence(frames, batch_first=True),
                pad_sequence(remaining, batch_first=True),
                contexts,
                self._stacked_overlaps([states[row].overlap for row in due]),
                lengths if min(lengths) < max(lengths) else None,
            )
            own = zip(due, rows, lengths, overlaps.split(1), unstack_contexts(contexts, len(due)), strict=True)
            for row, wave, length, overlap, kept in own:
                samples[row] = wave[: length * self.hop_samples]
                states[row] = replace(states[row], convolution_contexts=kept, overlap=overlap.clone())
        outputs = [VocoderOutput(wave, one.durations) for wave, one in zip(samples, settled, strict=True)]
        return list(zip(outputs, states, strict=True))

    def _stacked_overlaps(self, overlaps: Sequence[Tensor | None]) -> Tensor:
        none = self.window.new_zeros(1, self.n_fft // self.stride - 1, self.stride)
        return torch.cat([none if overlap is None else overlap for overlap in overlaps])
