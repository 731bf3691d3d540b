"""Autoregressive text decoder that reads the encoder as far as the policy lets it.

In training every token attends only the frames that were there when its word was written; in a stream those are the
frames there are. The hidden state that predicts a token goes on to the unit decoder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from echostream.modules.transformer import CausalTransformer, TransformerState

MAX_POSITIONS = 448  # of Whisper's text decoder
POSITION_STD = 0.02


class TransformerMTDecoder(nn.Module):
    """Transformer decoder over subwords with input and output embeddings tied.

    Args:
        vocab_size: size of the target dictionary.
        padding_idx: its padding symbol.
        encoder_dim: size of the encoder's frames.
        dim, layers, heads, ffn_dim, dropout: of the stack.
        window_tokens: earlier tokens that a token attends to.
        window_frames: frames, counted back from the last visible one, that a token attends to.
        activation: of the feed-forward networks.
        learned_positions: a token's place in its sentence comes from a table of ``MAX_POSITIONS``, whose last entry
            serves those beyond; otherwise positions are rotary.
        scale_embedding: what is read is multiplied by the root of ``dim``.
        prompt_tokens: learned inputs before the start symbol of every sentence. They attend to a learned frame instead
            of the sentence's, and to silence, so that the state that a sentence starts from is the same for all.
        places: of a sentence, in frames, each of which has a vector that is added to the frame there. Behind the last
            visible frame the decoder then sees silence, a learned frame for each place that is left: Whisper's (Radford
            et al. 2022) has always seen 30 s. Frames behind the last place get its vector, and no silence follows them.
        languages: of what is heard, told apart by a vector each, the source's first; see :meth:`language`. They are
            Whisper's and are not trained.
        alignment_heads: those whose attention tells where in the source a token is, as pairs of a layer and a head;
            those that a smaller decoder doesn't have are left out. None: all heads of the upper half of the layers.

    Raises:
        ValueError: languages, but no prompt to ask for them with.
    """

    def __init__(
        self,
        vocab_size: int,
        padding_idx: int,
        encoder_dim: int,
        dim: int,
        layers: int,
        heads: int,
        ffn_dim: int,
        window_tokens: int,
        window_frames: int,
        dropout: float = 0.1,
        activation: str = "relu",
        learned_positions: bool = False,
        scale_embedding: bool = True,
        prompt_tokens: int = 0,
        places: int = 0,
        languages: int = 0,
        alignment_heads: Sequence[tuple[int, int]] = (),
    ) -> None:
        super().__init__()
        self.window_frames = window_frames
        self.embedding = nn.Embedding(vocab_size, dim, padding_idx)
        nn.init.normal_(self.embedding.weight, std=dim**-0.5)
        nn.init.zeros_(self.embedding.weight[padding_idx])
        self.scale, self.scales_input = math.sqrt(dim), scale_embedding
        self.stack = CausalTransformer(
            dim, layers, heads, ffn_dim, window_tokens, dropout, encoder_dim, activation, not learned_positions
        )
        self.positions = nn.Embedding(MAX_POSITIONS, dim) if learned_positions else None
        if self.positions is not None:
            nn.init.normal_(self.positions.weight, std=POSITION_STD)
        self.prompt = self.prompt_frame = None
        if prompt_tokens:
            self.prompt = nn.Parameter(POSITION_STD * torch.randn(prompt_tokens, dim))
            self.prompt_frame = nn.Parameter(torch.zeros(encoder_dim))
        self.places = self.silence = None
        if places:
            self.places = nn.Parameter(torch.zeros(places, encoder_dim))
            self.silence = nn.Parameter(torch.zeros(places, encoder_dim))
        self.languages = None
        if languages:
            if not prompt_tokens:
                raise ValueError("a decoder that tells languages (mt_languages) needs a prompt (mt_prompt_tokens)")
            self.languages = nn.Parameter(torch.zeros(languages, dim), requires_grad=False)
        known = tuple((layer, head) for layer, head in alignment_heads if layer < layers and head < heads)
        upper = [(layer, head) for layer in range(layers // 2, layers) for head in range(heads)]
        self.alignment_heads = known or tuple(upper)
        self.dropout = nn.Dropout(dropout)

    def init_state(self, batch_size: int = 1) -> TransformerState:
        """The state that a sentence starts from."""
        state = self.stack.init_state(batch_size)
        if self.prompt is None or self.prompt_frame is None:
            return state
        start, frame = self.stack.init_state(), self.prompt_frame[None, None]
        _, after = self.stack(self._placed_prompt(self.prompt)[None], start, memory=frame, shared_memory=self.silence)
        assert after is not None  # a state was given
        return TransformerState(after.position.expand(batch_size), after.past.expand(batch_size, *after.past.shape[1:]))

    def _placed_prompt(self, tokens: Tensor) -> Tensor:
        """The first tokens ``(n, dim)`` of the prompt with what each owes to its place in the sentence."""
        return tokens + self.positions.weight[: len(tokens)] if self.positions is not None else tokens

    def language(self, memory: Tensor, memory_mask: Tensor | None = None) -> Tensor:
        """How likely what is heard is in the source language: log-probabilities ``(B,)`` among all languages.

        Whisper tells the language in what follows the first token of its prompt, before anything else is written
        (Radford et al. 2022, section 2.3).

        Args:
            memory, memory_mask: as in :meth:`forward`; of the mask one row, ``(B, 1, T + places)``.
        """
        if self.prompt is None or self.languages is None:
            raise ValueError("this decoder can't tell languages: its mt_languages is 0")
        x = self._placed_prompt(self.prompt[:1]).expand(len(memory), 1, -1)
        hidden, _ = self.stack(x, memory=memory, memory_mask=memory_mask, shared_memory=self.silence)
        return nn.functional.linear(hidden[:, 0], self.languages).log_softmax(dim=-1)[:, 0]

    def embed(self, tokens: Tensor) -> Tensor:
        """Embeddings as the unit decoder reads them, beside hidden states."""
        return self.embedding(tokens) * self.scale

    def _input(self, tokens: Tensor, state: TransformerState | None) -> Tensor:
        x = self.embed(tokens) if self.scales_input else self.embedding(tokens)
        if self.positions is None:
            return x
        place = torch.arange(tokens.size(1), device=tokens.device)
        if state is not None:
            place = place + state.position[:, None]
        return x + self.positions(place.clamp(max=MAX_POSITIONS - 1))

    def frame_mask(self, frame_lengths: Tensor, num_frames: int, visible: Tensor) -> Tensor:
        """Frames in the window that ends at the last visible one.

        Args:
            frame_lengths: ``(B,)`` valid frames.
            num_frames: ``T``.
            visible: ``(B, N)`` number of frames that were there when a token was written, at least 1.

        Returns:
            ``(B, N, T)`` bool.
        """
        end = torch.minimum(visible, frame_lengths[:, None]).clamp(min=1)[..., None]
        frame = torch.arange(num_frames, device=visible.device)
        return (frame < end) & (frame >= end - self.window_frames)

    def attended(self, frames: Tensor, frame_lengths: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        """What each token of whole sentences attends to.

        Args:
            frames: ``(B, T, encoder_dim)`` of the encoder, from the sentence's start on.
            frame_lengths, visible: as in :meth:`frame_mask`.

        Returns:
            memory ``(B, T, encoder_dim)`` and its mask ``(B, N, T + places)``, for :meth:`forward`.
        """
        mask = self.frame_mask(frame_lengths, frames.size(1), visible)
        behind = self.behind(torch.minimum(visible, frame_lengths[:, None]).clamp(min=1))
        return self.placed(frames), mask if behind is None else torch.cat([mask, behind], dim=-1)

    def placed(self, frames: Tensor, first: int = 0) -> Tensor:
        """Frames ``(B, T, encoder_dim)``, the first at the place ``first``, with what each owes to its place."""
        if self.places is None:
            return frames
        place = torch.arange(first, first + frames.size(1), device=frames.device)
        return frames + self.places[place.clamp(max=len(self.places) - 1)]

    def behind(self, ends: Tensor) -> Tensor | None:
        """Which places ``(..., places)`` bool lie behind the last frame, in silence; None: it has no places.

        ``ends (...)`` is how many places have been heard.
        """
        if self.places is None:
            return None
        return torch.arange(len(self.places), device=ends.device) >= ends[..., None]

    def forward(
        self,
        previous_tokens: Tensor,
        memory: Tensor,
        memory_mask: Tensor | None = None,
        state: TransformerState | None = None,
        need_state: bool = False,
        lengths: Sequence[int] | None = None,
        alignment: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, TransformerState | None]:
        """Hidden states and scores of the tokens that follow ``previous_tokens``.

        Args:
            previous_tokens: ``(B, N)``, the target shifted right by its start symbol.
            memory: ``(B, T, encoder_dim)`` frames, from :meth:`attended` or :meth:`placed`.
            memory_mask: ``(B, N, T + places)``, which of them and of :meth:`behind` are visible; None: all.
            state: of the tokens before.
            need_state: return the next state.
            lengths: how many tokens each row has, see :meth:`CausalTransformer.forward`; None: all ``N``.
            alignment: a list to which is appended where the next tokens are in the memory: the mean attention of the
                alignment heads, ``(B, N, T + places)``.

        Returns:
            hidden ``(B, N, dim)``, logits ``(B, N, vocab)``, next state or None.
        """
        if state is None and self.prompt is not None:
            state = self.init_state(len(previous_tokens))
        x = self.dropout(self._input(previous_tokens, state))
        weights: list[Tensor] | None = None if alignment is None else []
        hidden, state = self.stack(
            x,
            state,
            memory=memory,
            memory_mask=memory_mask,
            shared_memory=self.silence,
            need_state=need_state,
            lengths=lengths,
            memory_weights=weights,
        )
        if alignment is not None and weights is not None:
            heads = torch.stack([weights[layer][:, head] for layer, head in self.alignment_heads])
            alignment.append(heads.mean(dim=0))
        return hidden, nn.functional.linear(hidden, self.embedding.weight), state
