"""EchoStream: simultaneous speech-to-speech translation that carries state.

Importing the package registers its task, models and criterion with fairseq, whether it is imported as a library or
through ``--user-dir``.
"""

__version__ = "0.2.0"

import argparse
import logging

import torch

# fairseq checkpoints may carry their command line as a Namespace; naming the type keeps torch's safe loader on.
torch.serialization.add_safe_globals([argparse.Namespace])

# At its import fairseq asks everybody for a package that it draws plots with.
logging.getLogger("fairseq.tasks.text_to_speech").setLevel(logging.WARNING)

from echostream import criterions, models, tasks  # noqa: E402,F401
