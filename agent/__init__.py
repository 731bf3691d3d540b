"""SimulEval agents of EchoStream. As ``--user-dir agent`` this registers the metrics as well."""

import echostream.evaluation  # noqa: F401
