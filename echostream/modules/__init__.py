"""Building blocks of EchoStream in plain torch, one mechanism per file, independent of fairseq and SimulEval."""
