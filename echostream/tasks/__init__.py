"""fairseq's side of EchoStream: importing this package registers the task, the models and the criterion."""

import argparse
import logging

import torch

# fairseq checkpoints may carry their command line as a Namespace; naming the type keeps torch's safe loader on.
torch.serialization.add_safe_globals([argparse.Namespace])

# At its import fairseq asks everybody for a package that it draws plots with.
logging.getLogger("fairseq.tasks.text_to_speech").setLevel(logging.WARNING)

from echostream import criterions  # noqa: E402,F401  # registers
from echostream.tasks import checkpoint_files, fairseq_models  # noqa: E402,F401  # registers
from echostream.tasks.config import EchoStreamTaskConfig  # noqa: E402
from echostream.tasks.echostream import EchoStreamTask  # noqa: E402
from echostream.tasks.manifests import ManifestError  # noqa: E402

checkpoint_files.install()

__all__ = ["EchoStreamTask", "EchoStreamTaskConfig", "ManifestError"]
