"""EchoStream in SimulEval: agents, instances and metrics.

Importing this package registers the ``ECHO_`` metrics and the instances that record the data for them. SimulEval looks
up metrics before it loads an ``--agent`` file, so also give it the folder of the agents as ``--user-dir``::

    simuleval --user-dir agent --agent agent/speech_to_speech.echostream.agent.py \\
        --latency-metrics ECHO_ATD ...

or run SimulEval as ``python -m echostream.evaluation``, which takes the same options.
"""

from echostream.evaluation import instances, quality, scorers, text_to_speech  # noqa: F401  # importing registers
from echostream.evaluation.agent import EchoStreamASRAgent, EchoStreamS2TTAgent, EchoStreamWordLevelAgent
from echostream.evaluation.text_to_speech import EchoStreamTTSAgent

instances.install()
scorers.install()
text_to_speech.install()

__all__ = ["EchoStreamASRAgent", "EchoStreamS2TTAgent", "EchoStreamTTSAgent", "EchoStreamWordLevelAgent"]
