"""Emformer: a streaming transformer encoder with constant work per segment (Shi et al. 2021, section 3).

Frames are processed in segments of ``C`` frames. A frame attends to

- its own segment,
- ``R`` frames of right context. Each segment has its own copies of these frames, which pass through all layers with
  the segment and are then dropped, so that the look-ahead stays ``R`` frames however many layers there are,
- ``L`` frames of left context before the segment, whose keys and values are cached,
- the last ``M`` memory slots before the left context.

A memory slot is the mean of the keys and values of a block of ``memory_block`` frames. Blocks have a fixed duration
that does not depend on the segment size, so that memory is as useful with 40 ms segments as with long ones. (The
paper's slots come from an attention summary of the layer below; averages do better in practice and cost nothing.)

``C`` and ``R`` are arguments of ``forward``: training samples a segment size for every batch, and inference chooses
one. Masks, rotary angles and distances are pure functions of positions, so the same ``forward`` handles a batch of
padded utterances and one step of a stream.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from echostream.modules.activations import find_activation
from echostream.modules.band import Band
from echostream.modules.causal_conv import CausalConv
from echostream.modules.masks import valid_positions
from echostream.modules.module_list import TypedModuleList
from echostream.modules.relative_bias import RelativeBias
from echostream.modules.rotary import rotary_angles, rotate
from echostream.modules.segment_layout import Layout
from echostream.modules.state import BatchedState


@dataclass
class EmformerState(BatchedState):
    """Cached keys, values and inputs of a stream; all sizes but that of ``pending`` are constant.

    Keys are stored rotated to their absolute position, except in ``open_block``: a block is rotated to its centre once
    it is complete.
    """

    position: Tensor  # (B,) int64: frames encoded so far
    pending: Tensor  # (B, p, D): frames whose segment or right context is not complete yet
    left: Tensor  # (B, layers, L, 2, H, head_dim): keys and values of the left context, oldest first
    memory: Tensor  # (B, layers, slots, 2, H, head_dim): ring buffer of complete blocks, block b in slot b % slots
    open_block: Tensor  # (B, layers, 2, H, head_dim): sums over the incomplete block; no layers without a memory
    conv: Tensor  # (B, layers, conv_kernel - 1, D): left context of each causal convolution


class EmformerLayer(nn.Module):
    """Pre-norm attention, optional convolution, feed-forward and a closing norm, as in the paper's figure 1.

    Without the closing norm it is the layer of Whisper and most later transformers.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        ffn_dim: int,
        dropout: float,
        conv_kernel: int,
        activation: str,
        closing_norm: bool,
        relative: bool,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.relative_bias = RelativeBias(heads) if relative else None
        self.norm_attention = nn.LayerNorm(dim)
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.attention_out = nn.Linear(dim, dim)
        self.convolution = CausalConv(dim, conv_kernel) if conv_kernel else None
        self.norm_ffn = nn.LayerNorm(dim)
        self.ffn_in = nn.Linear(dim, ffn_dim)
        self.ffn_out = nn.Linear(ffn_dim, dim)
        self.norm_out = nn.LayerNorm(dim) if closing_norm else nn.Identity()
        self.activation = find_activation(activation)
        self.dropout = nn.Dropout(dropout)
        self.attention_dropout = dropout

    def project(self, x: Tensor, angles: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, Tensor]:
        """Project ``(B, Q, D)`` to queries, keys and values.

        Args:
            x: layer input.
            angles: rotary angles of its positions; None leaves queries and keys unrotated.

        Returns:
            Queries ``(B, Q, H, hd)``, rotated keys with values ``(B, Q, 2, H, hd)``, and unrotated keys with values
            ``(B, Q, 2, H, hd)``.
        """
        qkv = self.query_key_value(self.norm_attention(x)).unflatten(-1, (3, self.heads, -1))
        if angles is None:
            return qkv[:, :, 0], qkv[:, :, 1:], qkv[:, :, 1:]
        rotated = rotate(qkv[:, :, :2].flatten(2, 3), angles).unflatten(2, (2, self.heads))
        return rotated[:, :, 0], torch.stack([rotated[:, :, 1], qkv[:, :, 2]], dim=2), qkv[:, :, 1:]

    def attend(self, query: Tensor, key_value: Tensor, mask: Tensor, distance: Tensor | None) -> Tensor:
        """Attention of ``(B, Q, H, hd)`` to keys and values ``(B, K, 2, H, hd)`` under the mask ``(B, 1, Q, K)``.

        ``distance (B or 1, Q, K)`` in frames, from keys to queries, is for layers with a relative bias.
        """
        key, value = key_value.unbind(2)
        if self.relative_bias is not None and distance is not None:
            mask = self.relative_bias(distance, mask).to(query.dtype)
        out = scaled_dot_product_attention(
            query.transpose(1, 2),
            key.transpose(1, 2),
            value.transpose(1, 2),
            attn_mask=mask,
            dropout_p=self.attention_dropout if self.training else 0.0,
        )
        return self.attention_out(out.transpose(1, 2).flatten(2))

    def feed_forward(self, x: Tensor) -> Tensor:
        hidden = self.dropout(self.activation(self.ffn_in(self.norm_ffn(x))))
        return self.norm_out(x + self.dropout(self.ffn_out(hidden)))


class Emformer(nn.Module):
    """A stack of Emformer layers over frames of any length.

    Args:
        dim: frame size ``D``.
        layers: number of layers.
        heads: attention heads; ``dim / heads`` must be even.
        ffn_dim: hidden size of the feed-forward network.
        left_context: ``L`` in frames.
        memory_slots: ``M``; 0 disables the memory bank.
        memory_block: frames averaged into one slot.
        dropout: on sub-layer outputs, hidden activations and attention weights.
        layer_drop: probability of skipping a layer in training (Fan et al. 2020); not in a stream.
        conv_kernel: kernel size of the causal convolution in each layer, in frames; 0 for no convolution.
        activation: of the feed-forward network: ``relu``, ``gelu`` or ``silu``.
        rotary: use rotary positions; without them, and without positions in the frames themselves, attention cannot
            tell the order of the frames in a segment.
        relative: add a learned bias to the scores that depends on the distance of two frames.
        closing_norm: whether each layer ends with a norm, as in the paper.
        final_norm: whether the last layer's output is normalised, as where layers have no closing norm.
    """

    def __init__(
        self,
        dim: int,
        layers: int,
        heads: int,
        ffn_dim: int,
        left_context: int = 48,
        memory_slots: int = 16,
        memory_block: int = 16,
        dropout: float = 0.1,
        layer_drop: float = 0.0,
        conv_kernel: int = 0,
        activation: str = "silu",
        rotary: bool = True,
        closing_norm: bool = True,
        final_norm: bool = False,
        relative: bool = False,
    ) -> None:
        super().__init__()
        if dim % (2 * heads):
            raise ValueError(f"encoder dim {dim} must be a multiple of twice the {heads} heads")
        if left_context < 0 or memory_slots < 0 or memory_block < 1:
            raise ValueError("left_context and memory_slots must be >= 0, memory_block >= 1")
        self.dim, self.heads, self.left_context = dim, heads, left_context
        self.memory_slots, self.memory_block = memory_slots, memory_block
        self.layer_drop, self.conv_kernel = layer_drop, conv_kernel
        self.rotary, self.relative = rotary, relative
        # A complete block becomes visible only when the left context has moved past it; until then it needs a slot too.
        self.ring_slots = memory_slots + -(-left_context // memory_block) if memory_slots else 0
        self.layers: TypedModuleList[EmformerLayer] = TypedModuleList(
            EmformerLayer(dim, heads, ffn_dim, dropout, conv_kernel, activation, closing_norm, relative)
            for _ in range(layers)
        )
        self.norm_final = nn.LayerNorm(dim) if final_norm else nn.Identity()

    def init_state(self, batch_size: int = 1) -> EmformerState:
        """Empty state: zeros, which the masks hide from every query because nothing precedes position 0."""
        like = self.layers.item(0).norm_attention.weight
        shape = (batch_size, len(self.layers))
        head = (2, self.heads, self.dim // self.heads)
        return EmformerState(
            position=torch.zeros(batch_size, dtype=torch.int64, device=like.device),
            pending=like.new_zeros(batch_size, 0, self.dim),
            left=like.new_zeros(*shape, self.left_context, *head),
            memory=like.new_zeros(*shape, self.ring_slots, *head),
            open_block=like.new_zeros(batch_size, len(self.layers) if self.memory_slots else 0, *head),
            conv=like.new_zeros(*shape, max(0, self.conv_kernel - 1), self.dim),
        )

    def forward(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        state: EmformerState | None = None,
        *,
        segment: int = 0,
        right_context: int = 1,
        is_last: bool = True,
        layer_outputs: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, EmformerState | None]:
        """Encode whole utterances (``state`` None, ``is_last``) or the next chunk of a stream.

        Args:
            x: ``(B, T, D)`` frames, ``T >= 0``.
            lengths: ``(B,)`` valid frames of ``x``; None if all are valid. Only the last chunk may be padded; the
                content of the padding is ignored.
            state: state after the previous chunk; None at the start.
            segment: ``C`` in frames; 0: everything up to the end of the input is one segment.
            right_context: ``R`` in frames.
            is_last: the input ends here; the last segment may then be shorter and has no right context.
            layer_outputs: a list to which the frames after each layer are appended, ``(B, n, D)``, padding included.

        Returns:
            ``(B, n, D)`` frames, their lengths ``(B,)``, and the next state (None after the last chunk). Before the
            last chunk ``n`` is the largest multiple of ``C`` whose right context has arrived.

        Raises:
            ValueError: a negative ``segment`` or ``right_context``, or padding before the last chunk.
        """
        if segment < 0 or right_context < 0:
            raise ValueError(f"segment {segment} and right_context {right_context} must not be negative")
        if lengths is not None and not is_last:
            raise ValueError("lengths are for the last piece only: a stream that goes on has no padding")
        if state is None and not is_last:
            state = self.init_state(x.size(0))
        if lengths is not None:
            x = x.masked_fill(~valid_positions(lengths, x.size(1))[..., None], 0.0)
        num_pending = 0
        if state is not None:
            num_pending = state.pending.size(1)
            x = torch.cat([state.pending, x], dim=1)
        total = x.size(1)
        ready = max(0, (total - right_context) // segment * segment) if segment else 0
        num_frames = total if is_last else ready
        lengths = torch.full((x.size(0),), total, device=x.device) if lengths is None else lengths + num_pending
        if num_frames == 0:
            if state is not None and not is_last:
                state = EmformerState(state.position, x, state.left, state.memory, state.open_block, state.conv)
            return x[:, :0], torch.zeros_like(lengths), None if is_last else state
        size = segment or num_frames
        layout = Layout.build(
            num_frames, size, right_context if total > num_frames or num_frames > size else 0, x.device
        )
        layer_outputs = layer_outputs if layer_outputs is not None else []
        if state is None and layout.num_segments > 1:
            out = self._encode_band(x, lengths, layout, size, layer_outputs)
        else:
            out, state = self._encode(x, lengths, state, layout, is_last, layer_outputs)
        out = self.norm_final(out)
        out_lengths = lengths.clamp(max=num_frames)
        return out.masked_fill(~valid_positions(out_lengths, num_frames)[..., None], 0.0), out_lengths, state

    def _encode_band(
        self, x: Tensor, lengths: Tensor, layout: Layout, segment: int, layer_outputs: list[Tensor]
    ) -> Tensor:
        """Whole utterances of several segments, ``(B, T, D)`` to ``(B, T, D)``: what :meth:`_encode` computes."""
        n, device = layout.num_frames, x.device
        band = Band.build(n, segment, layout.right_context, self.left_context, device)
        positions = band.positions()
        masks = [band.mask(lengths)]
        angles = block_angles = blocks = distance = None
        if self.memory_slots and n > self.left_context:
            count = n // self.memory_block
            blocks = torch.arange(count, device=device)
            visible = (band.segment_starts() - self.left_context).clamp(min=0)[:, None] // self.memory_block
            seen = (blocks < visible) & (blocks >= visible - self.memory_slots)  # (N * Q, blocks)
            seen = seen.unflatten(0, (band.num_groups, -1))
            masks.append(seen.repeat(x.size(0), 1, 1))
        mask = torch.cat(masks, dim=2)[:, None]  # (B * N, 1, Q, K)
        if self.relative:
            distance = band.distances()[None]  # the same in every group
            if blocks is not None:
                to_blocks = positions[:, None] - self._centres(blocks)
                to_blocks = to_blocks.unflatten(0, (band.num_groups, -1)).repeat(x.size(0), 1, 1)
                distance = torch.cat([distance.expand(len(to_blocks), -1, -1), to_blocks], dim=2)
        if self.rotary:
            head_dim = self.dim // self.heads
            angles = rotary_angles(positions[None], head_dim, x.dtype)
            if blocks is not None:
                block_angles = rotary_angles(self._centres(blocks)[None], head_dim, x.dtype)
        hidden = x[:, positions.clamp(max=n - 1)]
        no_tail = x.new_zeros(x.size(0), max(0, self.conv_kernel - 1), self.dim)
        for layer in self.layers:
            if self.training and self.layer_drop and float(torch.rand(())) < self.layer_drop:
                continue
            query, key_value, unrotated = layer.project(hidden, angles)
            keys = band.keys(key_value)
            if blocks is not None:
                frames = band.frames(unrotated)[:, : len(blocks) * self.memory_block]
                sums = frames.unflatten(1, (-1, self.memory_block)).sum(dim=2)  # (B, blocks, 2, H, hd)
                memory = self._mean(sums, block_angles)
                keys = torch.cat([keys, memory.repeat_interleave(band.num_groups, dim=0)], dim=1)
            attended = layer.attend(query.unflatten(1, (band.num_groups, -1)).flatten(0, 1), keys, mask, distance)
            hidden = hidden + layer.dropout(attended.unflatten(0, (-1, band.num_groups)).flatten(1, 2))
            if layer.convolution is not None:
                copies = band.copies(hidden, layout.num_segments)
                convolved, _ = layer.convolution(torch.cat([band.frames(hidden), copies], dim=1), layout, no_tail)
                convolved = band.merge(convolved[:, :n], convolved[:, n:])
                hidden = hidden + layer.dropout(convolved)
            hidden = layer.feed_forward(hidden)
            layer_outputs.append(band.frames(hidden))
        return band.frames(hidden)

    def _encode(
        self,
        x: Tensor,
        lengths: Tensor,
        state: EmformerState | None,
        layout: Layout,
        is_last: bool,
        layer_outputs: list[Tensor],
    ) -> tuple[Tensor, EmformerState | None]:
        batch, n = x.size(0), layout.num_frames
        past = state.position if state is not None else torch.zeros_like(lengths)
        cached = self.left_context if state is not None else 0
        mask = layout.mask(lengths, past, self.left_context, cached)
        ring_mask = self._ring_mask(layout, past) if state is not None and self.memory_slots else None
        # A block of this call is visible within the call only if the call is longer than the left context.
        blocks = (
            self._block_membership(layout, past)
            if self.memory_slots and (n > self.left_context or not is_last)
            else None
        )
        visible_blocks = blocks if n > self.left_context else None
        masks = [] if ring_mask is None else [ring_mask]
        masks.append(mask)
        if visible_blocks is not None:
            masks.append(self._block_mask(layout, past, visible_blocks.size(1)))
        mask = torch.cat(masks, dim=2)[:, None]  # (B, 1, Q, K)

        angles = block_angles = centres = distance = None
        if blocks is not None:
            centres = self._centres(past[:, None] // self.memory_block + torch.arange(blocks.size(1), device=x.device))
        if self.relative:
            key_frames = [torch.cat([torch.arange(-cached, 0, device=x.device), layout.frame])[None]]
            if ring_mask is not None:
                key_frames.insert(0, self._centres(self._ring_blocks(past)) - past[:, None])
            if visible_blocks is not None and centres is not None:
                key_frames.append(centres - past[:, None])
            rows = max(len(frames) for frames in key_frames)
            key_frame = torch.cat([frames.expand(rows, -1) for frames in key_frames], dim=1)  # (B or 1, K)
            distance = layout.frame[None, :, None] - key_frame[:, None]
        if self.rotary:
            head_dim = self.dim // self.heads
            angles = rotary_angles(past[:, None] + layout.frame, head_dim, x.dtype)
            if centres is not None:
                block_angles = rotary_angles(centres, head_dim, x.dtype)

        hidden = x[:, layout.frame.clamp(max=x.size(1) - 1)] if layout.right_context else x[:, :n]
        no_tail = x.new_zeros(batch, max(0, self.conv_kernel - 1), self.dim)
        layer_caches: list[tuple[Tensor, Tensor, Tensor]] = []
        for i, layer in enumerate(self.layers):
            # Of a stream every layer runs, also in training: the state holds what each of them has seen.
            if self.training and state is None and self.layer_drop and float(torch.rand(())) < self.layer_drop:
                continue
            query, key_value, unrotated = layer.project(hidden, angles)
            keys = [key_value]
            if state is not None:
                keys = ([state.memory[:, i]] if ring_mask is not None else []) + [state.left[:, i], key_value]
            if visible_blocks is not None:
                keys.append(self._block_means(visible_blocks, unrotated[:, :n], state, i, block_angles))
            hidden = hidden + layer.dropout(layer.attend(query, torch.cat(keys, dim=1), mask, distance))
            tail = no_tail
            if layer.convolution is not None:
                convolved, tail = layer.convolution(hidden, layout, state.conv[:, i] if state is not None else no_tail)
                hidden = hidden + layer.dropout(convolved)
            hidden = layer.feed_forward(hidden)
            layer_outputs.append(hidden[:, :n])
            if not is_last:
                layer_caches.append((key_value[:, :n], unrotated[:, :n], tail))
        out = hidden[:, :n]
        if is_last:
            return out, None
        assert state is not None  # `forward` creates a state unless the input ends with its first call
        new_left = torch.stack([key_value for key_value, _, _ in layer_caches], dim=1)
        if self.left_context > n:
            new_left = torch.cat([state.left[:, :, n:], new_left], dim=2)
        else:
            new_left = new_left[:, :, n - self.left_context :].clone()
        memory, open_block = state.memory, state.open_block
        if blocks is not None:
            unrotated = torch.stack([unrotated for _, unrotated, _ in layer_caches], dim=1)
            memory, open_block = self._close_blocks(blocks, unrotated, state, n, block_angles)
        return out, EmformerState(
            position=past + n,
            pending=x[:, n:].clone(),
            left=new_left,
            memory=memory,
            open_block=open_block,
            conv=torch.stack([tail for _, _, tail in layer_caches], dim=1),
        )

    def _centres(self, blocks: Tensor) -> Tensor:
        """The frame that a memory slot stands for, given the numbers of blocks."""
        return blocks * self.memory_block + self.memory_block // 2

    def _visible_blocks(self, layout: Layout, past: Tensor) -> Tensor:
        """``(B, Q)``: number of blocks that end before each query's left context."""
        return (past[:, None] + layout.segment_start - self.left_context).clamp(min=0) // self.memory_block

    def _ring_blocks(self, past: Tensor) -> Tensor:
        """``(B, slots)``: the latest block in each slot of the ring buffer; below 0 where there is none yet."""
        complete = past // self.memory_block  # (B,) number of complete blocks
        slot = torch.arange(self.ring_slots, device=past.device)
        return complete[:, None] - 1 - (complete[:, None] - 1 - slot) % self.ring_slots

    def _ring_mask(self, layout: Layout, past: Tensor) -> Tensor:
        """``(B, Q, slots)``: True where a query sees a slot of the ring buffer."""
        block = self._ring_blocks(past)[:, None]
        visible = self._visible_blocks(layout, past)[..., None]
        return (block >= 0) & (block < visible) & (block >= visible - self.memory_slots)

    def _block_membership(self, layout: Layout, past: Tensor) -> Tensor:
        """``(B, blocks, n)``: True where a frame of this call belongs to a block; the open block comes first."""
        n = layout.num_frames
        frame_block = (past[:, None] % self.memory_block + torch.arange(n, device=past.device)) // self.memory_block
        count = (self.memory_block - 1 + n) // self.memory_block + 1
        return frame_block[:, None] == torch.arange(count, device=past.device)[:, None]

    def _block_mask(self, layout: Layout, past: Tensor, count: int) -> Tensor:
        """``(B, Q, blocks)``: True where a query sees a block of this call."""
        block = (past[:, None] // self.memory_block + torch.arange(count, device=past.device))[:, None]
        visible = self._visible_blocks(layout, past)[..., None]
        return (block < visible) & (block >= visible - self.memory_slots)

    def _block_means(
        self,
        blocks: Tensor,
        unrotated: Tensor,
        state: EmformerState | None,
        layer: int,
        angles: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        """Memory slots ``(B, blocks, 2, H, hd)`` of one layer from unrotated keys and values ``(B, n, 2, H, hd)``."""
        sums = (blocks.to(unrotated.dtype) @ unrotated.flatten(2)).unflatten(2, unrotated.shape[2:])
        if state is not None:
            sums = torch.cat([sums[:, :1] + state.open_block[:, layer, None], sums[:, 1:]], dim=1)
        return self._mean(sums, angles)

    def _mean(self, sums: Tensor, angles: tuple[Tensor, Tensor] | None) -> Tensor:
        """Memory slots from sums over complete blocks ``(..., blocks, 2, H, hd)``: means, keys rotated to centres."""
        means = sums / self.memory_block
        if angles is None:
            return means
        return torch.stack([rotate(means[..., 0, :, :], angles), means[..., 1, :, :]], dim=-3)

    def _close_blocks(
        self,
        blocks: Tensor,
        unrotated: Tensor,
        state: EmformerState,
        n: int,
        angles: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, Tensor]:
        """Add ``n`` frames to the memory.

        Args:
            blocks: ``(B, blocks, n)`` membership of the frames in blocks.
            unrotated: ``(B, layers, n, 2, H, hd)`` unrotated keys and values of the frames.
            state: state before these frames.
            n: number of frames.
            angles: rotary angles of the block centres.

        Returns:
            The ring buffer and the open block after these frames, shaped as in :class:`EmformerState`.
        """
        weight = blocks.to(unrotated.dtype)
        sums = torch.einsum("bkn,blnx->blkx", weight, unrotated.flatten(3)).unflatten(3, unrotated.shape[3:])
        sums[:, :, 0] += state.open_block
        first = state.position // self.memory_block
        complete = (state.position + n) // self.memory_block
        still_open = (complete - first)[:, None].expand(-1, sums.size(1))  # (B, layers)
        index = still_open[:, :, None, None, None, None].expand(-1, -1, 1, *sums.shape[3:])
        open_block = sums.gather(2, index)[:, :, 0]
        # A step that completes no block is spared the copy. What is exported computes the same without looking.
        if not torch.compiler.is_exporting() and not bool((complete > first).any()):
            return state.memory, open_block
        if angles is not None:
            angles = (angles[0][:, None], angles[1][:, None])
        slot = torch.arange(self.ring_slots, device=unrotated.device)
        latest = complete[:, None] - 1 - (complete[:, None] - 1 - slot) % self.ring_slots
        source = torch.where(latest >= first[:, None], self.ring_slots + latest - first[:, None], slot)
        pool = torch.cat([state.memory, self._mean(sums, angles)], dim=2)
        index = source[:, None, :, None, None, None].expand(-1, pool.size(1), -1, *pool.shape[3:])
        return pool.gather(2, index), open_block
