"""Places where fairseq's own training stops and EchoStream's goes on, or says more."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from fairseq import models, registry, tasks
from fairseq.distributed import utils as distributed_utils
from fairseq.models import distributed_fairseq_model
from fairseq.trainer import Trainer
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch.nn.parallel import DistributedDataParallel

from echostream.tasks.manifests import exit_with_message

logger = logging.getLogger(__name__)

MAX_NAMED = 64  # ids in a message


class _DataParallel(DistributedDataParallel):
    """torch's wrapper, also for a model on CPUs, for which it refuses the device that fairseq always gives."""

    def __init__(self, module: torch.nn.Module, device_ids: Any = None, output_device: Any = None, **options: Any):
        if next(module.parameters()).device.type == "cpu":
            device_ids = output_device = None
        super().__init__(module, device_ids=device_ids, output_device=output_device, **options)


def install() -> None:
    """Make fairseq's default ``--ddp-backend`` work on CPUs and its trainings on several processes go on, name the
    utterances of a step that is not finite, and options that task, model or criterion don't have.

    Further calls have no effect.
    """
    if distributed_fairseq_model.DistributedDataParallel is _DataParallel:
        return
    distributed_fairseq_model.DistributedDataParallel = _DataParallel
    distributed_utils.broadcast_object = _broadcast_plainly(distributed_utils.broadcast_object)
    for module in (tasks, models, registry):
        _name_unknown_options(module)
    train_step = Trainer.train_step

    @functools.wraps(train_step)
    def step(self: Trainer, samples: list[dict[str, Any]], *args: Any, **options: Any) -> Any:
        try:
            return train_step(self, samples, *args, **options)
        except FloatingPointError as error:
            ids = [name for sample in samples for name in (sample or {}).get("ids", ())]
            if ids:
                more = f" and {len(ids) - MAX_NAMED} more" if len(ids) > MAX_NAMED else ""
                logger.error(
                    f"update {self.get_num_updates() + 1}: {error}; the utterances of this process were "
                    f"{', '.join(ids[:MAX_NAMED])}{more}"
                )
            raise

    Trainer.train_step = step


def _broadcast_plainly(broadcast: Callable[..., Any]) -> Callable[..., Any]:
    """Send the configuration in a checkpoint, which nothing asks for after that, as dictionaries.

    The first process reads a checkpoint and sends it to the others, where torch's safe loader refuses the types of
    OmegaConf that fairseq has put its configuration into.
    """

    @functools.wraps(broadcast)
    def plainly(value: Any, *args: Any, **options: Any) -> Any:
        if isinstance(value, dict) and OmegaConf.is_config(value.get("cfg")):
            value = {**value, "cfg": OmegaConf.to_container(value["cfg"], enum_to_str=True)}
        return broadcast(value, *args, **options)

    return plainly


def _name_unknown_options(module: ModuleType) -> None:
    """Make a module of fairseq's end in one line where an option of ours is unknown or of the wrong type."""
    merge = module.merge_with_parent

    @functools.wraps(merge)
    def merged(ours: Any, *args: Any, **options: Any) -> Any:
        if not type(ours).__module__.startswith("echostream."):
            return merge(ours, *args, **options)
        with exit_with_message(OmegaConfBaseException):
            return merge(ours, *args, **options)

    module.merge_with_parent = merged  # type: ignore[attr-defined]  # of a module that is not typed
