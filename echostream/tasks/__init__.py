"""fairseq tasks of EchoStream; importing this package registers the task ``echostream``."""

from echostream.tasks.echostream import EchoStreamTask, EchoStreamTaskConfig
from echostream.tasks.manifests import ManifestError

__all__ = ["EchoStreamTask", "EchoStreamTaskConfig", "ManifestError"]
