"""Causal transformer with a sliding window, used by everything after the encoder.

The ST-CTC head (a block is a frame), the MT decoder (a block is a token, with cross-attention) and the unit decoder (a
block is the positions of a word) all use it. Positions are rotary, so that a stream may have any length while the
cached window keeps its size; a stack whose input already says where it stands goes without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from echostream.modules.activations import find_activation
from echostream.modules.masks import windowed_block_mask
from echostream.modules.module_list import TypedModuleList
from echostream.modules.rotary import rotary_angles, rotate
from echostream.modules.state import BatchedState


@dataclass
class TransformerState(BatchedState):
    """Rotated keys and values of the last positions of every layer, oldest first: at most ``window`` of them.

    Most sentences are shorter than the window, so that room is taken for the positions that there have been. Streams
    that share a pass may have had different numbers of them; zeros fill up the shorter ones, and masks hide the zeros.
    A state is never changed in place, so going back to an earlier state truncates the stream exactly.
    """

    position: Tensor  # (B,) int64: positions so far
    past: Tensor  # (B, layers, n, 2, H, head_dim), n the most that any of the streams has

    @classmethod
    def stack(cls, states: Sequence[Self]) -> Self:
        longest = max(state.past.size(2) for state in states)
        past = torch.cat([behind_zeros(state.past, longest) for state in states])
        return cls(torch.cat([state.position for state in states]), past)

    def split(self, sizes: Sequence[int] | None = None) -> list[Self]:
        size = self.past.size(2)
        sizes = [1] * len(self.position) if sizes is None else list(sizes)
        places = [max(rows) for rows in _cut(self.position.tolist(), sizes)]
        parts = zip(places, self.position.split(sizes), self.past.split(sizes), strict=True)
        return [type(self)(rows.clone(), past[:, :, max(0, size - place) :].clone()) for place, rows, past in parts]


def _cut(values: Sequence[int], sizes: Sequence[int]) -> list[Sequence[int]]:
    ends = list(accumulate(sizes, initial=0))
    return [values[start:end] for start, end in pairwise(ends)]


def _without_padding(window: Tensor, padded: Sequence[int]) -> Tensor:
    """Keys and values ``(B, layers, n, ...)`` whose last ``padded`` positions, of each row, go round to its front."""
    return torch.stack([row.roll(count, dims=1) for row, count in zip(window, padded, strict=True)])


def behind_zeros(past: Tensor, size: int) -> Tensor:
    """Keys and values ``(B, layers, n, ...)`` with zeros before them, ``(B, layers, size, ...)``."""
    missing = size - past.size(2)
    if not missing:
        return past
    return torch.cat([past.new_zeros(*past.shape[:2], missing, *past.shape[3:]), past], dim=2)


class CrossAttention(nn.Module):
    """Multi-head attention from decoder positions to encoder frames.

    Keys and values are linear in the frames, so their projections can be moved to the query side: instead of
    projecting every frame in every layer, a query is mapped into the space of the frames. Both orders compute the same
    product, and ``forward`` takes the cheaper one. In a stream, where one token at a time attends to a window of
    frames, that is the query side; only the frames themselves are cached then, once for all layers.

    The projection of the keys has no bias: it would add the same to all scores of a query and cancel in the softmax. A
    parameter that never gets a gradient stops distributed training. Weights saved with such a bias load without it.
    (In self-attention the keys are rotated after their bias is added, so that it does not cancel.)
    """

    def __init__(self, dim: int, memory_dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.head_dim, self.memory_dim = heads, dim // heads, memory_dim
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(memory_dim, dim)
        self.key.register_parameter("bias", None)  # drawn and dropped: a seed gives the weights that it always gave
        self.value = nn.Linear(memory_dim, dim)
        self.out = nn.Linear(dim, dim)
        self.dropout = dropout

    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        mask: Tensor | None,
        shared: Tensor | None = None,
        weights: list[Tensor] | None = None,
    ) -> Tensor:
        """Attend from ``(B, N, dim)`` to ``(B, T, memory_dim)`` and to ``(P, memory_dim)``, the same for all rows.

        Args:
            x: decoder positions.
            memory: encoder frames.
            mask: ``(B, N, T + P)`` bool, True where visible; None if all is visible.
            shared: frames behind those of every row; None: there are none, ``P`` is 0.
            weights: a list to which each head's attention is appended, ``(B, H, N, T + P)``.
        """
        query = self.query(x).unflatten(-1, (self.heads, self.head_dim))  # (B, N, H, hd)
        mask = None if mask is None else mask[:, None]
        b, n, t = x.size(0), x.size(1), memory.size(1)
        if shared is None:
            shared = memory.new_zeros(0, self.memory_dim)
        p = len(shared)
        # Compare multiplications per head: mapping N queries and N results against projecting keys and values.
        projecting = b * t * (self.memory_dim + n) + p * (self.memory_dim + b * n)
        if b * n * (t + p + self.head_dim) * self.memory_dim < projecting * self.head_dim:
            # A head's weights serve all rows in one product, and a row's frames all heads. Products that broadcast
            # would copy the weights for every row and the frames for every head.
            weight = self.key.weight.unflatten(0, (self.heads, self.head_dim))  # (H, hd, memory_dim)
            mapped = query.flatten(0, 1).transpose(0, 1) @ weight  # (H, B * N, memory_dim)
            mapped = mapped.unflatten(1, (-1, n)).transpose(0, 1).flatten(1, 2)  # (B, H * N, memory_dim)
            scores = torch.cat([mapped @ memory.transpose(1, 2), linear(mapped, shared)], dim=-1)
            scores = scores.unflatten(1, (-1, n)) * self.head_dim**-0.5  # (B, H, N, T + P)
            if mask is not None:
                scores = scores.masked_fill(~mask, float("-inf"))
            attention = scores.softmax(dim=-1)
            if weights is not None:
                weights.append(attention)
            attention = nn.functional.dropout(attention, self.dropout, self.training)
            own, common = attention.flatten(1, 2).split([t, p], dim=-1)
            context = (own @ memory + common @ shared).unflatten(1, (-1, n))  # (B, H, N, memory_dim)
            weight = self.value.weight.unflatten(0, (self.heads, self.head_dim))
            out = context.transpose(0, 1).flatten(1, 2) @ weight.transpose(1, 2)  # (H, B * N, hd)
            out = out.unflatten(1, (-1, n)).transpose(0, 1)  # (B, H, N, hd)
            # With dropout the attention weights don't sum to one; the other order scales the value bias by their sum.
            out = out + attention.sum(-1, keepdim=True) * self.value.bias.unflatten(0, (self.heads, 1, self.head_dim))
        else:
            key, value = (
                torch.cat([projection(memory), projection(shared).expand(b, -1, -1)], dim=1)
                .unflatten(-1, (self.heads, self.head_dim))
                .transpose(1, 2)
                for projection in (self.key, self.value)
            )
            if weights is not None:
                scores = query.transpose(1, 2) @ key.transpose(2, 3) * self.head_dim**-0.5
                weights.append((scores if mask is None else scores.masked_fill(~mask, float("-inf"))).softmax(dim=-1))
            dropout = self.dropout if self.training else 0.0
            out = scaled_dot_product_attention(query.transpose(1, 2), key, value, attn_mask=mask, dropout_p=dropout)
        return self.out(out.transpose(1, 2).flatten(2))


class TransformerLayer(nn.Module):
    """Pre-norm self-attention, optional cross-attention and feed-forward."""

    def __init__(
        self, dim: int, heads: int, ffn_dim: int, dropout: float, memory_dim: int | None, activation: str
    ) -> None:
        super().__init__()
        self.heads = heads
        self.activation = find_activation(activation)
        self.norm_attention = nn.LayerNorm(dim)
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.attention_out = nn.Linear(dim, dim)
        self.cross_attention = None
        if memory_dim is not None:
            self.norm_cross = nn.LayerNorm(dim)
            self.cross_attention = CrossAttention(dim, memory_dim, heads, dropout)
        self.norm_ffn = nn.LayerNorm(dim)
        self.ffn_in = nn.Linear(dim, ffn_dim)
        self.ffn_out = nn.Linear(ffn_dim, dim)
        self.dropout = nn.Dropout(dropout)
        self.attention_dropout = dropout

    def forward(
        self,
        x: Tensor,
        angles: tuple[Tensor, Tensor] | None,
        mask: Tensor,
        past: Tensor | None,
        memory: Tensor | None,
        memory_mask: Tensor | None,
        shared_memory: Tensor | None = None,
        memory_weights: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Output ``(B, N, dim)`` and the new keys and values ``(B, N, 2, H, hd)``."""
        qkv = self.query_key_value(self.norm_attention(x)).unflatten(-1, (3 * self.heads, -1))
        query_key, value = qkv.split([2 * self.heads, self.heads], dim=2)
        if angles is not None:
            query_key = rotate(query_key, angles)
        query, key = query_key.chunk(2, dim=2)
        key_value = torch.stack([key, value], dim=2)
        keys, values = (key_value if past is None else torch.cat([past, key_value], dim=1)).unbind(2)
        out = scaled_dot_product_attention(
            query.transpose(1, 2),
            keys.transpose(1, 2),
            values.transpose(1, 2),
            attn_mask=mask,
            dropout_p=self.attention_dropout if self.training else 0.0,
        )
        x = x + self.dropout(self.attention_out(out.transpose(1, 2).flatten(2)))
        if self.cross_attention is not None:
            attended = self.cross_attention(self.norm_cross(x), memory, memory_mask, shared_memory, memory_weights)
            x = x + self.dropout(attended)
        hidden = self.dropout(self.activation(self.ffn_in(self.norm_ffn(x))))
        return x + self.dropout(self.ffn_out(hidden)), key_value


class CausalTransformer(nn.Module):
    """A stack of layers with a final norm.

    Args:
        dim, layers, heads, ffn_dim: sizes; ``dim / heads`` must be even.
        window: number of positions before its block that a position attends to.
        dropout: on sub-layer outputs, hidden activations and attention weights.
        memory_dim: size of the encoder frames for cross-attention; None for no cross-attention.
        activation: of the feed-forward network, see :func:`find_activation`.
        rotary: turn queries and keys by their positions; False: the input says where it stands.
    """

    def __init__(
        self,
        dim: int,
        layers: int,
        heads: int,
        ffn_dim: int,
        window: int,
        dropout: float = 0.1,
        memory_dim: int | None = None,
        activation: str = "relu",
        rotary: bool = True,
    ) -> None:
        super().__init__()
        if dim % (2 * heads):
            raise ValueError(f"transformer dim {dim} must be a multiple of twice the {heads} heads")
        self.dim, self.heads, self.window, self.rotary = dim, heads, window, rotary
        self.layers: TypedModuleList[TransformerLayer] = TypedModuleList(
            TransformerLayer(dim, heads, ffn_dim, dropout, memory_dim, activation) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim)

    def init_state(self, batch_size: int = 1) -> TransformerState:
        like = self.norm.weight
        shape = (batch_size, len(self.layers), 0, 2, self.heads, self.dim // self.heads)
        return TransformerState(
            position=torch.zeros(batch_size, dtype=torch.int64, device=like.device),
            past=like.new_zeros(shape),
        )

    def full_state(self) -> TransformerState:
        """The largest state that a stream can have."""
        empty = self.init_state()
        return TransformerState(empty.position, behind_zeros(empty.past, self.window))

    def forward(
        self,
        x: Tensor,
        state: TransformerState | None = None,
        *,
        block_ids: Tensor | None = None,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
        shared_memory: Tensor | None = None,
        need_state: bool = False,
        lengths: Sequence[int] | None = None,
        memory_weights: list[Tensor] | None = None,
    ) -> tuple[Tensor, TransformerState | None]:
        """Process whole sequences (``state`` None) or the next positions of a stream.

        The content of padding at the end of a sequence does not matter: no earlier position sees it.

        Args:
            x: ``(B, N, dim)``.
            state: state after the previous positions.
            block_ids: ``(B, N)`` non-decreasing ids; positions with equal ids see each other. A block must be complete
                within one call. None: every position is a block of its own.
            memory: ``(B, T, memory_dim)`` encoder frames for cross-attention.
            memory_mask: ``(B, N, T + P)`` bool, True where visible; None if all frames are visible.
            shared_memory: ``(P, memory_dim)`` frames behind those of every row; None: there are none.
            need_state: return the state for the next positions (implied by ``state``).
            lengths: how many of the ``N`` positions each row has; the state remembers nothing of those behind them.
                None: all.
            memory_weights: a list to which each layer's attention to the memory is appended, ``(B, H, N, T + P)``.

        Returns:
            ``(B, N, dim)`` after the final norm, and the next state or None.
        """
        batch, n, _ = x.shape
        if state is None and need_state:
            state = self.init_state(batch)
        past = state.position if state is not None else torch.zeros(batch, dtype=torch.int64, device=x.device)
        cached = self.window if state is not None else 0
        mask = windowed_block_mask(past, cached, n, self.window, block_ids)
        positions = past[:, None] + torch.arange(n, device=x.device)
        angles = rotary_angles(positions, self.dim // self.heads, x.dtype) if self.rotary else None
        # Whatever the state has room for, attention is over the whole window: its kernels round alike in every step.
        whole = behind_zeros(state.past, self.window) if state is not None else None
        key_values = []
        for i, layer in enumerate(self.layers):
            layer_past = whole[:, i] if whole is not None else None
            x, key_value = layer(x, angles, mask, layer_past, memory, memory_mask, shared_memory, memory_weights)
            key_values.append(key_value)
        x = self.norm(x)
        if state is None:
            return x, None
        window = state.past
        if key_values:
            window = torch.cat([window, torch.stack(key_values, dim=1)], dim=2)
        position = past + n
        if lengths is not None:
            position = past + torch.tensor(lengths, device=past.device)
            # What goes round to the front is older than the row's first position, which masks hide, or than the
            # window, which is cut off here.
            window = _without_padding(window, [n - length for length in lengths]) if key_values else window
        surplus = window.size(2) - self.window
        return x, TransformerState(position, past=window[:, :, surplus:].clone() if surplus > 0 else window)
