"""How sure the decoder is of a word: a probability that it belongs there.

A decoder's own probabilities are too high where it has not understood: it was trained on sentences that were. What they
mean is measured on a development set instead, and a logistic function of a word's mean log-probability maps one to the
other (Platt 1999; ``scripts/judging/calibrate_confidence.py``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

LARGEST_LOGIT = 30.0


@dataclass(frozen=True)
class Confidence:
    """From the log-probabilities of a word's tokens to a probability.

    Attributes:
        slope, offset: of the logit over the mean log-probability in nats; None: not calibrated, the geometric mean of
            the tokens' probabilities.
    """

    slope: float | None = None
    offset: float | None = None

    def of(self, log_probs: Sequence[float]) -> float:
        """Between 0 and 1; of no tokens 1."""
        if not log_probs:
            return 1.0
        mean = sum(log_probs) / len(log_probs)
        if self.slope is None or self.offset is None:
            return math.exp(min(mean, 0.0))
        logit = max(-LARGEST_LOGIT, min(LARGEST_LOGIT, self.slope * mean + self.offset))
        return 1 / (1 + math.exp(-logit))


def log_probs_of(logits: Tensor, tokens: Sequence[int]) -> list[float]:
    """Log-probabilities of ``tokens`` among ``logits (n, vocabulary)``, the one that each row predicts."""
    rows = logits.float().log_softmax(dim=-1)
    return rows[torch.arange(len(tokens)), list(tokens)].tolist()
