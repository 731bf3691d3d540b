"""Limits of a session, so that no client can impair the others."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass, field
from typing import Any

MOST = 1e9  # of any limit that says nothing else


def _limit(default: float, help_text: str, most: float = MOST) -> Any:
    return field(default=default, metadata={"help": help_text, "most": most})


@dataclass(frozen=True)
class Limits:
    """Limits of a server; each one is an option of the command line.

    Raises:
        ValueError: a limit is not positive, or not finite.
    """

    max_sessions: int = _limit(16, "sessions at a time")
    max_sessions_per_address: int = _limit(4, "sessions of one address; this machine's own has no such limit")
    max_connections_per_address: int = _limit(32, "connections of one address; this machine's own has no such limit")
    max_length_s: float = _limit(3600, "audio of one session or file (s)")
    max_handshake_s: float = _limit(10, "from a connection to its request, and from there to its start message (s)")
    max_idle_s: float = _limit(120, "since the last audio, before a session is ended (s)")
    max_away_s: float = _limit(60, "how long a session whose connection was lost can be resumed (s)")
    max_message_kb: int = _limit(256, "size of one message (kB)", most=1e6)
    max_messages_per_s: float = _limit(200, "messages of one session a second, pings among them")
    max_speed: float = _limit(4, "how many times faster than real time audio may come")
    max_buffer_s: float = _limit(10, "audio of one session that may wait for the model (s)")
    max_unsent_kb: int = _limit(1024, "output that may wait for a slow client, or for one that is away (kB)", most=1e6)
    max_stall_s: float = _limit(15, "how long a client may take or send nothing at all while the server waits (s)")
    max_file_mb: int = _limit(25, "size of a file that is sent to be translated (MB)", most=1e5)
    max_drain_s: float = _limit(30, "how long a server that stops goes on with what it has heard (s)")

    def __post_init__(self) -> None:
        for limit in dataclasses.fields(self):
            value, most = getattr(self, limit.name), limit.metadata["most"]
            if not value > 0:
                raise ValueError(f"{option(limit.name)} must be positive, got {value:g}")
            if value > most:
                raise ValueError(f"{option(limit.name)} must be at most {most:.0f}, got {value:g}")


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

    def is_full(self, now_s: float) -> bool:
        """Whether nothing was used of late, so that a new meter would say the same."""
        return self._available + self.rate * (now_s - self._updated_s) >= self.burst
