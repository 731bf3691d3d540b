"""What one session may use up, so that it costs only itself."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass, field
from typing import Any


def _limit(default: float, help_text: str) -> Any:
    return field(default=default, metadata={"help": help_text})


@dataclass(frozen=True)
class Limits:
    """Limits of a server; each is an option of the command line.

    Raises:
        ValueError: a limit that isn't positive.
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
    """The limits that the options ask for."""
    return Limits(**{limit.name: getattr(args, limit.name) for limit in dataclasses.fields(Limits)})


class Meter:
    """A token bucket: so much a second on average, and ``burst`` at once.

    Args:
        rate: units a second.
        burst: units that may come at once.
        now_s: time at which it starts, full.
    """

    def __init__(self, rate: float, burst: float, now_s: float) -> None:
        self.rate, self.burst = rate, burst
        self._left, self._then_s = burst, now_s

    def take(self, amount: float, now_s: float) -> bool:
        """Whether ``amount`` more is within the rate."""
        self._left = min(self.burst, self._left + self.rate * (now_s - self._then_s))
        self._then_s = now_s
        if amount > self._left:
            return False
        self._left -= amount
        return True
