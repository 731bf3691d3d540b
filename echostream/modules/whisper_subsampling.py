"""Whisper's two convolutions, streaming: features @100 Hz to frames @50 Hz (Radford et al. 2022, section 2.2).

Both have a kernel of 3 and are centred, so that frame ``t`` depends on features up to ``2 t + 2``: with the window of
the features it is final 12.5 ms after its own 20 ms have ended.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from echostream.modules.front_end import Subsampler
from echostream.modules.masks import valid_positions
from echostream.modules.state import BatchedState

KERNEL = 3
STRIDE = 2  # features per frame


@dataclass
class WhisperSubsamplerState(BatchedState):
    """The last inputs of both convolutions that later outputs need."""

    first: Tensor  # (B, 1 or 2, features)
    second: Tensor  # (B, 1 or 2, D)


class WhisperSubsampler(Subsampler):
    """Convolutions of stride 1 and 2, each with a GELU.

    Their weights are those of linear maps of windows, ``(out, 3 * in)``, the earliest input first.

    Args:
        in_dim: size of a feature vector (80).
        out_dim: size of a frame.
    """

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.out_dim = out_dim
        self.first = nn.Linear(KERNEL * in_dim, out_dim)
        self.second = nn.Linear(KERNEL * out_dim, out_dim)

    def init_state(self, batch_size: int = 1) -> WhisperSubsamplerState:
        """One frame of zeros before each convolution, as its padding."""
        weight = self.first.weight
        return WhisperSubsamplerState(
            first=weight.new_zeros(batch_size, 1, self.first.in_features // KERNEL),
            second=weight.new_zeros(batch_size, 1, self.out_dim),
        )

    def missing_features(self, num_frames: int, state: WhisperSubsamplerState) -> int:
        # `second` begins where the window of the next frame does; it grows by the features beyond those that `first`
        # still waits with.
        outputs = 2 * num_frames + 1 - state.second.size(1)
        return outputs + KERNEL - 1 - state.first.size(1)

    def forward(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        state: WhisperSubsamplerState | None = None,
        is_last: bool = True,
    ) -> tuple[Tensor, Tensor, WhisperSubsamplerState]:
        """Subsample features.

        Args:
            x: ``(B, T, in_dim)`` @100 Hz, any ``T >= 0``.
            lengths: ``(B,)`` valid features; None if all are valid. The content of the padding is ignored.
            state: state after the previous chunk; None at the start.
            is_last: the input ends here.

        Returns:
            ``(B, n, out_dim)`` @50 Hz, their lengths ``(B,)``, and the next state. In all, a whole input of ``T``
            features gives ``ceil(T / 2)`` frames.
        """
        state = state or self.init_state(x.size(0))
        # What the frames of this call begin with was counted by the calls before.
        before = state.second.size(1) - 1 + state.first.size(1) - 1
        lengths = torch.full((x.size(0),), x.size(1), device=x.device) if lengths is None else lengths
        x = x.masked_fill(~valid_positions(lengths, x.size(1))[..., None], 0.0)
        x = torch.cat([state.first, x], dim=1)
        if is_last:
            x = nn.functional.pad(x, (0, 0, 0, 1))
        y = self._convolve(self.first, x, 1)
        # In the padding the first convolution outputs its bias, which the second one must not see.
        new = lengths[:, None] + state.first.size(1) - 1
        y = y.masked_fill(~(torch.arange(y.size(1), device=x.device) < new)[..., None], 0.0)
        y = torch.cat([state.second, y], dim=1)
        if is_last:
            y = nn.functional.pad(y, (0, 0, 0, 1))
        out = self._convolve(self.second, y, STRIDE)
        frames = (lengths + before + 1) // STRIDE if is_last else torch.full_like(lengths, out.size(1))
        next_state = WhisperSubsamplerState(
            first=x[:, max(0, x.size(1) - KERNEL + 1) :].clone(), second=y[:, STRIDE * out.size(1) :].clone()
        )
        return out, frames, next_state

    @staticmethod
    def _convolve(linear: nn.Linear, x: Tensor, stride: int) -> Tensor:
        """``(B, n, in)`` to ``(B, (n - 3) // stride + 1, out)``."""
        if x.size(1) < KERNEL:
            return x.new_zeros(x.size(0), 0, linear.out_features)
        windows = x.unfold(1, KERNEL, stride).transpose(2, 3).flatten(2)
        return nn.functional.gelu(linear(windows))
