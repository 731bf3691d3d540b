"""CTC (Graves et al. 2006): heads on encoder frames and the greedy reading of their output.

Reading is incremental: the state is the class of the last frame, because a repeated class is one symbol only if no
blank lies between. What is read never depends on how the frames were cut into pieces.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from echostream.modules.state import State
from echostream.modules.transformer import CausalTransformer, TransformerState

BLANK = 0


class CausalCTCHead(nn.Module):
    """Causal transformer layers over frames, then scores (StreamSpeech's ST-CTC decoder; 0 layers: linear only).

    Args:
        input_dim: size of the encoder's frames.
        vocab_size: classes, blank included.
        layers, heads, ffn_dim, dropout: of the stack, which keeps ``input_dim``.
        window_frames: earlier frames that a frame attends to.
    """

    def __init__(
        self,
        input_dim: int,
        vocab_size: int,
        layers: int = 0,
        heads: int = 4,
        ffn_dim: int = 0,
        window_frames: int = 0,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.stack = CausalTransformer(input_dim, layers, heads, ffn_dim, window_frames, dropout) if layers else None
        self.output = nn.Linear(input_dim, vocab_size)

    def init_state(self, batch_size: int = 1) -> TransformerState | None:
        return self.stack.init_state(batch_size) if self.stack is not None else None

    def forward(
        self, frames: Tensor, state: TransformerState | None = None, need_state: bool = False
    ) -> tuple[Tensor, TransformerState | None]:
        """``(B, T, input_dim)`` to logits ``(B, T, vocab_size)`` and the next state or None."""
        if self.stack is not None:
            frames, state = self.stack(frames, state, need_state=need_state)
        return self.output(frames), state


@dataclass
class CTCReader(State):
    """Greedy collapse of a stream of frame classes; the class of the last frame is all it keeps."""

    last: int = BLANK

    def read(self, classes: list[int]) -> list[tuple[int, int]]:
        """New symbols in ``classes`` as ``(frame index within the call, symbol)``."""
        symbols = []
        for frame, label in enumerate(classes):
            if label != BLANK and label != self.last:
                symbols.append((frame, label))
            self.last = label
        return symbols


def greedy_collapse(classes: Tensor, lengths: Tensor) -> list[list[int]]:
    """Symbols of each row of ``(B, T)`` frame classes, repeats merged and blanks removed."""
    rows = zip(classes.tolist(), lengths.tolist(), strict=True)
    return [[symbol for _, symbol in CTCReader().read(row[:length])] for row, length in rows]


def symbol_counts(classes: Tensor) -> Tensor:
    """``(B, T)`` frame classes to the number of symbols read up to and including each frame, ``(B, T)``."""
    fresh = classes != BLANK
    fresh[:, 1:] &= classes[:, 1:] != classes[:, :-1]
    return fresh.long().cumsum(dim=1)
