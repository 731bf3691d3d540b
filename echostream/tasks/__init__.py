"""fairseq's side of EchoStream: importing this package registers the task, the models and the criterion."""

import argparse
import logging

import torch
from fairseq.distributed.utils import _TensorPlaceholder

# fairseq checkpoints may contain their command line as a Namespace, which torch's safe loader refuses unless it is told
# that the type is safe. The other one holds a number, and stands for a tensor of a checkpoint that one process sends to
# the others.
torch.serialization.add_safe_globals([argparse.Namespace, _TensorPlaceholder])

# On import fairseq asks for an optional plotting package, which EchoStream does not need.
logging.getLogger("fairseq.tasks.text_to_speech").setLevel(logging.WARNING)

from echostream import criterions  # noqa: E402,F401  # registers
from echostream.tasks import checkpoint_files, fairseq_faults, fairseq_models, optimizer  # noqa: E402,F401  # registers
from echostream.tasks.config import EchoStreamTaskConfig  # noqa: E402
from echostream.tasks.echostream import EchoStreamTask  # noqa: E402
from echostream.tasks.generation import install_scorer  # noqa: E402
from echostream.tasks.manifests import ManifestError  # noqa: E402

checkpoint_files.install()
fairseq_faults.install()
install_scorer()

__all__ = ["EchoStreamTask", "EchoStreamTaskConfig", "ManifestError"]
