"""The ``echostream`` command: simultaneous translation of files, pipes and the microphone.

Here is only what has to be there first: until the command itself is imported, Ctrl-C ends the process without a word,
as it does afterwards.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Entry of the console command; returns the exit status."""
    if threading.current_thread() is not threading.main_thread():
        from echostream.cli.command import run_command

        return run_command(argv)
    before = signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    try:
        from echostream.cli.command import run_command
    finally:
        signal.signal(signal.SIGINT, before)
    return run_command(argv)
