"""Losses summed over a batch, in float32 whatever the precision of the model."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from echostream.modules.ctc import BLANK


def ctc_infeasible(targets: Tensor, target_lengths: Tensor, input_lengths: Tensor) -> Tensor:
    """Whether each target has no CTC path, bool ``(B,)``: a symbol takes one frame, a repeated symbol one more."""
    position = torch.arange(targets.size(1), device=targets.device)
    repeats = (targets[:, 1:] == targets[:, :-1]) & (position[1:] < target_lengths[:, None])
    return input_lengths < target_lengths + repeats.sum(1)


def ctc_sum(logits: Tensor, input_lengths: Tensor, targets: Tensor, target_lengths: Tensor) -> tuple[Tensor, Tensor]:
    """CTC loss (Graves et al. 2006) summed over the batch, blank 0.

    Args:
        logits: ``(B, T, classes)`` of any floating type.
        input_lengths: ``(B,)`` valid frames.
        targets: int64 ``(B, S)``.
        target_lengths: ``(B,)`` valid targets.

    Returns:
        The sum in nats over utterances with a finite loss, and bool ``(B,)``, which of them have an infinite one.
    """
    log_probs = logits.float().log_softmax(-1).transpose(0, 1)  # (T, B, classes)
    with torch.autocast(logits.device.type, enabled=False):
        loss = F.ctc_loss(log_probs, targets, input_lengths, target_lengths, BLANK, reduction="sum", zero_infinity=True)
    return loss, ctc_infeasible(targets, target_lengths, input_lengths)


def cross_entropy_sum(logits: Tensor, targets: Tensor, padding_idx: int, smoothing: float) -> tuple[Tensor, Tensor]:
    """Label-smoothed cross entropy (Szegedy et al. 2016) summed over the tokens that aren't padding.

    Args:
        logits: ``(B, N, classes)``.
        targets: int64 ``(B, N)``.
        padding_idx: target to exclude.
        smoothing: probability mass spread evenly over all classes, 0 to below 1.

    Returns:
        The label-smoothed loss and the negative log-likelihood without smoothing, both in nats.
    """
    log_probs = logits.float().log_softmax(-1)
    keep = targets != padding_idx
    nll = -log_probs.gather(-1, targets[..., None])[..., 0][keep].sum()
    if smoothing == 0:
        return nll, nll
    uniform = -log_probs.mean(-1)[keep].sum()
    return (1 - smoothing) * nll + smoothing * uniform, nll


def frame_cross_entropy_sum(logits: Tensor, targets: Tensor, unknown: int) -> tuple[Tensor, Tensor, Tensor]:
    """Cross entropy summed over the frames whose class is known.

    Args:
        logits: ``(B, T, classes)``.
        targets: int64 ``(B, T)``.
        unknown: target of frames to exclude, negative.

    Returns:
        The sum in nats, the number of frames in it, and the number of those whose most likely class is correct.
    """
    loss = F.cross_entropy(logits.float().transpose(1, 2), targets, ignore_index=unknown, reduction="sum")
    known = targets != unknown
    return loss, known.sum(), (logits.argmax(-1) == targets).logical_and(known).sum()


def symmetric_kl_sum(logits: Tensor, targets: Tensor, padding_idx: int) -> Tensor:
    """Mean of both Kullback-Leibler divergences between the halves of a repeated batch (R-Drop, Liang et al. 2021).

    Args:
        logits: ``(2B, N, classes)``, the first pass followed by the second.
        targets: int64 ``(B, N)``; padding is excluded.
        padding_idx: padding symbol.

    Returns:
        The sum over all target tokens, in nats.
    """
    one, other = logits.float().log_softmax(-1).chunk(2)
    keep = (targets != padding_idx)[..., None]
    # (p - q)(log p - log q), summed over the classes, is the sum of the divergences in both directions.
    both = (one.exp() - other.exp()) * (one - other)
    return 0.5 * (both * keep).sum()
