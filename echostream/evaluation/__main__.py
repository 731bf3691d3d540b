"""``python -m echostream.evaluation``: SimulEval's own command line with EchoStream's metrics registered."""

from simuleval.cli import main

import echostream.evaluation  # noqa: F401  # importing registers

if __name__ == "__main__":
    main()
