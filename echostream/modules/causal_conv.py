"""The Conformer's convolution module, made causal; its left context is passed from call to call."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import glu, silu

from echostream.modules.segment_layout import Layout

# For inputs this short, a direct sum over windows is faster than calling conv1d: five times for a single frame.
STEP_FRAMES = 16


class CausalConv(nn.Module):
    """Convolution module of the Conformer (Gulati et al. 2020, section 2.2), made causal and streamable.

    Batch normalisation is replaced by layer normalisation: batch statistics would make an utterance's output depend
    on the other utterances in its batch.
    """

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.context = kernel - 1
        self.norm_in = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, 2 * dim)
        self.depthwise = nn.Conv1d(dim, dim, kernel, groups=dim)
        self.norm_mid = nn.LayerNorm(dim)
        self.project = nn.Linear(dim, dim)

    def _convolve(self, x: Tensor) -> Tensor:
        """Depthwise convolution of ``(B, context + T, D)`` to ``(B, T, D)``."""
        if x.size(1) - self.context <= STEP_FRAMES:
            windows = x.unfold(1, self.context + 1, 1)  # (B, T, D, kernel)
            bias = self.depthwise.bias
            assert bias is not None
            return (windows * self.depthwise.weight[:, 0]).sum(dim=-1) + bias
        return self.depthwise(x.transpose(1, 2)).transpose(1, 2)

    def forward(self, x: Tensor, layout: Layout, tail: Tensor) -> tuple[Tensor, Tensor]:
        """Convolve frames and their right-context copies.

        Args:
            x: ``(B, Q, D)``, frames followed by the right-context copies of each segment.
            layout: positions of the segments and copies in ``x``.
            tail: ``(B, kernel - 1, D)``, the inputs of the convolution just before this call.

        Returns:
            Output ``(B, Q, D)`` and the ``tail`` of the next call, ``(B, kernel - 1, D)``.
        """
        n = layout.num_frames
        gated = glu(self.expand(self.norm_in(x)), dim=-1)
        stream = torch.cat([tail, gated[:, :n]], dim=1)
        if layout.num_segments == 1 or not layout.right_context:
            # With one segment the copies directly follow the frames, so one convolution covers both.
            out = self._convolve(torch.cat([stream, gated[:, n:]], dim=1))
        else:
            batch, _, dim = x.shape
            ends = layout.segment_end[n :: layout.right_context]  # (S,)
            context_index = ends[:, None] + torch.arange(self.context, device=x.device)  # (S, context) into `stream`
            copies = gated[:, n:].unflatten(1, (layout.num_segments, layout.right_context))
            windows = torch.cat([stream[:, context_index], copies], dim=2).flatten(0, 1)
            copies = self._convolve(windows).reshape(batch, -1, dim)
            out = torch.cat([self._convolve(stream), copies], dim=1)
        return self.project(silu(self.norm_mid(out))), stream[:, stream.size(1) - self.context :]
