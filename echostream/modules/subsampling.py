"""Causal convolutional subsampling: features @100 Hz to frames @25 Hz.

Two convolutions of stride 2 with gated linear units, as in fairseq's ``Conv1dSubsampler`` (Synnaeve et al. 2020),
but padded on the left only: frame ``t`` depends on features up to ``4 t + 3``, so that it is final as soon as its 40 ms
of audio have arrived.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from echostream.modules.front_end import Subsampler
from echostream.modules.masks import valid_positions
from echostream.modules.state import BatchedState

STRIDE = 4  # features per frame


@dataclass
class SubsamplerState(BatchedState):
    """Left context of both convolutions: their last inputs."""

    first: Tensor  # (B, kernel - 2, features)
    second: Tensor  # (B, kernel - 2, hidden / 2)


class StridedCausalConv(nn.Module):
    """Convolution of stride 2 followed by GLU; the caller supplies the left context.

    In the layout ``(B, T, D)`` a window of consecutive frames is contiguous in memory, so that the convolution is a
    matrix product over a strided view.
    """

    def __init__(self, in_dim: int, out_dim: int, kernel: int) -> None:
        super().__init__()
        self.in_dim, self.kernel = in_dim, kernel
        self.linear = nn.Linear(kernel * in_dim, 2 * out_dim)

    @property
    def context(self) -> int:
        """Left context of a call, in input frames."""
        return self.kernel - 2

    def forward(self, x: Tensor) -> Tensor:
        """``(B, context + 2 n, in_dim)`` to ``(B, n, out_dim)``."""
        windows = x.unfold(1, self.kernel, 2).transpose(2, 3).flatten(2)  # (B, n, kernel * in_dim)
        return nn.functional.glu(self.linear(windows), dim=-1)


class ConvSubsampler(Subsampler):
    """Two strided causal convolutions that reduce the frame rate four times.

    Args:
        in_dim: size of a feature vector (80).
        hidden_dim: channels of the first convolution before its GLU.
        out_dim: size of a subsampled frame.
        kernel: kernel size of both convolutions in input frames, at least 2.
    """

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int, kernel: int = 5) -> None:
        super().__init__()
        if kernel < 2:
            raise ValueError(f"subsampler kernel must be at least 2, got {kernel}")
        self.out_dim = out_dim
        self.first = StridedCausalConv(in_dim, hidden_dim // 2, kernel)
        self.second = StridedCausalConv(hidden_dim // 2, out_dim, kernel)

    def init_state(self, batch_size: int = 1) -> SubsamplerState:
        weight = self.first.linear.weight
        return SubsamplerState(
            first=weight.new_zeros(batch_size, self.first.context, self.first.in_dim),
            second=weight.new_zeros(batch_size, self.second.context, self.second.in_dim),
        )

    def missing_features(self, num_frames: int, state: SubsamplerState) -> int:
        return STRIDE * num_frames

    def forward(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        state: SubsamplerState | None = None,
        is_last: bool = True,
    ) -> tuple[Tensor, Tensor, SubsamplerState]:
        """Subsample features.

        Args:
            x: ``(B, T, in_dim)`` @100 Hz; ``T`` is a multiple of 4 unless ``is_last``.
            lengths: ``(B,)`` valid features; None if all are valid. The content of the padding is ignored.
            state: state after the previous chunk; None at the start.
            is_last: the input ends here; an incomplete last group of features is padded with zeros.

        Returns:
            ``(B, ceil(T / 4), out_dim)`` @25 Hz, their lengths ``ceil(lengths / 4)``, and the next state.

        Raises:
            ValueError: a length that is not a multiple of 4 before the end of the input.
        """
        batch, num_features, _ = x.shape
        partial = -num_features % STRIDE
        if partial and not is_last:
            raise ValueError(
                f"{num_features} features are not a multiple of {STRIDE}; only the last piece may be ragged"
            )
        state = state or self.init_state(batch)
        if num_features == 0:
            empty = torch.zeros(batch, dtype=torch.int64, device=x.device)
            return x.new_zeros(batch, 0, self.out_dim), empty, state
        if lengths is None:
            lengths = torch.full((batch,), num_features, device=x.device)
        else:
            x = x.masked_fill(~valid_positions(lengths, num_features)[..., None], 0.0)
        if partial:
            x = nn.functional.pad(x, (0, 0, 0, partial))
        x = torch.cat([state.first, x], dim=1)
        half = (lengths + 1) // 2
        y = self.first(x)
        # In the padding the first convolution outputs its bias, which the second one must not see.
        y = y.masked_fill(~valid_positions(half, y.size(1))[..., None], 0.0)
        y = torch.cat([state.second, y], dim=1)
        out = self.second(y)
        next_state = SubsamplerState(
            first=x[:, x.size(1) - self.first.context :], second=y[:, y.size(1) - self.second.context :]
        )
        return out, (half + 1) // 2, next_state
