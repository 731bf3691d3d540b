"""Limits of a session, so that no client can impair the others."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass, field
from typing import Any


def _limit(default: float, help_text: str) -> Any:
    return field(default=default, metadata={"help": help_text})


@dataclass(frozen=True)
class Limits:
    """Limits of a server; each one is an option of the command line.

    Raises:
        ValueError: a limit is not positive.
    """

    max_sessions: int = _limit(16, "sessions at a time")
    max_length_s: float = _limit(3600, "audio of one session (s)")
    max_idle_s: float = _limit(120, "silence on the line before a session is ended (s)")
    max_message_kb: int = _limit(256, "size of one message (kB)")
    max_messages_per_s: float = _limit(200, "messages of one session a second")
    max_speed: float = _limit(4, "how many times faster than real time audio may come")
    max_buffer_s: float = _limit(10, "audio of one session that may wait for the model (s)")
    max_unsent_kb: int = _limit(1024, "output that may wait for a slow client (kB)")
    max_stall_s: float = _limit(15, "how long a client may take nothing at all while output waits (s)")

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not value > 0:
                raise ValueError(f"{option(name)} must be positive, got {value:g}")


def option(name: str) -> str:
    """The command-line option of a limit."""
    return f"--{name.replace('_', '-')}"


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Add an option for each limit."""
    group = parser.add_argument_group("limits of a session")
    for limit in dataclasses.fields(Limits):
        kind = int if isinstance(limit.default, int) and limit.type == "int" else float
        text = f"{limit.metadata['help']} (%(default)g)"
        group.add_argument(option(limit.name), type=kind, default=limit.default, metavar="N", help=text)


def limits_from(args: argparse.Namespace) -> Limits:
    """The limits in the parsed options."""
    return Limits(**{limit.name: getattr(args, limit.name) for limit in dataclasses.fields(Limits)})


class Meter:
    """Token bucket that limits the average rate and the size of bursts.

    Args:
        rate: allowed units per second on average.
        burst: allowed units at once.
        now_s: current time; the bucket starts full.
    """

    def __init__(self, rate: float, burst: float, now_s: float) -> None:
        self.rate, self.burst = rate, burst
        self._available, self._updated_s = burst, now_s

    def take(self, amount: float, now_s: float) -> bool:
        """Use ``amount`` units; returns False, and uses none, if that exceeds the limit."""
        self._available = min(self.burst, self._available + self.rate * (now_s - self._updated_s))
        self._updated_s = now_s
        if amount > self._available:
            return False
        self._available -= amount
        return True
