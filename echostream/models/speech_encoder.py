"""Speech encoder: log-mel features to frames, in constant work per segment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from echostream.models.config import CHOICES, EchoStreamConfig
from echostream.models.front_ends import find_front_end
from echostream.modules.cyclic_positions import CyclicPositions, FadingPositions
from echostream.modules.emformer import Emformer, EmformerState
from echostream.modules.state import BatchedState


@dataclass
class SpeechEncoderState(BatchedState):
    """States of the two stages."""

    subsampler: Any  # of the front end
    emformer: EmformerState


class EchoStreamSpeechEncoder(nn.Module):
    """The front end's subsampler and an Emformer (Shi et al. 2021).

    Frames that go in last ``layer_frame_ms``, those that come out ``frame_ms``: ``encoder_stack`` of them joined.

    Raises:
        ValueError: an option that names what there is not, a stack below 1, or fewer than no updates.
    """

    def __init__(self, cfg: EchoStreamConfig) -> None:
        super().__init__()
        front_end = find_front_end(cfg.front_end)
        for option, choices in CHOICES.items():
            if getattr(cfg, option) not in list(choices):
                raise ValueError(f"{option} is one of {', '.join(choices)}, not '{getattr(cfg, option)}'")
        if cfg.encoder_stack < 1:
            raise ValueError(f"encoder_stack must be at least 1, got {cfg.encoder_stack}")
        if cfg.encoder_fade_updates < 0:
            raise ValueError(f"encoder_fade_updates must not be negative, got {cfg.encoder_fade_updates}")
        self.right_context = cfg.right_context_frames
        self.stack = cfg.encoder_stack
        self.layer_frame_ms = front_end.frame_ms
        self.frame_ms = front_end.frame_ms * cfg.encoder_stack
        self.frame_scale = front_end.frame_scale(cfg)
        self.subsampler = front_end.subsampler(cfg)
        self.positions: CyclicPositions | None = None
        if cfg.encoder_positions == "cyclic":
            self.positions = CyclicPositions(cfg.encoder_dim)
        elif cfg.encoder_positions == "fading":
            self.positions = FadingPositions(cfg.encoder_dim, cfg.encoder_fade_updates)
        self.dropout = nn.Dropout(cfg.dropout)
        self.emformer = Emformer(
            cfg.encoder_dim,
            cfg.encoder_layers,
            cfg.encoder_heads,
            cfg.encoder_ffn_dim,
            left_context=cfg.left_context_frames,
            memory_slots=cfg.memory_slots,
            memory_block=cfg.memory_block_frames,
            dropout=cfg.dropout,
            layer_drop=cfg.encoder_layer_drop,
            conv_kernel=cfg.encoder_conv_kernel,
            activation=str(cfg.encoder_activation),
            rotary=cfg.encoder_positions == "rotary",
            closing_norm=cfg.encoder_norm == "closing",
            final_norm=cfg.encoder_norm == "final",
            relative=cfg.encoder_positions in ("relative", "fading"),
        )
        self.join = nn.Linear(self.stack * cfg.encoder_dim, cfg.encoder_dim) if self.stack > 1 else None
        if self.join is not None:  # it starts as the mean of the frames, which keeps what pretrained layers say
            with torch.no_grad():
                self.join.weight.copy_(torch.eye(cfg.encoder_dim).repeat(1, self.stack) / self.stack)
                self.join.bias.zero_()

    def init_state(self, batch_size: int = 1) -> SpeechEncoderState:
        return SpeechEncoderState(self.subsampler.init_state(batch_size), self.emformer.init_state(batch_size))

    def missing_features(self, segment: int, right_context: int, state: SpeechEncoderState) -> int:
        """Features that have to come until the next segment can be encoded; both sizes in frames that come out."""
        wanted = self.stack * (segment + right_context)
        return self.subsampler.missing_features(max(1, wanted - state.emformer.pending.size(1)), state.subsampler)

    def forward(
        self,
        features: Tensor,
        lengths: Tensor | None = None,
        state: SpeechEncoderState | None = None,
        *,
        segment: int = 0,
        right_context: int | None = None,
        is_last: bool = True,
        layer_outputs: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, SpeechEncoderState | None]:
        """Encode whole utterances or the next piece of a stream.

        Args:
            features: ``(B, T, 80)`` @100 Hz; with the front end ``fbank``, ``T`` is a multiple of 4 unless ``is_last``.
            lengths: ``(B,)`` valid features of the last piece; None if all are.
            state: of the pieces before; None at the start.
            segment: encoder segment in frames of ``frame_ms``; 0: the whole utterance.
            right_context: likewise; None takes the configured one.
            is_last: the input ends here.
            layer_outputs: a list to which the frames after each layer are appended, ``(B, n', D)``.

        Returns:
            ``(B, n, D)``, lengths ``(B,)``, next state (None after the last piece).
        """
        if state is None and not is_last:
            state = self.init_state(features.size(0))
        frames, frame_lengths, subsampler_state = self.subsampler(
            features, lengths, state.subsampler if state is not None else None, is_last
        )
        frames = self.frame_scale * frames
        if self.positions is not None:
            before = None
            if state is not None:
                before = state.emformer.position + state.emformer.pending.size(1)
            frames = self.positions(frames, before)
        out, out_lengths, emformer_state = self.emformer(
            self.dropout(frames),
            frame_lengths if is_last else None,
            state.emformer if state is not None else None,
            segment=self.stack * segment,
            right_context=self.stack * (self.right_context if right_context is None else right_context),
            is_last=is_last,
            layer_outputs=layer_outputs,
        )
        if self.join is not None:
            # Only the end of the input leaves an incomplete stack; zeros fill it.
            out = nn.functional.pad(out, (0, 0, 0, -out.size(1) % self.stack)).unflatten(1, (-1, self.stack))
            out, out_lengths = self.join(out.flatten(2)), -(-out_lengths // self.stack)
        if emformer_state is None:
            return out, out_lengths, None
        return out, out_lengths, SpeechEncoderState(subsampler_state, emformer_state)
