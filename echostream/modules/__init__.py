"""Mechanisms of EchoStream, one a file, in plain torch: they know neither fairseq nor SimulEval."""
