"""How well an encoder and its ASR CTC hear, over look-ahead and segment, and how much computing that takes.

    python scripts/benchmarks/benchmark_recognition.py --output runs/recognition \\
        --model whisper-cyclic=runs/cyclic/checkpoint_last.pt --model random=runs/random/checkpoint_last.pt \\
        --set human=runs/everyday/simuleval_tuxpaint --set synthetic=runs/everyday/simuleval_tatoeba \\
        --segments-ms 40 160 320 --right-contexts-ms 0 40 80 160 320 640 --stream-s 600

Greedy, without a language model: word and letter errors are the encoder's and the head's own. Computing is counted in
operations, not timed. With --stream-s the recordings of each set are joined to streams of that length, which are really
streamed: as good in the last minute as in the first, and where Whisper's table of positions begins anew?

The output is a folder with recognition.md and recognition.json, written whenever something is measured. Interrupted, or
with more models, sets or sizes, the same command goes on; what was measured already is measured again only if the
model's or the set's files have changed. Nothing in it is random.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from echostream.checkpoints.errors import CheckpointError
from echostream.checkpoints.model_files import LoadedModel, load_model
from echostream.checkpoints.model_folder import ModelSettings
from echostream.constants import SAMPLE_RATE
from scripts.benchmarks.benchmarking import Record
from scripts.benchmarks.figures import markdown_table, write_json
from scripts.benchmarks.recognition import (
    ELSEWHERE,
    SEAM,
    Errors,
    Setting,
    operations,
    places,
    plan_streams,
    read_set,
    samples_of,
    transcribe_alone,
    transcribe_joined,
)
from scripts.command_line import positive
from scripts.files import digest, write_text
from scripts.speech.recordings import Recording

VERSION = 1  # of what a row means


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    try:
        measure(args)
    except (OSError, ValueError, CheckpointError) as error:
        raise SystemExit(f"error: {error}") from error
    except KeyboardInterrupt:
        raise SystemExit("interrupted: the same command goes on") from None


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure recognition over look-ahead and segment.")
    parser.add_argument(
        "--model", type=named, action="append", required=True, metavar="NAME=PATH", help="checkpoint or model folder"
    )
    parser.add_argument(
        "--set", type=named, action="append", required=True, metavar="NAME=FOLDER", help="source.txt, source_text.txt"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for recognition.md and recognition.json")
    parser.add_argument("--segments-ms", type=int, nargs="*", default=[320], help="0: whole (default: 320)")
    parser.add_argument(
        "--right-contexts-ms",
        type=int,
        nargs="*",
        default=[0, 40, 80, 160, 320, 640],
        help="look-ahead beyond the segment (default: 0 40 80 160 320 640)",
    )
    parser.add_argument("--every", type=positive, default=1, help="only every N-th recording of a set (default: all)")
    parser.add_argument("--stream-s", type=int, default=0, help="join recordings to streams so long (default 0: don't)")
    parser.add_argument("--stream-segment-ms", type=int, default=320, help="of these (default: %(default)s)")
    parser.add_argument("--stream-right-context-ms", type=int, default=320, help="likewise (default: %(default)s)")
    parser.add_argument("--gap-s", type=float, default=0.5, help="silence behind each of them (default: %(default)s)")
    parser.add_argument("--threads", type=positive, default=1, help="(default: %(default)s)")
    args = parser.parse_args()
    sizes = [*args.segments_ms, *args.right_contexts_ms, args.stream_segment_ms, args.stream_right_context_ms]
    if min([*sizes, args.stream_s, args.gap_s]) < 0:
        parser.error("sizes and lengths must not be negative")
    for option in ("model", "set"):
        names = [name for name, _ in getattr(args, option)]
        if len(set(names)) < len(names):
            parser.error(f"--{option}: two of them have the same name")
    return args


def named(text: str) -> tuple[str, Path]:
    """``NAME=PATH`` of an option."""
    name, _, path = text.partition("=")
    if not name or not path:
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=PATH")
    return name, Path(path)


def measure(args: argparse.Namespace) -> None:
    """Measure what is missing, and write both files after each measurement."""
    file = args.output / "recognition.json"
    rows: dict[str, Record] = {row["key"]: row for row in read_rows(file)}
    sets = {name: read_set(folder, args.every) for name, folder in args.set}
    set_digests = {name: digest_of_set(recordings) for name, recordings in sets.items()}
    wanted = []
    for name, path in args.model:
        checkpoint = ModelSettings.of(path).checkpoint
        loaded = load_model(checkpoint)
        of_model = digest(checkpoint.parent if checkpoint.suffix == ".safetensors" else checkpoint)
        for key, facts in measurements(name, args):
            of_row = digest(of_model, set_digests[facts["set"]], args.gap_s if "stream_s" in facts else 0)
            wanted.append(key)
            if rows.get(key, {}).get("digest") == of_row:
                continue
            label = " ".join(str(fact) for fact in facts.values())
            found = measure_row(loaded, sets[facts["set"]], facts, args.gap_s, label)
            rows[key] = {"key": key, "digest": of_row, **facts, "positions": positions(loaded), **found}
            write(args.output, file, rows, wanted)
    write(args.output, file, rows, wanted)
    print(report([rows[key] for key in wanted]))


def digest_of_set(recordings: list[Recording]) -> str:
    return digest(VERSION, *(part for one in recordings for part in (Path(one.audio), one.text)))


def read_rows(file: Path) -> list[Record]:
    """Rows of an earlier run; none if there was none.

    Raises:
        ValueError: the file is something else.
    """
    if not file.is_file():
        return []
    try:
        return list(json.loads(file.read_text(encoding="utf-8"))["rows"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is not what this program writes; choose another --output") from error


def measurements(model: str, args: argparse.Namespace) -> Iterator[tuple[str, Record]]:
    """All that is to be measured of a model: a key, and what it is."""
    for name, _ in args.set:
        settings = [(segment, right) for segment in args.segments_ms for right in args.right_contexts_ms]
        for segment, right in dict.fromkeys(settings):
            facts: Record = {"model": model, "set": name, "segment_ms": segment, "right_context_ms": right}
            yield "/".join(map(str, facts.values())), facts
        if args.stream_s:
            facts = {"model": model, "set": name, "segment_ms": args.stream_segment_ms}
            facts |= {"right_context_ms": args.stream_right_context_ms, "stream_s": args.stream_s}
            yield "/".join(map(str, facts.values())), facts


def positions(loaded: LoadedModel) -> str:
    return str(loaded.model.cfg.encoder_positions)


def measure_row(
    loaded: LoadedModel, recordings: list[Recording], facts: Record, gap_s: float, label: str
) -> dict[str, Any]:
    """One row's figures."""
    setting = Setting(facts["segment_ms"], facts["right_context_ms"])
    alone = [
        Errors.of(text, one.text)
        for text, one in zip(transcribe_alone(loaded, recordings, setting, label), recordings, strict=True)
    ]
    if "stream_s" not in facts:
        count = operations(loaded.model, setting)
        return {"recordings": len(recordings), **rates(sum(alone, Errors())), "operations_per_s": count}
    gap_samples = round(gap_s * SAMPLE_RATE)
    lengths = [len(samples_of(one)) for one in recordings]
    joined: dict[str, Errors] = {}
    same_alone: dict[str, Errors] = {}
    streams = plan_streams(lengths, facts["stream_s"] * SAMPLE_RATE, gap_samples)
    for number, stream in enumerate(streams):
        texts = transcribe_joined(
            loaded, recordings, stream, gap_samples, setting, f"{label}, {number + 1} of {len(streams)}"
        )
        for one, text in zip(stream, texts, strict=True):
            heard = Errors.of(text, recordings[one.number].text)
            for place in ("all", *places(one, loaded.model)):
                joined[place] = joined.get(place, Errors()) + heard
                same_alone[place] = same_alone.get(place, Errors()) + alone[one.number]
    return {
        "streams": len(streams),
        "joined": {place: rates(errors) for place, errors in joined.items()},
        "alone": {place: rates(errors) for place, errors in same_alone.items()},
    }


def rates(errors: Errors) -> Record:
    return {**asdict(errors), "word_rate": errors.word_rate, "letter_rate": errors.letter_rate}


def write(folder: Path, file: Path, rows: dict[str, Record], wanted: list[str]) -> None:
    """Both files: all rows that were ever measured, and the tables of those that are wanted."""
    write_json(file, {"rows": list(rows.values())})
    write_text(folder / "recognition.md", report([rows[key] for key in wanted]) + "\n")


def report(rows: list[Record]) -> str:
    """The tables, in Markdown."""
    alone = [row for row in rows if "stream_s" not in row]
    streams = [row for row in rows if "stream_s" in row]
    tables = [errors_table(alone)] if alone else []
    if streams:
        tables.append(streams_table(streams))
    return "\n\n".join(tables)


def errors_table(rows: list[Record]) -> str:
    """Word and letter errors of each model over segment and right context, the sets side by side."""
    sets = list(dict.fromkeys(row["set"] for row in rows))
    header = ["model", "positions", "segment ms", "right context ms", "GFLOP a second"]
    header += [f"{name}: {kind} %" for name in sets for kind in ("word errors", "letter errors")]
    cells: dict[tuple, dict[str, Record]] = {}
    for row in rows:
        key = (row["model"], row["positions"], row["segment_ms"] or "whole", row["right_context_ms"])
        cells.setdefault(key, {})[row["set"]] = row
    lines: list[list[Any]] = []
    for key, by_set in cells.items():
        count = next(iter(by_set.values()))["operations_per_s"]
        line = [*key, None if count is None else count / 1e9]
        for name in sets:
            line += rates_of(by_set.get(name))
        lines.append(line)
    return markdown_table(header, lines)


def streams_table(rows: list[Record]) -> str:
    """Errors by place in long streams, and of the same recordings alone."""
    header = ["model", "positions", "set", "streams", "where", "word errors %", "alone %", "letter errors %", "alone %"]
    lines: list[list[Any]] = []
    for row in rows:
        minutes = [place for place in row["joined"] if place.startswith("minute")]
        last = [place for place in minutes if place == f"minute {-(-row['stream_s'] // 60)}"]
        for place in dict.fromkeys(("all", "minute 1", *last, SEAM, ELSEWHERE)):
            if place not in row["joined"]:
                continue
            streams = f"{row['streams']} of {row['stream_s']} s"
            pairs = zip(rates_of(row["joined"][place]), rates_of(row["alone"][place]), strict=True)
            figures = [rate for pair in pairs for rate in pair]
            lines.append([row["model"], row["positions"], row["set"], streams, place, *figures])
    return markdown_table(header, lines)


def rates_of(row: Record | None) -> list[str | None]:
    """Both rates to a tenth of a percent; None where nothing was measured or said."""
    if row is None:
        return [None, None]
    found = [row["word_rate"], row["letter_rate"]]
    return [None if rate is None else f"{rate:.1f}" for rate in found]


if __name__ == "__main__":
    main()
