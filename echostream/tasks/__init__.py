"""fairseq tasks of EchoStream; importing this package registers the task ``echostream``."""

from echostream.tasks import checkpoint_files
from echostream.tasks.echostream import EchoStreamTask, EchoStreamTaskConfig
from echostream.tasks.manifests import ManifestError

checkpoint_files.install()

__all__ = ["EchoStreamTask", "EchoStreamTaskConfig", "ManifestError"]
