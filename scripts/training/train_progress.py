"""Reads the log of fairseq-train and prints what a person wants to know: losses, speed, validation, time left."""

from __future__ import annotations

import argparse
import re
import signal
import sys
import time
from collections.abc import Iterable, Iterator

SHOWN = ("loss", "asr", "st", "mt", "unit")
VALUE = re.compile(r"(\w+)[= ](-?[\d.]+(?:e[-+]?\d+)?)\b")
# what fairseq or Python say when something is wrong
ALARMS = ("echostream: ", "Traceback ", "fairseq-train: error", "train.py: error", "FloatingPointError", "WARNING")
ENDED = re.compile(r"failed \(exitcode: (-?\d+)\) local_rank: (\d+)")  # torchrun, of one of its processes


def minutes(seconds: float) -> str:
    """``"3 min 20 s"``."""
    whole = round(max(0.0, seconds))
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


def summarise(lines: Iterable[str], max_update: int, max_minutes: float) -> Iterator[str]:
    """Turn log lines into progress lines.

    Args:
        lines: the log.
        max_update: updates at which training stops, 0: no such limit.
        max_minutes: minutes after which it stops, 0: no such limit; earlier runs are not seen here, so a resumed run
            may stop sooner than said.
    """
    start = time.monotonic()
    first = None  # update and time of the first report; what came before was starting up
    has_ended = False
    for line in lines:
        if ended := ENDED.search(line):
            has_ended = True
            yield how_it_ended(int(ended[2]), int(ended[1]))
        elif "Traceback " in line and (has_ended or line.startswith("[rank")):
            continue  # torchrun's own, and that of a process which has lost another: how one ended is said above
        elif "| train_inner |" in line:
            values = dict(VALUE.findall(line.split("|", 4)[-1]))
            update = int(float(values.get("num_updates", 0)))
            now = time.monotonic()
            elapsed = now - start
            first = first or (update, now)
            left = [60 * max_minutes - elapsed] if max_minutes else []
            if max_update and update > first[0]:
                left.append((max_update - update) * (now - first[1]) / (update - first[0]))
            losses = "  ".join(f"{name} {values[name]}" for name in SHOWN if name in values)
            total = f"/{max_update}" if max_update else ""
            rest = f", about {minutes(min(left))} left" if left else ""
            yield f"update {update}{total}  {losses}  [{minutes(elapsed)}{rest}]"
        elif " subset | loss " in line:
            yield "validation: " + line.split(" subset | ", 1)[1].strip()
        elif "Saved checkpoint" in line or "Loaded checkpoint" in line or "done training" in line:
            yield line.rsplit(" | ", 1)[-1].strip()
        elif any(alarm in line for alarm in ALARMS):
            yield line.rstrip("\n")


def how_it_ended(rank: int, status: int) -> str:
    """What became of one of several processes; a negative ``status`` is a signal's."""
    how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    return f"process {rank} {how}, and the others with it: the same command goes on from the last checkpoint"


def main() -> None:
    parser = argparse.ArgumentParser(description="Summarise the log of fairseq-train read from standard input.")
    parser.add_argument("--max-update", type=int, default=0, help="updates at which training stops, 0: no limit")
    parser.add_argument("--max-minutes", type=float, default=0, help="minutes after which it stops, 0: no limit")
    args = parser.parse_args()
    for line in summarise(sys.stdin, args.max_update, args.max_minutes):
        print(line, flush=True)


if __name__ == "__main__":
    main()
