"""Options of ``echostream serve``, defined without importing large packages."""

from __future__ import annotations

import argparse
from pathlib import Path

from echostream.cli.options import add_model_options, at_least
from echostream.constants import TASKS
from echostream.serve.limits import add_limits

EXAMPLES = """examples:
  echostream serve --model models/fr-en
  echostream serve --model checkpoint_best.pt --task s2tt --segment-ms 160 --port 9000
  echostream serve --model checkpoint_best.pt --host 0.0.0.0 --certificate cert.pem --key key.pem

The page asks for the microphone, which browsers give to localhost and to https only. The protocol for programs is
described in docs/protocol.md; scripts/demo/serve_client.py is a client. /health and /metrics (Prometheus) watch the
server.
"""


def add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options and examples of ``echostream serve``."""
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1: this machine only)")
    parser.add_argument("--port", type=int, default=8765, help="port to listen on; 0: any free one (8765)")
    parser.add_argument("--certificate", type=Path, help="TLS certificate (PEM), for https")
    parser.add_argument("--key", type=Path, help="its key (PEM), if the certificate's file doesn't hold it")
    parser.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="URL",
        help="another site whose pages may connect, such as https://example.org; may be repeated",
    )
    parser.add_argument(
        "--trust-proxy",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="proxy, or network of proxies, whose X-Forwarded-For tells the clients' addresses; may be repeated",
    )
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="access tokens, one a line: only who has one is served (or one in the variable ECHOSTREAM_TOKEN)",
    )
    parser.add_argument(
        "--state-dir",
        type=Path,
        metavar="DIR",
        help="save sessions there, so that a restarted server, or another one with the same model, goes on with them",
    )
    parser.add_argument("--source-lang", metavar="TAG", help="language heard, such as fr (the model's)")
    parser.add_argument(
        "--target-lang", metavar="TAG", help="language written, such as en: screen readers need to know (the model's)"
    )
    parser.add_argument(
        "--max-batch", type=at_least(1), default=32, metavar="N", help="sessions in a step; 1: one by one (32)"
    )
    parser.add_argument(
        "--task", choices=TASKS, help="of a session that asks for nothing else (s2st with a vocoder, else s2tt)"
    )
    add_model_options(parser)
    add_limits(parser)
