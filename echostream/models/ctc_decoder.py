"""CTC decoders over encoder frames (Graves et al. 2006): source text, and target text with causal layers in between."""

from __future__ import annotations

from torch import Tensor, nn

from echostream.models.config import EchoStreamConfig
from echostream.modules.transformer import CausalTransformer, TransformerState


class CTCDecoder(nn.Module):
    """Scores of each frame by a linear layer.

    Args:
        input_dim: size of the encoder's frames.
        vocab_size: classes, blank included.
        stack: layers before the scores, see :class:`CTCDecoderWithTransformerLayer`.
    """

    def __init__(self, input_dim: int, vocab_size: int, stack: CausalTransformer | None = None) -> None:
        super().__init__()
        self.stack = stack
        self.output = nn.Linear(input_dim, vocab_size)

    def init_state(self, batch_size: int = 1) -> TransformerState | None:
        """The state of a fresh stream; None where nothing is to be remembered."""
        return self.stack.init_state(batch_size) if self.stack is not None else None

    def forward(
        self, frames: Tensor, state: TransformerState | None = None, need_state: bool = False
    ) -> tuple[Tensor, TransformerState | None]:
        """``(B, T, input_dim)`` to logits ``(B, T, vocab_size)`` and the next state or None."""
        if self.stack is not None:
            frames, state = self.stack(frames, state, need_state=need_state)
        return self.output(frames), state


class CTCDecoderWithTransformerLayer(CTCDecoder):
    """Causal transformer layers over frames, then scores (StreamSpeech's ST-CTC decoder, Zhang et al. 2024).

    Args:
        input_dim: size of the encoder's frames, which the layers keep.
        vocab_size: classes, blank included.
        layers, heads, ffn_dim, dropout: of the stack.
        window_frames: earlier frames that a frame attends to.
    """

    def __init__(
        self,
        input_dim: int,
        vocab_size: int,
        layers: int,
        heads: int,
        ffn_dim: int,
        window_frames: int,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(
            input_dim, vocab_size, CausalTransformer(input_dim, layers, heads, ffn_dim, window_frames, dropout)
        )


def ctc_head(cfg: EchoStreamConfig, vocab: int, layers: int) -> CTCDecoder:
    """A CTC decoder with as many layers of its own."""
    if not layers:
        return CTCDecoder(cfg.encoder_dim, vocab)
    return CTCDecoderWithTransformerLayer(
        cfg.encoder_dim,
        vocab,
        layers,
        cfg.encoder_heads,
        cfg.encoder_ffn_dim,
        cfg.st_window_frames,
        cfg.dropout,
    )
