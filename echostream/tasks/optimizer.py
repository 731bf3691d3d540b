"""AdamW (Loshchilov and Hutter 2019) with a learning rate of its own for weights that were learned elsewhere.

Layers that start from Whisper want a tenth of the learning rate that suits heads and decoders that start from nothing.
fairseq's schedulers set one rate; a parameter with the attribute ``lr_scale`` learns at that share of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from fairseq.optim import register_optimizer
from fairseq.optim.adam import FairseqAdam, FairseqAdamConfig
from torch import nn

from echostream.modules.relative_bias import RelativeBias


def scale_learning_rate(module: nn.Module, scale: float) -> None:
    """Let the parameters of ``module`` learn at ``scale`` of the learning rate, see :class:`ScaledAdamW`.

    A relative bias starts from zero whatever the rest starts from, and learns at the whole rate.
    """
    for part in module.modules():
        for parameter in part.parameters(recurse=False) if not isinstance(part, RelativeBias) else ():
            parameter.lr_scale = scale  # type: ignore[attr-defined]


@register_optimizer("echostream_adamw", dataclass=FairseqAdamConfig)
class ScaledAdamW(FairseqAdam):
    """fairseq's ``adam`` computed by torch, on a CPU in one pass over the weights, with ``lr_scale`` heeded.

    Not with ``--fp16`` or ``--bf16``, which join all parameters in one.

    Args:
        cfg: fairseq's options of Adam.
        params: what is trained.
    """

    def __init__(self, cfg: FairseqAdamConfig, params: Iterable[Any]) -> None:
        super(FairseqAdam, self).__init__(cfg)
        by_scale: dict[float, list[Any]] = {1.0: []}  # the first group's rate is the one that fairseq logs
        for parameter in params:
            by_scale.setdefault(getattr(parameter, "lr_scale", 1.0), []).append(parameter)
        groups = [{"params": group, "lr_scale": scale} for scale, group in by_scale.items() if group]
        self._optimizer = torch.optim.AdamW(groups, **self.optimizer_config)
        self.set_lr(self.optimizer_config["lr"])

    @property
    def optimizer_config(self) -> dict[str, Any]:
        """Options of the command line, which replace those in a checkpoint."""
        betas, rate = self.cfg.adam_betas, self.cfg.lr
        if isinstance(betas, str):
            betas = [float(beta) for beta in betas.strip("()[] ").split(",")]
        return {
            "lr": rate if isinstance(rate, float) else rate[0],
            "betas": tuple(betas),
            "eps": self.cfg.adam_eps,
            "weight_decay": self.cfg.weight_decay,
            "fused": True,
        }

    def set_lr(self, lr: float) -> None:
        """Set the learning rate; each group learns at its share of it."""
        for group in self._optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]

    def get_lr(self) -> float:
        """The learning rate before scaling."""
        group = self._optimizer.param_groups[0]
        return group["lr"] / group["lr_scale"]
