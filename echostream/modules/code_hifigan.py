"""CodeHiFiGAN, fairseq's unit vocoder, whole and streamed (Polyak et al. 2021; Lee et al. 2022).

Its convolutions look some twenty unit frames to either side, but most of the influence comes from the nearest ones.
Streamed, every step synthesises its new frames with a dozen earlier ones before them and with a short tail after them,
which is held back until later units have made it certain. A small trained model, pushed one unit at a time, came within
32 dB of the whole utterance with a tail of 4 frames, 47 dB with 6 and 68 dB with 8; a short cross-fade hides what
difference there is at the joins.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from echostream.modules.duration_predictor import DurationPredictor
from echostream.modules.hifigan import HiFiGANGenerator
from echostream.modules.vocoder import (
    UnitVocoder,
    VocoderError,
    VocoderOutput,
    VocoderState,
    to_durations,
)

TAIL_FRAMES = 6
# Leaving out what is further back costs less than the short tail does: 85 dB in the same measurement
CONTEXT_FRAMES = 12
FADE_MS = 5


@dataclass
class CodeHiFiGANState(VocoderState):
    """A window of the units around the point up to which audio was sent.

    Attributes:
        units: int64 ``(n,)``, those still needed as context and those not sent yet.
        durations: int64 ``(k,)``, ``k <= n``: the settled durations of the first ``k`` of them.
        sent_frames: frames of the window whose audio was sent, all but the cross-fade at their end.
        fade: float32, that cross-fade's samples as the last step made them.
    """

    units: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    durations: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    sent_frames: int = 0
    fade: Tensor = field(default_factory=lambda: torch.empty(0))


class CodeHiFiGAN(UnitVocoder, HiFiGANGenerator):
    """The vocoder, from a published ``config.json``.

    Attributes:
        tail_frames: unit frames held back while streaming; more is closer to the whole utterance, and later.
        context_frames: unit frames synthesised again before the new ones; more is closer, and slower.

    Raises:
        VocoderError: for settings that this model does not have (pitch input, external speaker embeddings).
        KeyError: if a setting is missing.
    """

    kind = "code_hifigan"

    def __init__(self, config: dict[str, Any]) -> None:
        for option in ("f0", "embedder_params"):
            if config.get(option):
                raise VocoderError(f"vocoders with {option!r} are not supported, only units and a speaker number")
        embedding_dim = config["embedding_dim"]
        multiple_speakers = bool(config.get("multispkr"))
        input_dim = config.get("model_in_dim", embedding_dim * (1 + multiple_speakers))
        if input_dim != embedding_dim * (1 + multiple_speakers):
            raise VocoderError(
                f"model_in_dim {input_dim} does not fit embedding_dim {embedding_dim} "
                f"{'with' if multiple_speakers else 'without'} a speaker embedding"
            )
        try:
            HiFiGANGenerator.__init__(
                self,
                input_dim,
                config["upsample_rates"],
                config["upsample_kernel_sizes"],
                config["upsample_initial_channel"],
                config["resblock_kernel_sizes"],
                config["resblock_dilation_sizes"],
            )
        except ValueError as error:
            raise VocoderError(str(error)) from error
        self.config = dict(config)
        self.sample_rate = config.get("sampling_rate", 16000)
        self.hop_samples = 1
        for rate in config["upsample_rates"]:
            self.hop_samples *= rate
        self.num_units = config["num_embeddings"]
        self.dict = nn.Embedding(self.num_units, embedding_dim)
        self.spkr = None
        if multiple_speakers:
            self.num_speakers = config.get("num_speakers", 200)
            self.spkr = nn.Embedding(self.num_speakers, embedding_dim)
        self.dur_predictor = None
        if params := config.get("dur_predictor_params"):
            self.dur_predictor = DurationPredictor(
                params["encoder_embed_dim"],
                params["var_pred_hidden_dim"],
                params["var_pred_kernel_size"],
                params["var_pred_dropout"],
            )
        self.tail_frames = TAIL_FRAMES
        context_frames, self.lookahead_frames = self.receptive_field()
        self.context_frames = min(CONTEXT_FRAMES, context_frames)
        self.fade_samples = min(self.sample_rate * FADE_MS // 1000, self.hop_samples)

    def log_durations(self, units: Tensor) -> Tensor:
        if self.dur_predictor is None:
            raise VocoderError("this vocoder has no duration predictor: pass the durations")
        return self.dur_predictor(self.dict(units))

    def synthesise(self, frames: Tensor, speaker: int | None = None, remaining: Tensor | None = None) -> Tensor:
        x = self.dict(frames)  # (B, F, C)
        if self.spkr is not None:
            voice = self.spkr.weight[self.check_speaker(speaker)]
            x = torch.cat([x, voice.expand(*x.shape[:2], -1)], dim=2)
        return self.generate(x.transpose(1, 2))

    @torch.no_grad()
    def forward(
        self,
        units: Tensor,
        durations: Tensor | None = None,
        lengths: Tensor | None = None,
        speaker: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`UnitVocoder.forward`. Row by row: these convolutions would see the padding of a batch."""
        count = units.size(1)
        valid = [count] * len(units) if lengths is None else lengths.tolist()
        waves, frames = [], []
        for row, size in enumerate(valid):
            known = self.check_units(units[row, :size])
            if durations is None:
                length = to_durations(self.log_durations(known[None]))[0] if size else known
            else:
                length = durations[row, :size].to(known.device)
            repeated = known.repeat_interleave(length)
            waves.append(self.synthesise(repeated[None], speaker)[0] if len(repeated) else torch.empty(0))
            frames.append(torch.nn.functional.pad(length, (0, count - size)))
        return pad_sequence([wave.to(self.device) for wave in waves], batch_first=True), torch.stack(frames)

    def init_state(self, speaker: int | None = None) -> CodeHiFiGANState:
        return CodeHiFiGANState(
            speaker=self.check_speaker(speaker),
            units=torch.empty(0, dtype=torch.long, device=self.device),
            durations=torch.empty(0, dtype=torch.long, device=self.device),
            fade=torch.empty(0, device=self.device),
        )

    @torch.no_grad()
    def step(self, units: Tensor, state: CodeHiFiGANState, is_last: bool = False) -> VocoderOutput:
        units = self.check_units(units)
        self.check_open(state, units)
        state.units = torch.cat([state.units, units])
        settled, durations = self._settle_durations(state, is_last)
        samples = self._synthesise_due(state, durations, is_last)
        state.finished |= is_last
        if is_last:
            state.units, state.durations, state.sent_frames = units[:0], units[:0], 0
        else:
            self._drop_context(state)
        return VocoderOutput(samples, settled)

    def _settle_durations(self, state: CodeHiFiGANState, is_last: bool) -> tuple[Tensor, Tensor]:
        """Durations settled by this step, and those of the whole window, the last few of them provisional.

        The predictor looks at the next two units. While they are not there a duration is a guess, good enough for
        context and never sent, so that streamed durations are those of the whole utterance.
        """
        known = len(state.durations)
        if known == len(state.units):
            return state.durations[:0], state.durations
        predicted = to_durations(self.log_durations(state.units[None]))[0]
        pending = 0 if is_last else self.dur_predictor.lookahead_units
        new = predicted[known : max(len(state.units) - pending, known)]
        state.durations = torch.cat([state.durations, new])
        return new, torch.cat([state.durations, predicted[len(state.durations) :]])

    def _synthesise_due(self, state: CodeHiFiGANState, durations: Tensor, is_last: bool) -> Tensor:
        """Samples that can be sent now; moves ``sent_frames`` and replaces ``fade``."""
        total = int(durations.sum())
        due = total if is_last else min(total - self.tail_frames, int(state.durations.sum()))
        if due < state.sent_frames or (due == state.sent_frames and not is_last) or total == 0:
            return torch.empty(0, device=self.device)
        hop, sent, fade = self.hop_samples, state.sent_frames, state.fade
        frames = state.units.repeat_interleave(durations)
        # one frame more: the cross-fade lies before the last sent frame's end
        first = max(0, sent - 1 - self.context_frames)
        wave = self.synthesise(frames[None, first : due + self.lookahead_frames], state.speaker)[0]
        fresh = wave[(sent - first) * hop - len(fade) : (due - first) * hop].clone()
        if len(fade):
            ramp = torch.linspace(0, 1, len(fade) + 2, device=wave.device)[1:-1]
            fresh[: len(fade)] = fade + ramp * (fresh[: len(fade)] - fade)
        state.sent_frames = due
        held = 0 if is_last else self.fade_samples
        state.fade = fresh[len(fresh) - held :].clone()
        return fresh[: len(fresh) - held]

    def _drop_context(self, state: CodeHiFiGANState) -> None:
        """Forget the units that neither a later sample nor a later duration depends on."""
        ends = state.durations.cumsum(0)
        audible = int((ends <= state.sent_frames - 1 - self.context_frames).sum())
        context_units = self.dur_predictor.context_units if self.dur_predictor else 0
        drop = min(audible, len(state.durations) - context_units)
        if drop > 0:
            state.sent_frames -= int(ends[drop - 1])
            state.units, state.durations = state.units[drop:].clone(), state.durations[drop:].clone()

    @staticmethod
    def checkpoint_name(step: int) -> str:
        return f"g_{step:08d}"

    @staticmethod
    def to_checkpoint(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Split the generator's convolutions into direction and length, as weight norm has them."""
        split = {}
        for name, value in weights.items():
            if _is_normalised(name):
                split[f"{name}_g"] = value.norm(dim=(1, 2), keepdim=True)
                split[f"{name}_v"] = value
            else:
                split[name] = value
        return split

    @staticmethod
    def from_checkpoint(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Multiply weight norm out (Salimans & Kingma 2016); weights saved without it pass as they are."""
        fused = dict(weights)
        for name in [name.removesuffix("_g") for name in weights if name.endswith(".weight_g")]:
            length, direction = fused.pop(f"{name}_g"), fused.pop(f"{name}_v", None)
            if direction is None or direction.dim() != 3 or length.numel() != len(direction):
                raise VocoderError(f"{name}_g and {name}_v of the vocoder checkpoint do not belong together")
            fused[name] = torch._weight_norm(direction, length, 0)
        return fused


def _is_normalised(name: str) -> bool:
    return name.endswith(".weight") and name.split(".")[0] in {"conv_pre", "conv_post", "ups", "resblocks"}
