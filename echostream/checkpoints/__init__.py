"""Every file that is read or written as a model: safe loading, formats and their versions, other people's weights."""

from echostream.checkpoints.model_folder import ModelSettings
from echostream.checkpoints.training_checkpoint import CheckpointError, load_model

__all__ = ["CheckpointError", "ModelSettings", "load_model"]
