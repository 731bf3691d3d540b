"""What every front end has: features of samples, and frames of features.

The *features* module turns samples into feature vectors @100 Hz; training uses it on whole recordings (``log_mel``) and
streams with a state (``forward``). The *subsampler* is trained with the encoder and turns features into the frames that
the encoder's layers read. Each can say how much input it still needs for its next outputs, so that a stream knows when
a segment is complete. :mod:`echostream.models.front_ends` knows those that there are by their names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn


class Features(nn.Module):
    """Samples to feature vectors @100 Hz, always in float32.

    Its buffers follow ``model.to(device)`` but not ``half()`` and ``bfloat16()``: rounding them would shift features.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        exact = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)
        for name, buffer in exact.items():
            self._buffers[name] = buffer.to(self.get_buffer(name).device)
        return self

    @property
    def device(self) -> torch.device:
        return next(self.buffers()).device

    def init_state(self) -> Any:
        """The state of a stream that has not begun."""
        raise NotImplementedError

    def log_mel(self, samples: Tensor) -> Tensor:
        """Features of a whole recording, before any normalisation over a corpus: ``(n,)`` to ``(T, features)``."""
        raise NotImplementedError

    def missing_samples(self, num_features: int, state: Any) -> int:
        """Samples that have to come until the next ``num_features`` are complete."""
        raise NotImplementedError

    def set_cmvn(self, mean: Tensor, std: Tensor) -> None:
        """Set the mean and the standard deviation of a corpus.

        Raises:
            ValueError: this front end isn't normalised over a corpus.
        """
        raise ValueError(
            "this front end has no normalisation over a corpus: leave global_cmvn out of the data's config.yaml"
        )

    def forward(self, samples: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """``(n,)`` samples to ``(T, features)``, and the next state."""
        raise NotImplementedError


class Subsampler(nn.Module):
    """Feature vectors to encoder frames."""

    def init_state(self, batch_size: int = 1) -> Any:
        """The state of streams that have not begun."""
        raise NotImplementedError

    def missing_features(self, num_frames: int, state: Any) -> int:
        """Features that have to come until the next ``num_frames`` are complete."""
        raise NotImplementedError

    def forward(
        self, x: Tensor, lengths: Tensor | None = None, state: Any = None, is_last: bool = True
    ) -> tuple[Tensor, Tensor, Any]:
        """``(B, T, features)`` to ``(B, n, D)``, their lengths ``(B,)``, and the next state."""
        raise NotImplementedError
