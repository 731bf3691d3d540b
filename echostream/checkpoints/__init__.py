"""Every file that is read or written as a model: safe loading, formats and their versions, other people's weights."""

from echostream.checkpoints.model_files import CheckpointError, load_model
from echostream.checkpoints.model_folder import ModelSettings

__all__ = ["CheckpointError", "ModelSettings", "load_model"]
