"""Run the shards of a command as jobs, through submitit: in processes of this machine, or on a SLURM cluster.

    python submit.py --where slurm --options "slurm_partition=cpu timeout_min=600" --logs DIR/jobs --num-shards 8 -- \
      python tool.py ...

Each job runs the command with `--num-shards N --shard I --jobs J` added. Commands resume by themselves, so a job that
is pre-empted or reaches its time limit is simply put in the queue again.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts.command_line import positive, require

INSTALL_HINT = "pip install -e '.[cluster]'"
DAY_MIN = 24 * 60
POLL_S = 0.5
LAST_LINES = 5


class ShardCommand:
    """What a job does: run one command, its output into the job's log, and give back its exit status."""

    def __init__(self, command: list[str]):
        self.command = command

    def __call__(self) -> int:
        # A group of its own: whatever ends this job also ends the workers that the command has started.
        process = subprocess.Popen(self.command, start_new_session=True)
        try:
            return process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise

    def checkpoint(self) -> Any:
        """What submitit puts into the queue when the scheduler stops the job: the same once more."""
        # The job has this class alone, by value: nothing of this file's imports that is not installed.
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def parse_options(text: str) -> dict[str, Any]:
    """Parameters for submitit from "key=value ..." (values are JSON where they can be) or the name of a JSON file.

    Raises:
        SystemExit: a part that is neither, or a file that isn't a JSON object.
    """
    options: dict[str, Any] = {}
    for part in text.split():
        key, equals, value = part.partition("=")
        if equals:
            try:
                options[key] = json.loads(value)
            except ValueError:
                options[key] = value
            continue
        try:
            content = json.loads(Path(part).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            reason = f"{part!r} is neither key=value nor a JSON file: {error}"
            raise SystemExit(f"error: --submit-options: {reason}") from error
        if not isinstance(content, dict):
            raise SystemExit(f"error: --submit-options: {part} holds no JSON object")
        options |= content
    return options


def last_lines(path: Path) -> str:
    """End of a log that may not exist, without submitit's own lines."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    lines = text.replace("\r", "\n").strip().splitlines()
    return "\n".join([line for line in lines if not line.startswith("submitit ")][-LAST_LINES:])


@contextmanager
def stderr_into(path: Path) -> Iterator[None]:
    """What processes that are started inside write to standard error goes into a file.

    submitit's own processes on this machine answer Ctrl-C with a traceback each.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with path.open("ab") as file:
            os.dup2(file.fileno(), 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)


def wait_for(jobs: dict[int, Any], total: int) -> list[int]:
    """Show a bar until all jobs (by shard) have ended; returns the shards that failed."""
    failed, waiting = [], dict(jobs)
    with require("tqdm").tqdm(total=total, desc="shards", unit="shard") as progress:
        while waiting:
            for shard, job in list(waiting.items()):
                if job.done():
                    del waiting[shard]
                    failed += [] if job.exception() is None and job.result() == 0 else [shard]
                    progress.update()
            if waiting:
                time.sleep(POLL_S)
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the shards of a command as jobs.")
    parser.add_argument("--where", choices=("local", "slurm"), required=True)
    parser.add_argument("--options", default="", help="for submitit: key=value pairs or a JSON file")
    parser.add_argument("--logs", type=Path, required=True, help="folder for what the jobs print")
    parser.add_argument("--num-shards", type=positive, required=True)
    parser.add_argument("--shard", type=int, help="only this one")
    parser.add_argument("--jobs", type=positive, default=1, help="processes of each shard; the command gets it too")
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    options = {"timeout_min": DAY_MIN, "cpus_per_task": args.jobs} | parse_options(args.options)
    submitit = require("submitit", INSTALL_HINT)

    shards = range(args.num_shards) if args.shard is None else [args.shard]
    jobs: dict[int, Any] = {}
    try:
        executor = submitit.AutoExecutor(folder=args.logs, cluster=args.where)
        executor.update_parameters(name="echostream", **options)
        with stderr_into(args.logs / "submitit.log"):
            for shard in shards:
                share = ["--num-shards", str(args.num_shards), "--shard", str(shard), "--jobs", str(args.jobs)]
                jobs[shard] = executor.submit(ShardCommand([*args.command, *share]))
    except (RuntimeError, TypeError, ValueError, NameError, OSError, submitit.core.utils.FailedJobError) as error:
        for job in jobs.values():
            job.cancel()
        reason = " ".join(str(error).split())
        raise SystemExit(f"error: submitit cannot start jobs ({args.where}): {reason}") from error
    print(f"jobs: {len(jobs)} submitted ({args.where}); what they print goes to {args.logs}", flush=True)
    try:
        failed = wait_for(jobs, len(jobs))
    except KeyboardInterrupt:
        for job in jobs.values():
            job.cancel()
        raise SystemExit(130) from None
    for shard in failed:
        job = jobs[shard]
        print(f"shard {shard} failed, the end of {job.paths.stderr}:", file=sys.stderr)
        print(last_lines(job.paths.stderr), file=sys.stderr)
    if failed:
        raise SystemExit(f"error: {len(failed)} of {len(jobs)} shards failed; the same command does what is missing")


if __name__ == "__main__":
    main()
