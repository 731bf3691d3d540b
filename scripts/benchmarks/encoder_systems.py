"""The two systems of the encoder benchmark, from samples to the classes of both CTC heads.

Ours carries state; the other is fairseq's Conformer encoder at the same size, used as StreamSpeech uses it (Zhang et
al. 2024): whenever a chunk has arrived, everything from the features of the first sample on is computed again.
"""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass

import numpy as np
import torch
from fairseq.models.speech_to_text.s2t_conformer import S2TConformerEncoder
from torch import Tensor, nn

from echostream.models.config import EchoStreamConfig
from echostream.models.ctc_decoder import CTCDecoder, ctc_head
from echostream.models.speech_encoder import EchoStreamSpeechEncoder, SpeechEncoderState
from echostream.modules.fbank import NUM_MELS, SHIFT_SAMPLES, WINDOW_SAMPLES, FbankState, OnlineFbank
from echostream.modules.state import State
from echostream.modules.subsampling import STRIDE
from echostream.modules.transformer import TransformerState

Classes = tuple[list[int], list[int]]


def _heads(cfg: EchoStreamConfig, vocab: int) -> tuple[CTCDecoder, CTCDecoder]:
    return ctc_head(cfg, vocab, 0), ctc_head(cfg, vocab, cfg.st_layers)


@dataclass
class EncoderStream(State):
    """State of every stage."""

    fbank: FbankState
    encoder: SpeechEncoderState
    st: TransformerState | None


class StreamingEncoder(nn.Module):
    """Features, Emformer encoder and CTC heads, stepped as ``StreamingTranslator`` steps them.

    Args:
        cfg: sizes.
        vocab: classes of both heads.
        segment: in 40 ms frames; may be changed between streams.
    """

    def __init__(self, cfg: EchoStreamConfig, vocab: int, segment: int = 8) -> None:
        super().__init__()
        self.segment, self.right_context = segment, cfg.right_context_frames
        self.fbank = OnlineFbank()
        self.encoder = EchoStreamSpeechEncoder(cfg)
        self.asr_head, self.st_head = _heads(cfg, vocab)

    def init_state(self) -> EncoderStream:
        return EncoderStream(self.fbank.init_state(), self.encoder.init_state(), self.st_head.init_state())

    def next_samples(self, state: EncoderStream) -> int:
        """Samples that complete the next segment and its right context."""
        frames = self.segment + self.right_context - state.encoder.emformer.pending.size(1)
        return WINDOW_SAMPLES + (STRIDE * frames - 1) * SHIFT_SAMPLES - state.fbank.leftover.size(0)

    @torch.inference_mode()
    def step(self, samples: np.ndarray, state: EncoderStream, is_last: bool = False) -> Classes:
        """Classes of the frames that the new samples ``(n,)`` complete, of the source and of the target head."""
        features, state.fbank = self.fbank(torch.from_numpy(samples), state.fbank)
        frames, _, encoder = self.encoder(
            features[None],
            state=state.encoder,
            segment=self.segment,
            right_context=self.right_context,
            is_last=is_last,
        )
        source = self.asr_head(frames)[0].argmax(dim=-1).tolist()[0]
        logits, st = self.st_head(frames, state.st)
        if encoder is not None:
            state.encoder, state.st = encoder, st
        return source, logits.argmax(dim=-1).tolist()[0]

    def forward(self, features: Tensor, lengths: Tensor, segment: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Training: ``(B, T, 80)`` to both heads' logits ``(B, T', vocab)`` and lengths ``(B,)``."""
        frames, lengths, _ = self.encoder(features, lengths, segment=segment)
        return self.asr_head(frames)[0], self.st_head(frames)[0], lengths


class ReencodingConformer(nn.Module):
    """fairseq's Conformer encoder with relative positions and the same CTC heads, always over the whole prefix.

    StreamSpeech's encoder differs from it in its chunk mask only, which costs the same: masked scores are computed.
    """

    def __init__(self, cfg: EchoStreamConfig, vocab: int) -> None:
        super().__init__()
        self.fbank = OnlineFbank()
        self.encoder = S2TConformerEncoder(
            Namespace(
                encoder_freezing_updates=0,
                no_scale_embedding=False,
                conv_version="s2t_transformer",
                conv_channels=cfg.subsampler_hidden_dim,
                conv_kernel_sizes="5,5",
                input_feat_per_channel=NUM_MELS,
                input_channels=1,
                max_source_positions=6000,
                pos_enc_type="rel_pos",
                attn_type="espnet",
                encoder_embed_dim=cfg.encoder_dim,
                encoder_ffn_embed_dim=cfg.encoder_ffn_dim,
                encoder_attention_heads=cfg.encoder_heads,
                encoder_layers=cfg.encoder_layers,
                depthwise_conv_kernel_size=31,
                dropout=cfg.dropout,
                fp16=False,
            )
        )
        self.asr_head, self.st_head = _heads(cfg, vocab)

    @torch.inference_mode()
    def run(self, samples: np.ndarray) -> Classes:
        """Classes of all frames of a prefix ``(n,)``, from nothing."""
        features, _ = self.fbank(torch.from_numpy(samples))
        source, target, _ = self(features[None], torch.tensor([features.size(0)]))
        return source.argmax(dim=-1).tolist()[0], target.argmax(dim=-1).tolist()[0]

    def forward(self, features: Tensor, lengths: Tensor, segment: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """As ours; ``segment`` has no influence on the cost and is ignored."""
        out = self.encoder(features, lengths)
        frames = out["encoder_out"][0].transpose(0, 1)  # (B, T', D)
        padding = out["encoder_padding_mask"]
        lengths = (~padding[0]).sum(1) if padding else torch.full((len(frames),), frames.size(1))
        return self.asr_head(frames)[0], self.st_head(frames)[0], lengths


def build_streaming(cfg: EchoStreamConfig, vocab: int, seed: int = 0) -> StreamingEncoder:
    """Ours with random weights, ready to be stepped."""
    torch.manual_seed(seed)
    return StreamingEncoder(cfg, vocab).eval()


def build_reencoding(cfg: EchoStreamConfig, vocab: int, seed: int = 0) -> ReencodingConformer:
    """The Conformer with random weights."""
    torch.manual_seed(seed)
    return ReencodingConformer(cfg, vocab).eval()
