"""The EchoStream model: one speech encoder, two CTC heads, MT decoder and unit decoder, trained together."""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from echostream.models.config import EchoStreamConfig, parse_heads
from echostream.models.ctc_decoder import ctc_head
from echostream.models.front_ends import find_front_end
from echostream.models.mt_decoder import TransformerMTDecoder
from echostream.models.speech_encoder import EchoStreamSpeechEncoder
from echostream.models.unit_decoder import CTCTransformerUnitDecoder

PADDING = 1  # fairseq's Dictionary: <s> 0 (the CTC blank), <pad> 1, </s> 2, <unk> 3
PARTS = ("asr", "st", "mt", "unit")  # what the model answers, and is trained on
Outputs = dict[str, Tensor]


class EchoStreamModel(nn.Module):
    """From features to units; a checkpoint holds the front-end's normalisation as well.

    :mod:`echostream.tasks.fairseq_models` registers it with fairseq.

    Args:
        cfg: sizes.
        source_vocab, target_vocab: sizes of the fairseq dictionaries of source and target text, the latter with the
            ``mt_further_tokens`` that only the MT decoder knows.
        num_units: size of the unit inventory.
    """

    def __init__(self, cfg: EchoStreamConfig, source_vocab: int, target_vocab: int, num_units: int) -> None:
        super().__init__()
        self.cfg = cfg
        # The features of the front end; checkpoints have called them so since there was one front end.
        self.fbank = find_front_end(cfg.front_end).features()
        self.encoder = EchoStreamSpeechEncoder(cfg)
        self.asr_head = ctc_head(cfg, source_vocab, cfg.asr_layers)
        if cfg.mt_further_tokens >= target_vocab:
            raise ValueError(f"mt_further_tokens is {cfg.mt_further_tokens} of {target_vocab} subwords")
        self.st_head = ctc_head(cfg, target_vocab - cfg.mt_further_tokens, cfg.st_layers)
        self.mt_decoder = TransformerMTDecoder(
            target_vocab,
            PADDING,
            cfg.encoder_dim,
            cfg.mt_dim,
            cfg.mt_layers,
            cfg.mt_heads,
            cfg.mt_ffn_dim,
            cfg.mt_window_tokens,
            cfg.mt_window_frames,
            cfg.dropout,
            cfg.mt_activation,
            cfg.mt_positions == "learned",
            cfg.mt_scale_embedding,
            cfg.mt_prompt_tokens,
            cfg.mt_places,
            cfg.mt_languages,
            parse_heads(cfg.mt_alignment_heads),
        )
        self.unit_decoder = CTCTransformerUnitDecoder(
            num_units,
            cfg.mt_dim,
            cfg.unit_dim,
            cfg.unit_text_layers,
            cfg.unit_layers,
            cfg.unit_heads,
            cfg.unit_ffn_dim,
            cfg.unit_upsample,
            cfg.unit_frames_per_position,
            cfg.unit_window_tokens,
            cfg.dropout,
        )
        if cfg.unit_normalise_text:
            # As large as the text that they are added to, so that the positions of a subword differ from the start.
            nn.init.normal_(self.unit_decoder.slot)

    @property
    def frame_ms(self) -> int:
        """Duration of an encoder frame, as the heads and decoders see it."""
        return self.encoder.frame_ms

    def encode(
        self,
        src_tokens: Tensor,
        src_lengths: Tensor,
        segment: int = 0,
        right_context: int | None = None,
        parts: Collection[str] = PARTS,
    ) -> Outputs:
        """Encoder and CTC heads over whole utterances.

        Args:
            src_tokens: ``(B, T, 80)`` normalised features @100 Hz.
            src_lengths: ``(B,)``.
            segment: encoder segment in frames; 0: the whole utterance.
            right_context: of each segment, in frames; None takes the configured one.
            parts: of which there is to be an output; ``asr`` and ``st`` are the heads.

        Returns:
            ``encoder_out (B, T', D)``, ``frame_lengths (B,)``, ``asr_logits (B, T', source vocabulary)`` and
            ``st_logits (B, T', target vocabulary)``, with a frame for each ``frame_ms``.
        """
        frames, lengths, _ = self.encoder(src_tokens, src_lengths, segment=segment, right_context=right_context)
        outputs = {"encoder_out": frames, "frame_lengths": lengths}
        if "asr" in parts:
            outputs["asr_logits"] = self.asr_head(frames)[0]
        if "st" in parts:
            outputs["st_logits"] = self.st_head(frames)[0]
        return outputs

    def decode(
        self,
        encoded: Outputs,
        prev_text_tokens: Tensor,
        target_text_tokens: Tensor,
        word_ids: Tensor,
        visible_frames: Tensor | None = None,
        parts: Collection[str] = PARTS,
    ) -> Outputs:
        """Both decoders, teacher-forced.

        Args:
            encoded: from :meth:`encode`.
            prev_text_tokens: ``(B, N)`` target shifted right.
            target_text_tokens: ``(B, N)`` target, which the unit decoder speaks.
            word_ids: ``(B, N)`` word number of each target token.
            visible_frames: ``(B, N)`` frames there when a token was written; None: all.
            parts: of which there is to be an output; ``unit`` is the unit decoder.

        Returns:
            ``mt_logits (B, N, target vocabulary)``, ``unit_logits (B, N * frames_per_token, units + 1)`` and
            ``unit_lengths (B,)``.
        """
        frames, lengths = encoded["encoder_out"], encoded["frame_lengths"]
        if visible_frames is None:
            visible_frames = lengths[:, None].expand_as(prev_text_tokens)
        memory, mask = self.mt_decoder.attended(frames, lengths, visible_frames)
        hidden, mt_logits, _ = self.mt_decoder(prev_text_tokens, memory, mask)
        outputs = {"mt_logits": mt_logits}
        if "unit" in parts:
            outputs["unit_logits"], _ = self.unit_decoder(self.text_states(hidden, target_text_tokens), word_ids)
            num_tokens = target_text_tokens.ne(PADDING).sum(dim=1)
            outputs["unit_lengths"] = num_tokens * self.unit_decoder.frames_per_token
        return outputs

    def text_states(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """What the unit decoder reads: the state that predicted a token, and the token, ``(B, N, mt_dim)``.

        With ``unit_normalise_text`` each of the two has mean 0 and variance 1 before they are added. In Whisper's
        weights the states have a norm of 210, and the scaled embeddings differ from their mean by 5: a unit decoder
        that reads the plain sum hardly sees which word it is to speak.
        """
        if not self.cfg.unit_normalise_text:
            return hidden + self.mt_decoder.embed(tokens)
        embedding = self.mt_decoder.embedding
        size = hidden.shape[-1:]
        return layer_norm(hidden, size) + layer_norm(embedding(tokens) - embedding.weight.mean(dim=0), size)

    def forward(
        self,
        src_tokens: Tensor,
        src_lengths: Tensor,
        prev_text_tokens: Tensor,
        target_text_tokens: Tensor,
        word_ids: Tensor,
        segment: int = 0,
        align: Callable[[Outputs], Tensor | None] | None = None,
        right_context: int | None = None,
        unlabelled: Tensor | None = None,
        parts: Collection[str] = PARTS,
    ) -> Outputs:
        """:meth:`encode`, then ``align(encoded)`` for the MT decoder's visible frames, then :meth:`decode`.

        Speech without transcripts, ``unlabelled (P, T, 80)``, is encoded alone. It is part of the same call because
        distributed training allows one: the output then holds ``unlabelled_layers (layers, P, T', D)``, the frames
        after each of the encoder's layers. What is not among ``parts`` is not computed, unless ``align`` needs it.
        """
        decodes = "mt" in parts or "unit" in parts
        needed = {*parts, "asr", "st"} if decodes and align is not None else parts
        # A model class of one's own need know nothing of parts where all are computed.
        only = {} if set(needed) == set(PARTS) else {"parts": needed}
        outputs = self.encode(src_tokens, src_lengths, segment, right_context, **only)
        if decodes:
            visible = align(outputs) if align is not None else None
            outputs |= self.decode(outputs, prev_text_tokens, target_text_tokens, word_ids, visible, **only)
            if visible is not None:
                outputs["visible_frames"] = visible
        if unlabelled is not None:
            layers: list[Tensor] = []
            self.encoder(unlabelled, segment=segment, right_context=right_context, layer_outputs=layers)
            outputs["unlabelled_layers"] = torch.stack(layers)
        return outputs
