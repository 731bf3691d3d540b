"""Judge a model: every test set at every segment size, other policies, a cascade and the ceiling; tables and plots.

    python scripts/judging/judge.py --model models/fr-en --everyday runs/everyday --asterisk runs/asterisk/fr-en \\
        --data-root runs/phrasebook --multi30k runs/multi30k --output runs/judgement
    python scripts/judging/judge.py ... --limit 10        # a first look

Each test set is a folder that simuleval_lists.py has written (source.txt, target.txt, source_text.txt, and
target_audio.txt for the ceiling); --set NAME=FOLDER adds one. What is finished is not done again, so stop and start at
will; --report alone writes tables and plots of what there is. They come with results.json, from which
scripts/judging/judge_report.py puts them into Markdown files.

Reading the output back takes most of the time: about 0.8 s a sentence for Whisper base in int8 and half of that for
tiny.en, on one thread, for speech as played and again without its pauses. --limit N takes the first N sentences of each
set, --limit NAME=N of one; by default 300, and all of the human recordings. The judges after the first read at
--beside-at alone.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from echostream.checkpoints.model_folder import ModelSettings
from echostream.constants import DEFAULT_SEGMENT_MS
from scripts.benchmarks.benchmarking import machine_facts
from scripts.benchmarks.figures import require_plotting, write_json
from scripts.judging.evaluation import RUN, SCORES, read_scores
from scripts.judging.judgement import (
    CASCADE,
    OFFLINE,
    POLICIES,
    SEGMENTS,
    SETS,
    STREAMING_CASCADE,
    as_results,
    write_report,
)
from scripts.judging.long_set import MAX_MINUTES

SCRIPTS = Path(__file__).resolve().parents[1]
# The main ones first: a judgement that is stopped has them.
RUN_ORDER = (DEFAULT_SEGMENT_MS, OFFLINE, 40, 160, 640)
LONG = "long"  # folder of the long streams of a set
LISTS = ("source.txt", "target.txt", "source_text.txt")


@dataclass(frozen=True)
class Job:
    """A command line, and what to call it."""

    name: str
    command: list[str]


def main() -> None:
    args = parse_arguments()
    require_plotting()
    sets = find_sets(args)
    args.output.mkdir(parents=True, exist_ok=True)
    failures = []
    if not args.report:
        try:
            failures = run_all(list(preparations(sets, args)), args.jobs)
            failures = failures or run_all(list(judgements(sets, args)), args.jobs)
        except KeyboardInterrupt:
            failures = ["interrupted"]
    write_results(sets, args)
    if failures:
        raise SystemExit(f"error: {failures[0]} ({len(failures)} in all); start again to go on from here")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Judge a model on all test sets, and write tables and plots.")
    parser.add_argument("--model", type=Path, required=True, help="folder with model.yaml, or a checkpoint")
    parser.add_argument("--vocoder", type=Path, help="default: beside the checkpoint")
    parser.add_argument("--data-root", type=Path, help="of the phrasebook recipe: simuleval_sentences and the like")
    parser.add_argument("--everyday", type=Path, help="of the everyday recipe: simuleval_tatoeba, simuleval_armelle")
    parser.add_argument("--asterisk", type=Path, help="of scripts/recipes/asterisk: its folder fr-en")
    parser.add_argument("--multi30k", type=Path, help="of scripts/recipes/multi30k")
    parser.add_argument(
        "--set", dest="more", action="append", default=[], metavar="NAME=FOLDER", help="another test set's lists"
    )
    parser.add_argument("--sets", nargs="+", metavar="NAME", help="only these (default: all that are found)")
    parser.add_argument("--segments", type=int, nargs="+", default=[*SEGMENTS, OFFLINE], help="ms, 0: whole utterance")
    parser.add_argument("--policies", nargs="+", default=list(POLICIES), choices=POLICIES, help="the first is ours")
    parser.add_argument(
        "--policy-sets", nargs="+", metavar="NAME", help="sets for the other policies (default: the first)"
    )
    parser.add_argument("--stride-n", type=int, help="of our policy (default: as the model's folder says)")
    parser.add_argument("--lag-k", type=int, help="likewise")
    parser.add_argument("--wait-k", type=int, help="words that the policy wait-k stays behind (default: its own)")
    parser.add_argument("--no-cascade", action="store_true", help="leave Whisper base and Hibari out")
    parser.add_argument(
        "--streaming-cascade-ms", type=int, nargs="*", default=[DEFAULT_SEGMENT_MS, 960], metavar="MS",
        help="segments after which Whisper listens again and what it repeats is final (default: %(default)s; costly)",
    )  # fmt: skip
    parser.add_argument(
        "--limit",
        action="append",
        default=[],
        metavar="[NAME=]N",
        help="sentences a set (default: all of asterisk and armelle, 300)",
    )
    parser.add_argument(
        "--long-minutes", type=float, default=0.0, metavar="N",
        help="the sentences of each set on end, too, as streams of so many minutes (evaluate_long.sh; default: not)",
    )  # fmt: skip
    parser.add_argument("--asr-models", nargs="+", default=["base", "tiny.en"], help="judges, the main one first")
    parser.add_argument(
        "--beside-at",
        type=int,
        nargs="*",
        default=[DEFAULT_SEGMENT_MS, OFFLINE],
        metavar="MS",
        help="where the other judges read too",
    )
    parser.add_argument("--asr-compute", choices=("float32", "int8"), default="int8", help="(default %(default)s)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="evaluations at a time, a thread each")
    parser.add_argument("--output", type=Path, required=True, help="folder for runs, results.json, tables and plots")
    parser.add_argument("--report", action="store_true", help="run nothing, report what is there")
    args = parser.parse_args()
    try:
        args.settings = ModelSettings.of(args.model).with_options(
            policy=args.policies[0], stride_n=args.stride_n, lag_k=args.lag_k
        )
    except ValueError as error:
        parser.error(str(error))
    if not args.settings.checkpoint.is_file():
        parser.error(f"no checkpoint {args.settings.checkpoint} (--model)")
    if not 0 <= args.long_minutes <= MAX_MINUTES:
        parser.error(f"--long-minutes must be from 0 to {MAX_MINUTES:g}")
    if args.jobs < 1:
        parser.error("--jobs must be at least 1")
    args.limits = parse_limits(args.limit, parser)
    return args


def parse_limits(given: list[str], parser: argparse.ArgumentParser) -> dict[str, int]:
    """Sentences of each set; "" for all others, 0 for no limit. The human recordings are few and wanted whole."""
    numbers = {}
    for text in given:
        name, _, number = text.rpartition("=")
        if not number.isdecimal():
            parser.error(f"--limit is N or NAME=N, not '{text}'")
        numbers[name] = int(number)
    return numbers if "" in numbers else {"": 300, "asterisk": 0, "armelle": 0, **numbers}


def find_sets(args: argparse.Namespace) -> dict[str, Path]:
    """Folders of the test sets by name, in the order of the report.

    Raises:
        SystemExit: a set that was asked for isn't there, or none is.
    """
    roots = {
        "everyday": args.everyday,
        "phrasebook": args.data_root,
        "asterisk": args.asterisk,
        "multi30k": args.multi30k,
    }
    known = {name: roots[kind] / folder for name, (kind, folder, _) in SETS.items() if roots[kind] is not None}
    for text in args.more:
        name, _, folder = text.partition("=")
        if not folder:
            raise SystemExit(f"error: --set is NAME=FOLDER, not '{text}'")
        known[name] = Path(folder)
    wanted = args.sets or [name for name, folder in known.items() if folder.is_dir()]
    for name in [*wanted, *(args.policy_sets or [])]:
        if name not in known:
            raise SystemExit(f"error: no test set {name}: known are {', '.join(known) or 'none'} (--data-root, --set)")
        if missing := [file for file in LISTS if not (known[name] / file).is_file()]:
            raise SystemExit(f"error: the test set {name} lacks {known[name] / missing[0]}: run its recipe")
    if not wanted:
        raise SystemExit(
            "error: no test sets: give --data-root, --everyday, --asterisk, --multi30k or --set NAME=FOLDER"
        )
    return {name: known[name] for name in known if name in wanted}


def limit_of(name: str, args: argparse.Namespace) -> int:
    return args.limits.get(name, args.limits[""])


def preparations(sets: dict[str, Path], args: argparse.Namespace) -> Iterator[Job]:
    """Word ends and ceilings, which all evaluations of a set share."""
    for name, folder in sets.items():
        limit = ["--limit", str(limit_of(name, args))]
        command = [sys.executable, str(SCRIPTS / "judging" / "word_ends.py"), "--source", str(folder / "source.txt")]
        command += ["--source-text", str(folder / "source_text.txt"), "--output", str(word_ends(name, args)), *limit]
        yield Job(f"first words of {name}", command)
        if (folder / "target_audio.txt").is_file():
            command = [sys.executable, str(SCRIPTS / "judging" / "ceiling.py"), *limit, "--asr-model", *args.asr_models]
            command += ["--recordings", str(folder / "target_audio.txt"), "--target", str(folder / "target.txt")]
            command += ["--asr-compute", args.asr_compute, "--asr-cache", str(args.output / "transcripts.jsonl")]
            yield Job(f"ceiling of {name}", [*command, "--output", str(args.output / name / "ceiling.json")])


def word_ends(name: str, args: argparse.Namespace) -> Path:
    return args.output / name / "first_words.txt"


def judgements(sets: dict[str, Path], args: argparse.Namespace) -> Iterator[Job]:
    """Evaluations, one for each set, policy and segment size, and the cascade; the main ones first."""
    order = sorted(args.segments, key=lambda ms: RUN_ORDER.index(ms) if ms in RUN_ORDER else len(RUN_ORDER))
    ours, *others = args.policies
    for segment in order:
        for name in sets:
            yield evaluation(name, sets[name], ours, segment, args)
    if not args.no_cascade:
        for name in sets:
            yield evaluation(name, sets[name], CASCADE, OFFLINE, args)
            for segment in args.streaming_cascade_ms:
                yield evaluation(name, sets[name], STREAMING_CASCADE, segment, args)
    if args.long_minutes:
        for name in sets:
            yield long_streams(name, sets[name], args)
    for segment in order:
        for policy in others:
            for name in policy_sets(sets, args):
                yield evaluation(name, sets[name], policy, segment, args)


def long_streams(name: str, folder: Path, args: argparse.Namespace) -> Job:
    """scripts/evaluate_long.sh for one set."""
    command = [str(SCRIPTS / "evaluate_long.sh"), "--model", str(args.model), "--source", str(folder / "source.txt")]
    command += ["--target", str(folder / "target.txt"), "--source-text", str(folder / "source_text.txt")]
    command += [
        "--minutes",
        f"{args.long_minutes:g}",
        "--limit",
        str(limit_of(name, args)),
        "--policy",
        args.policies[0],
    ]
    for option, value in (("--vocoder", args.vocoder), ("--stride-n", args.stride_n), ("--lag-k", args.lag_k)):
        command += [option, str(value)] if value is not None else []
    return Job(f"{name}, long streams", [*command, "--output", str(args.output / name / LONG)])


def policy_sets(sets: dict[str, Path], args: argparse.Namespace) -> list[str]:
    return [name for name in sets if name in args.policy_sets] if args.policy_sets else list(sets)[:1]


def run_folder(name: str, system: str, segment: int, args: argparse.Namespace) -> Path:
    """--output of an evaluation; a folder for each size, since those of one set run at the same time."""
    return args.output / name / system / RUN.format(segment)


def evaluation(name: str, folder: Path, system: str, segment: int, args: argparse.Namespace) -> Job:
    """scripts/evaluate.sh for one cell of the table."""
    command = [str(SCRIPTS / "evaluate.sh"), "--source", str(folder / "source.txt")]
    command += ["--target", str(folder / "target.txt"), "--source-text", str(folder / "source_text.txt")]
    command += ["--first-word-ends", str(word_ends(name, args)), "--limit", str(limit_of(name, args))]
    judges = args.asr_models if segment in args.beside_at else args.asr_models[:1]
    command += ["--asr-model", " ".join(judges), "--asr-compute", args.asr_compute]
    command += ["--asr-cache", str(args.output / "transcripts.jsonl")]
    if system == CASCADE:
        command.append("--cascade")
    elif system == STREAMING_CASCADE:
        command += ["--streaming-cascade", "--segments", str(segment)]
    else:
        command += ["--model", str(args.model), "--policy", system, "--segments", str(segment)]
        command += ["--vocoder", str(args.vocoder)] if args.vocoder else []
        ours = {"--stride-n": args.stride_n, "--lag-k": args.lag_k}
        given = ours if system == args.policies[0] else {"--lag-k": args.wait_k} if system == "wait-k" else {}
        command += [text for name, value in given.items() if value is not None for text in (name, str(value))]
    size = f"{segment} ms" if segment else "offline"
    return Job(f"{name}, {system}, {size}", [*command, "--output", str(run_folder(name, system, segment, args))])


def run_all(jobs: list[Job], at_a_time: int) -> list[str]:
    """Run jobs, some at a time, and say how far it is; one that fails doesn't keep the others from it.

    Returns:
        What went wrong.
    """
    running: set[subprocess.Popen] = set()
    lock = Lock()
    failures, stopping = [], False

    def run(job: Job) -> str:
        with lock:
            if stopping:
                return ""
            # A session of its own: Ctrl-C comes to us alone, and we end the job with all its children.
            process = subprocess.Popen(
                job.command,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHON": sys.executable},
                start_new_session=True,
            )
            running.add(process)
        _, errors = process.communicate()
        with lock:
            running.discard(process)
        return "" if process.returncode == 0 else last_line(errors) or f"exit status {process.returncode}"

    with ThreadPoolExecutor(at_a_time) as pool:
        futures = {pool.submit(run, job): job for job in jobs}
        try:
            for count, future in enumerate(as_completed(futures), 1):
                name = futures[future].name
                if error := future.result():
                    failures.append(f"{name}: {error.removeprefix('error: ')}")
                print(
                    f"{time.strftime('%H:%M:%S')} {count} of {len(jobs)}: {failures[-1] if error else name}", flush=True
                )
        except KeyboardInterrupt:
            with lock:
                stopping = True
                for process in running:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGTERM)
            raise
    return failures


def last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def collect(sets: dict[str, Path], args: argparse.Namespace) -> list[dict]:
    """The finished evaluations as rows."""
    rows = []
    for name in sets:
        systems = [(policy, segment) for policy in args.policies for segment in sorted(args.segments)]
        systems += [(CASCADE, OFFLINE), *((STREAMING_CASCADE, ms) for ms in sorted(args.streaming_cascade_ms))]
        for system, segment in systems:
            run = run_folder(name, system, segment, args) / RUN.format(segment)
            if (run / SCORES).is_file():
                with (run / "instances.log").open(encoding="utf-8") as file:
                    sentences = sum(1 for _ in file)
                rows.append(
                    {
                        "set": name,
                        "system": system,
                        "segment_ms": segment,
                        "sentences": sentences,
                        "scores": read_scores(run),
                    }
                )
    return rows


def write_results(sets: dict[str, Path], args: argparse.Namespace) -> None:
    """results.json, and tables and plots from it."""
    ceilings = {}
    for name in sets:
        path = args.output / name / "ceiling.json"
        if path.is_file():
            ceilings[name] = json.loads(path.read_text(encoding="utf-8"))["scores"]
    long = {}
    for name in sets:
        path = args.output / name / LONG / "results.json"
        if path.is_file():
            long[name] = json.loads(path.read_text(encoding="utf-8"))
    rows = collect(sets, args)
    if not rows:
        print("nothing is finished yet, so there is nothing to report", file=sys.stderr)
        return
    results = as_results(rows, ceilings, args, machine_facts(), long)
    write_json(args.output / "results.json", results)
    print("\n\n".join(write_report(results, args.output / "report").values()))
    print(f"\ntables and plots: {args.output / 'report'}; put them into files with scripts/judging/judge_report.py")


if __name__ == "__main__":
    main()
