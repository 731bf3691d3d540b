"""The class that a checkpoint's model is of: EchoStream's own, or one that was registered with fairseq.

Nothing here imports fairseq. A class of one's own is found when the folder that registers it was imported before
(``--user-dir``), as in the training that wrote the checkpoint; a file cannot have anything imported.
"""

from __future__ import annotations

import sys
from pathlib import Path

from echostream.checkpoints.errors import CheckpointError
from echostream.models.config import ARCHITECTURES, EchoStreamConfig
from echostream.models.echostream_model import EchoStreamModel

OWN_PREFIX = "echostream"


def find_model_class(path: Path, name: str) -> tuple[type[EchoStreamModel], type[EchoStreamConfig]]:
    """The class of a model and that of its configuration.

    Args:
        path: the file that holds the model, for the message.
        name: under which the model was registered with fairseq, such as ``echostream_tiny``.

    Raises:
        CheckpointError: no such model, or one that isn't an EchoStream model.
    """
    registry = sys.modules.get("fairseq.models")
    model = getattr(registry, "MODEL_REGISTRY", {}).get(name) if name not in ARCHITECTURES else None
    if model is None:
        if name.startswith(OWN_PREFIX):
            return EchoStreamModel, EchoStreamConfig
        raise CheckpointError(
            f"{path} holds a model '{name}', not an echostream one; if its class is your own, name the folder that "
            "registers it with --user-dir"
        )
    config = getattr(registry, "MODEL_DATACLASS_REGISTRY", {}).get(name)
    if not issubclass(model, EchoStreamModel) or config is None or not issubclass(config, EchoStreamConfig):
        raise CheckpointError(
            f"{path} holds a model '{name}', not an echostream one; its class would have to derive from "
            "EchoStreamModel, and that of its options from EchoStreamConfig"
        )
    return model, config
