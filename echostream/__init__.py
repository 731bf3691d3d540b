"""EchoStream: simultaneous speech-to-speech translation that carries state.

``import echostream`` loads nothing heavy. What is offered here is imported when it is first asked for::

    from echostream import StreamingTranslator

With fairseq's ``--user-dir``, fairseq is there already, and importing the package registers task, models and criterion;
a program that imports ``echostream`` before fairseq imports :mod:`echostream.tasks` to the same end.
"""

import importlib
import sys

__version__ = "0.2.0"

# Where each public name is defined.
_PUBLIC = {
    "EchoStreamModel": "echostream.models",
    "EchoStreamState": "echostream.streaming",
    "ModelSettings": "echostream.checkpoints",
    "StepOutput": "echostream.streaming",
    "StreamingTranslator": "echostream.streaming",
    "Translation": "echostream.streaming",
    "open_audio": "echostream.audio.input",
}
__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


if "fairseq" in sys.modules:
    importlib.import_module("echostream.tasks")
