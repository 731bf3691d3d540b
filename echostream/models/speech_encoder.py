"""Speech encoder: normalised log-mel features to frames @25 Hz, in constant work per segment."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from echostream.models.config import EchoStreamConfig
from echostream.modules.emformer import Emformer, EmformerState
from echostream.modules.fbank import NUM_MELS
from echostream.modules.state import BatchedState
from echostream.modules.subsampling import ConvSubsampler, SubsamplerState


@dataclass
class SpeechEncoderState(BatchedState):
    """States of the two stages."""

    subsampler: SubsamplerState
    emformer: EmformerState


class EchoStreamSpeechEncoder(nn.Module):
    """Causal 4x subsampler and Emformer (Shi et al. 2021)."""

    def __init__(self, cfg: EchoStreamConfig) -> None:
        super().__init__()
        self.right_context = cfg.right_context_frames
        # As in fairseq's speech encoders. Without it, frames start at a tenth of the size of what each layer adds to
        # them, and what was heard drowns: the CTC heads then learn little more than how frequent the pieces are.
        self.frame_scale = math.sqrt(cfg.encoder_dim)
        self.subsampler = ConvSubsampler(NUM_MELS, cfg.subsampler_hidden_dim, cfg.encoder_dim, cfg.subsampler_kernel)
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
        )

    def init_state(self, batch_size: int = 1) -> SpeechEncoderState:
        return SpeechEncoderState(self.subsampler.init_state(batch_size), self.emformer.init_state(batch_size))

    def forward(
        self,
        features: Tensor,
        lengths: Tensor | None = None,
        state: SpeechEncoderState | None = None,
        *,
        segment: int = 0,
        right_context: int | None = None,
        is_last: bool = True,
    ) -> tuple[Tensor, Tensor, SpeechEncoderState | None]:
        """Encode whole utterances or the next piece of a stream.

        Args:
            features: ``(B, T, 80)`` @100 Hz; ``T`` a multiple of 4 unless ``is_last``.
            lengths: ``(B,)`` valid features of the last piece; None if all are.
            state: of the pieces before; None at the start.
            segment: encoder segment in 40 ms frames; 0: the whole utterance.
            right_context: in 40 ms frames; None takes the configured one.
            is_last: the input ends here.

        Returns:
            ``(B, n, D)`` @25 Hz, lengths ``(B,)``, next state (None after the last piece).
        """
        if state is None and not is_last:
            state = self.init_state(features.size(0))
        frames, frame_lengths, subsampler_state = self.subsampler(
            features, lengths, state.subsampler if state is not None else None, is_last
        )
        out, out_lengths, emformer_state = self.emformer(
            self.dropout(self.frame_scale * frames),
            frame_lengths if is_last else None,
            state.emformer if state is not None else None,
            segment=segment,
            right_context=self.right_context if right_context is None else right_context,
            is_last=is_last,
        )
        if emformer_state is None:
            return out, out_lengths, None
        return out, out_lengths, SpeechEncoderState(subsampler_state, emformer_state)
