"""``python -m echostream.simuleval``: SimulEval's own command line with EchoStream's metrics registered."""

from simuleval.cli import main

import echostream.simuleval  # noqa: F401  # importing registers

if __name__ == "__main__":
    main()
