"""Duration prediction for speech units: two convolutions, as in FastSpeech 2 (Ren et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from echostream.modules.causal_context import with_left_context


class DurationPredictor(nn.Module):
    """Predicts ``log(frames + 1)`` of each unit from the embeddings of the units around it.

    Parameter names are those of fairseq's ``VariancePredictor``, so that published vocoders load.

    Args:
        input_dim: size of a unit's embedding.
        hidden_dim: channels.
        kernel_size: of both convolutions, odd.
        dropout: after each convolution, in training.
        causal: use past units only; otherwise ``lookahead_units`` of the next units as well.
    """

    def __init__(
        self,
        input_dim: int,
        hidden_dim: int,
        kernel_size: int = 3,
        dropout: float = 0.5,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.causal, self.kernel_size = causal, kernel_size
        # fairseq always pads the second convolution by 1, which is the same for kernel size 3, that of all models.
        padding = 0 if causal else kernel_size // 2
        self.conv1 = nn.Sequential(nn.Conv1d(input_dim, hidden_dim, kernel_size, padding=padding), nn.ReLU())
        self.ln1 = nn.LayerNorm(hidden_dim)
        self.conv2 = nn.Sequential(nn.Conv1d(hidden_dim, hidden_dim, kernel_size, padding=padding), nn.ReLU())
        self.ln2 = nn.LayerNorm(hidden_dim)
        self.dropout = nn.Dropout(dropout)
        self.proj = nn.Linear(hidden_dim, 1)
        self.context_units = 2 * (kernel_size - 1) if causal else 2 * (kernel_size // 2)
        self.lookahead_units = 0 if causal else self.context_units

    def forward(self, x: Tensor, contexts: list[Tensor] | None = None, lengths: Sequence[int] | None = None) -> Tensor:
        """Predict ``log(frames + 1)``, ``(B, T)``, from unit embeddings.

        Args:
            x: unit embeddings ``(B, T, input_dim)``.
            contexts: cached left contexts of both convolutions in a stream, see :func:`with_left_context`; for causal
                models alone.
            lengths: how many units each row has, see :func:`with_left_context`.
        """
        x = self.dropout(self.ln1(self._convolve(self.conv1, x, contexts, 0, lengths)))
        x = self.dropout(self.ln2(self._convolve(self.conv2, x, contexts, 1, lengths)))
        return self.proj(x).squeeze(2)

    def _convolve(
        self,
        conv: nn.Sequential,
        x: Tensor,
        contexts: list[Tensor] | None,
        index: int,
        lengths: Sequence[int] | None,
    ) -> Tensor:
        if self.causal:
            x = with_left_context(x, self.kernel_size - 1, contexts, index, lengths)
        return conv(x.transpose(1, 2)).transpose(1, 2)
