"""One table over several SimulEval runs of a model: ``scripts/evaluate.sh`` is the way to run it.

``check`` looks at the lists before hours are spent on them; ``begin`` says whether a run is still to be done;
``table`` joins the runs' ``scores.tsv``.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import soundfile

from echostream.text import text_lines
from scripts.files import digest

SETTINGS = "settings.json"
SCORES = "scores.tsv"  # SimulEval writes it last
TRANSCRIPTS = "transcripts.jsonl"
LIST = ".txt"
RUN = "segment_{}ms"
LOG = "instances.log"  # SimulEval's, a line an utterance
TO_DO, DONE, BEGUN = 0, 3, 4  # exit statuses of `begin`


def check_lists(source: Path, target: Path, limit: int = 0) -> float:
    """Look at a list of sound files and the list of references, one line each.

    Args:
        source, target: the lists.
        limit: only so many sources will be used; 0: all.

    Returns:
        The length of these sources, seconds.

    Raises:
        ValueError: a list that is missing or empty, lengths that differ, or a file that can't be evaluated.
    """
    for path in (source, target):
        if not path.is_file():
            raise ValueError(f"no such list: {path}")
    sources, targets = (text_lines(path) for path in (source, target))
    if not sources or len(sources) != len(targets):
        raise ValueError(f"{source} has {len(sources)} lines, {target} {len(targets)}: they must match")
    total = 0.0
    for number, name in enumerate(sources[: limit or None], 1):
        try:
            info = soundfile.info(name.strip())
        except (OSError, RuntimeError) as error:
            raise ValueError(f"{source}, line {number}: cannot read {name!r} as sound: {error}") from error
        total += info.duration
    return total


def describe(settings: Sequence[str]) -> dict[str, str]:
    """``NAME=VALUE`` pairs, and what tells the files that they name from others, so that a new one is noticed.

    Of a list that is its digest, since tools write lists anew with what they had; of weights it is size and time.
    """
    described = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        described[name] = value
        path = Path(value)
        if path.suffix == LIST and path.is_file():
            described[f"contents of {name}"] = digest(path)
            continue
        files = [path] if path.is_file() else model_files(path) if value and path.is_dir() else []
        stats = [file.stat() for file in files]
        if stats:
            size = sum(stat.st_size for stat in stats)
            described[f"contents of {name}"] = f"{size} bytes, {max(stat.st_mtime_ns for stat in stats)}"
    return described


def model_files(folder: Path) -> list[Path]:
    """What makes a model or a vocoder what it is; samples, say, may be added to its folder meanwhile."""
    names = ("*.pt", "g_*", "model.yaml", "config.json")
    return sorted(path for name in names for path in folder.rglob(name) if path.is_file())


def begin(run: Path, settings: dict[str, str], force: bool = False) -> int:
    """Make ready the directory of a run. One with the same settings goes on; any other unfinished one starts anew.

    Returns:
        TO_DO, DONE, or BEGUN: the utterances in SimulEval's log needn't be done again.

    Raises:
        ValueError: it was done with other settings.
    """
    finished = (run / SCORES).is_file()
    known = json.loads((run / SETTINGS).read_text(encoding="utf-8")) if (run / SETTINGS).is_file() else {}
    if known == settings and not force:
        if finished:
            return DONE
        if keep_whole_lines(run / LOG):
            return BEGUN
    if finished and not force:
        changed = sorted(name for name in {*known, *settings} if known.get(name) != settings.get(name))
        raise ValueError(f"{run} was made with other settings ({', '.join(changed)}): give --force or another --output")
    if run.is_dir():
        shutil.rmtree(run)
    run.mkdir(parents=True)
    (run / SETTINGS).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    return TO_DO


def keep_whole_lines(log: Path) -> bool:
    """Drop the half line that a kill may have left; whether any line is left."""
    if not log.is_file():
        return False
    text = log.read_text(encoding="utf-8", errors="replace")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        log.write_text(whole, encoding="utf-8")
    return bool(whole)


def read_scores(run: Path) -> dict[str, float]:
    """SimulEval's scores of a run; NaN for one that has no value.

    Raises:
        ValueError: the run isn't finished.
    """
    if not (run / SCORES).is_file():
        raise ValueError(f"{run} is not finished: {SCORES} is missing")
    with (run / SCORES).open(encoding="utf-8", newline="") as file:
        row = next(csv.DictReader(file, delimiter="\t"))
    return {name: float(value) if value else math.nan for name, value in row.items()}


def read_readers(run: Path) -> set[str]:
    """Names of the recognisers that read the output speech of a run, as they were asked for where it has no list."""
    path = run / TRANSCRIPTS
    if not path.is_file():
        asked = json.loads((run / SETTINGS).read_text(encoding="utf-8")).get("asr", "")
        return {asked} if asked else set()
    lines = text_lines(path)
    return {json.loads(line)["model"] for line in lines}


def write_table(output: Path, segments_ms: Sequence[int]) -> str:
    """Join the runs of several segment sizes into ``results.json`` and ``results.tsv``.

    Returns:
        The table as text, metrics down and segment sizes across.
    """
    scores = {segment: read_scores(output / RUN.format(segment)) for segment in segments_ms}
    metrics = list(dict.fromkeys(name for row in scores.values() for name in row))
    results = [
        {
            "segment_ms": segment,
            "settings": json.loads((output / RUN.format(segment) / SETTINGS).read_text(encoding="utf-8")),
            "scores": {name: None if math.isnan(value) else value for name, value in row.items()},
        }
        for segment, row in scores.items()
    ]
    readers = sorted({name for segment in segments_ms for name in read_readers(output / RUN.format(segment))})
    document = {"asr_models": readers, "results": results}
    (output / "results.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    with (output / "results.tsv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["segment_ms", *metrics])
        for segment, row in scores.items():
            writer.writerow([segment, *("" if math.isnan(v := row.get(m, math.nan)) else v for m in metrics)])
    width = max(len(name) for name in ["segment", *metrics])
    sizes = (f"{segment} ms" if segment else "offline" for segment in scores)
    lines = [f"{'segment':{width}}" + "".join(f"{size:>12}" for size in sizes)]
    for name in metrics:
        cells = ["-" if math.isnan(v := row.get(name, math.nan)) else f"{v:.2f}" for row in scores.values()]
        lines.append(f"{name:{width}}" + "".join(f"{cell:>12}" for cell in cells))
    lines.append("latency and step times in ms" + "".join(f"; output speech read by {name}" for name in readers))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="look at the lists")
    check.add_argument("--source", type=Path, required=True)
    check.add_argument("--target", type=Path, required=True)
    check.add_argument("--limit", type=int, default=0, help="only the first sources")
    start = commands.add_parser("begin", help="make ready a run; exit status 3: it is finished, 4: it goes on")
    start.add_argument("run", type=Path)
    start.add_argument("--setting", action="append", default=[], metavar="NAME=VALUE")
    start.add_argument("--force", action="store_true")
    table = commands.add_parser("table", help="join finished runs")
    table.add_argument("output", type=Path)
    table.add_argument("--segments", type=int, nargs="+", required=True, help="ms")
    args = parser.parse_args(arguments)
    try:
        if args.command == "check":
            seconds = check_lists(args.source, args.target, args.limit)
            print(f"{args.source}: {seconds / 60:.1f} minutes of sources")
        elif args.command == "begin":
            return begin(args.run, describe(args.setting), args.force)
        else:
            print(write_table(args.output, args.segments))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: cannot use {error.filename or 'the output folder'}: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
