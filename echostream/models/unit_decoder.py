"""Non-autoregressive unit decoder: text states to discrete speech units through CTC.

Each subword is spread over ``upsample`` positions and each position answers ``frames_per_position`` CTC frames, as in
StreamSpeech's text-to-unit module (Zhang et al. 2024, section 3.1), whose shape (2 + 2 layers, 25 positions, 1 frame)
is one configuration; 6 layers with 5 positions of 5 frames do the same for a fifth of the attention. The positions of
a word see each other and the words before: speech of a word starts when the word is committed and never changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from echostream.modules.state import BatchedState
from echostream.modules.transformer import CausalTransformer, TransformerState


@dataclass
class UnitDecoderState(BatchedState):
    """Past of the layers before and after upsampling."""

    text: TransformerState
    unit: TransformerState


class CTCTransformerUnitDecoder(nn.Module):
    """Text states ``(B, N, text_dim)`` to unit scores ``(B, N * upsample * frames_per_position, units + 1)``.

    Args:
        num_units: size of the unit inventory; CTC class 0 is blank, class ``u + 1`` is unit ``u``.
        text_dim: size of the MT decoder's states.
        dim, heads, ffn_dim, dropout: of both stacks.
        text_layers: layers before upsampling (StreamSpeech's T2U encoder), may be 0.
        layers: layers after upsampling.
        upsample: positions a subword.
        frames_per_position: CTC frames a position.
        window_tokens: earlier subwords that a word attends to.
    """

    def __init__(
        self,
        num_units: int,
        text_dim: int,
        dim: int,
        text_layers: int,
        layers: int,
        heads: int,
        ffn_dim: int,
        upsample: int,
        frames_per_position: int,
        window_tokens: int,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.num_units, self.upsample, self.frames_per_position = num_units, upsample, frames_per_position
        self.project = nn.Linear(text_dim, dim)
        self.text_stack = CausalTransformer(dim, text_layers, heads, ffn_dim, window_tokens, dropout)
        self.slot = nn.Parameter(torch.randn(upsample, dim) * dim**-0.5)
        self.unit_stack = CausalTransformer(dim, layers, heads, ffn_dim, window_tokens * upsample, dropout)
        self.output = nn.Linear(dim, frames_per_position * (num_units + 1))
        self.dropout = nn.Dropout(dropout)

    @property
    def frames_per_token(self) -> int:
        return self.upsample * self.frames_per_position

    def init_state(self, batch_size: int = 1) -> UnitDecoderState:
        return UnitDecoderState(self.text_stack.init_state(batch_size), self.unit_stack.init_state(batch_size))

    def forward(
        self,
        text: Tensor,
        word_ids: Tensor,
        state: UnitDecoderState | None = None,
        need_state: bool = False,
        lengths: Sequence[int] | None = None,
    ) -> tuple[Tensor, UnitDecoderState | None]:
        """Unit scores of whole words.

        Args:
            text: ``(B, N, text_dim)`` states of subwords.
            word_ids: ``(B, N)`` non-decreasing word numbers; a word must be passed whole, in one call.
            state: of the words before.
            need_state: return the next state.
            lengths: how many subwords each row has; the others, which are padding, need a ``word_ids`` of their own.
                None: all ``N``.

        Returns:
            logits ``(B, N * frames_per_token, num_units + 1)`` and the next state or None.
        """
        text_state = state.text if state is not None else None
        unit_state = state.unit if state is not None else None
        x, text_state = self.text_stack(
            self.dropout(self.project(text)), text_state, block_ids=word_ids, need_state=need_state, lengths=lengths
        )
        x = (x[:, :, None] + self.slot).flatten(1, 2)  # (B, N * upsample, dim)
        block_ids = word_ids.repeat_interleave(self.upsample, dim=1)
        positions = [self.upsample * length for length in lengths] if lengths is not None else None
        x, unit_state = self.unit_stack(
            self.dropout(x), unit_state, block_ids=block_ids, need_state=need_state, lengths=positions
        )
        logits = self.output(x).unflatten(-1, (self.frames_per_position, -1)).flatten(1, 2)
        next_state = UnitDecoderState(text_state, unit_state) if text_state is not None else None
        return logits, next_state
