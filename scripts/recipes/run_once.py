"""Run a command unless it already finished with the same arguments and the same contents of its inputs.

    python run_once.py --data-root DIR --name clusters --inputs A B --outputs C -- python learn_units.py ...

Where the data and the interpreter lie doesn't count. An output file that was changed or damaged since is made again.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from scripts.files import digest
from scripts.work import Ledger


def outputs_key(name: str) -> str:
    """Key under which the checksum of a stage's outputs is kept."""
    return f"{name} (outputs)"


def files_among(outputs: list[Path]) -> list[Path]:
    """Outputs that are checksummed: files. A folder may go on filling."""
    return [path for path in outputs if path.is_file()]


def outputs_are_intact(ledger: Ledger, name: str, outputs: list[Path]) -> bool:
    """Whether the output files are those that the stage left; true where that was not recorded."""
    key = outputs_key(name)
    if not ledger.known(key) or ledger.is_done(key, digest(*files_among(outputs))):
        return True
    print(f"{name}: an output was changed since it was made: {', '.join(map(str, outputs))}", flush=True)
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description="Run a stage of a recipe once.")
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--name", required=True, help="key of the stage in DATA_ROOT/.done.tsv")
    parser.add_argument("--inputs", type=Path, nargs="*", default=[], help="files and folders that the stage reads")
    parser.add_argument("--outputs", type=Path, nargs="*", default=[], help="files that the stage leaves behind")
    parser.add_argument(
        "--partial", type=Path, nargs="*", default=[], help="folders of unfinished work, worthless with other inputs"
    )
    parser.add_argument("--uncounted", nargs="*", default=[], help="further arguments, without effect on the outputs")
    parser.add_argument("--dry-run", action="store_true", help="only say whether and how the command would run")
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()

    missing = [path for path in args.inputs if not path.exists()]
    if missing and args.dry_run:
        print(f"{args.name}: would run, once there is {missing[0]}: {shlex.join(args.command)}", flush=True)
        return
    if missing:
        raise SystemExit(f"error: stage {args.name} needs {missing[0]}; run the earlier stages first")
    # Of a path only the last name counts here: contents count as an input, and folders may move.
    names = {str(args.data_root): "DATA_ROOT"}
    command = [names.get(part) or (Path(part).name if "/" in part else part) for part in args.command[1:]]
    work_digest = digest(*command, *args.inputs)
    ledger = Ledger(args.data_root / ".done.tsv")
    if ledger.is_done(args.name, work_digest, args.outputs) and outputs_are_intact(ledger, args.name, args.outputs):
        print(f"{args.name}: already done", flush=True)
        return
    if args.dry_run:
        print(f"{args.name}: would run: {shlex.join(args.command)}", flush=True)
        return
    begun = f"{args.name} (begun)"
    if not ledger.is_done(begun, work_digest):
        for path in args.partial:
            if path.exists():
                shutil.rmtree(path)
        ledger.mark(begun, work_digest)
    try:
        finished = subprocess.run([*args.command, *args.uncounted], check=False)
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        raise SystemExit(f"error: stage {args.name} cannot start {args.command[0]}: {error}") from error
    if finished.returncode:
        sys.exit(finished.returncode)
    for path in args.outputs:
        if not path.exists():
            raise SystemExit(f"error: stage {args.name} ended without writing {path}")
    ledger.mark(outputs_key(args.name), digest(*files_among(args.outputs)))
    ledger.mark(args.name, work_digest)


if __name__ == "__main__":
    main()
