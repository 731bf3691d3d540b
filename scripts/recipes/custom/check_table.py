"""Stage 1: read a user's table of recordings and say everything that is wrong with it at once.

    python check_table.py --table corpus.tsv --audio-root DIR --out ROOT/texts

writes checked.tsv (id, source_wav, target_wav, source_text, target_text, split) and bad_rows.tsv (line, problem).
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

from echostream.printing import printable
from echostream.text import split_lines
from scripts.command_line import positive
from scripts.files import write_text, write_tsv
from scripts.speech.audio import SAMPLE_RATE
from scripts.work import parallel_map

COLUMNS = ("source_wav", "target_wav", "source_text", "target_text", "id", "split")
CHECKED = ("id", "source_wav", "target_wav", "source_text", "target_text", "split")
FILES = ("source_wav", "target_wav")
SPLITS = ("train", "dev", "test")
NOT_IN_ID = re.compile(r"[^\w.-]+")
# Quieter than the last bit of 16-bit audio.
SILENCE = 2**-16
# libsndfile's note of a chunk longer than the file; recorders that write to a pipe promise 2 to 4 GiB.
SHORT_CHUNK = re.compile(r"^\s*(?:data|SSND|riff) : (\d+) \(should be (\d+)\)", re.MULTILINE)
UNKNOWN_LENGTH = 0x7FFFF000


@dataclass(frozen=True)
class Limits:
    """What a recording has to be."""

    min_seconds: float
    max_seconds: float
    strict_rate: bool


@dataclass
class Row:
    """A line of the table with all that is wrong with it."""

    line: int
    values: dict[str, str]
    problems: list[str] = field(default_factory=list)


def read_rows(path: Path) -> list[Row]:
    """Lines of the table; columns that are absent read as empty.

    Raises:
        SystemExit: no such file, not UTF-8, or a header that has not the column source_wav or has others.
    """
    try:
        lines = split_lines(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise SystemExit(f"error: cannot read the table {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise SystemExit(f"error: {path}, line {line}: not UTF-8; save the table as UTF-8") from error
    header = [name.strip() for name in lines[0].split("\t")] if lines else []
    if "source_wav" not in header or len(set(header)) < len(header):
        found = f"it reads {lines[0][:200]!r}" if lines else "the file is empty"
        raise SystemExit(
            f"error: {path}, line 1: the header names tab-separated columns, each once: source_wav and any of "
            f"{', '.join(COLUMNS[1:])}; {found}"
        )
    for name in header:
        if name not in COLUMNS:
            print(f"note: {path}: the column {name!r} is not used", file=sys.stderr)
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        fields = line.split("\t")
        named = zip(header, fields, strict=False)
        values = {name: value if name in FILES and value.strip() else tidy(value) for name, value in named}
        row = Row(number, dict.fromkeys(COLUMNS, "") | values)
        if len(fields) != len(header):
            row.problems.append(f"{len(fields)} fields, but the header has {len(header)}")
        rows.append(row)
    return rows


def tidy(value: str) -> str:
    """Without spaces around it, and with single ones in it."""
    return " ".join(value.split())


def settle_file_names(rows: list[Row], audio_root: Path) -> None:
    """Take a name of a file to the letter, spaces included, unless only the one without them is there."""
    for row in rows:
        for name in FILES:
            value = row.values[name]
            if tidy(value) != value and not (audio_root / value).is_file() and (audio_root / tidy(value)).is_file():
                row.values[name] = tidy(value)


def recording_problem(path: Path, limits: Limits) -> str:
    """What is wrong with a sound file; "" if nothing is."""
    if not path.is_file():
        return "no such file"
    try:
        with soundfile.SoundFile(path) as file:
            samples, rate = file.read(dtype="float32", always_2d=True), file.samplerate
            promised = SHORT_CHUNK.search(file.extra_info)
    except (soundfile.LibsndfileError, OSError, ValueError) as error:
        return f"cannot be read: {str(error).split(': ', 1)[-1].strip().rstrip('.')}"
    seconds = len(samples) / rate
    if promised and int(promised[2]) < int(promised[1]) < UNKNOWN_LENGTH:
        return f"cut short after {seconds:.2f} s: copy it again"
    if limits.strict_rate and rate != SAMPLE_RATE:
        return f"sampled at {rate} Hz, not {SAMPLE_RATE}"
    if not len(samples):
        return "empty"
    if not np.isfinite(samples).all():
        return "holds samples that are not numbers (NaN or infinite)"
    if np.abs(samples).max() < SILENCE:
        return "nothing but silence"
    if seconds > limits.max_seconds:
        return f"too long: {seconds:.1f} s, at most {limits.max_seconds:g}"
    if seconds < limits.min_seconds:
        return f"too short: {seconds:.2f} s, at least {limits.min_seconds:g}"
    return ""


@dataclass(frozen=True)
class Check:
    """`recording_problem` with its limits, in a form that crosses to another process."""

    limits: Limits

    def __call__(self, path: Path) -> str:
        return recording_problem(path, self.limits)


def check_values(rows: list[Row], transcribe: bool, can_speak: bool) -> None:
    """Note what is wrong with texts, ids and splits; give ids to rows that have none."""
    has_splits = any(row.values["split"] for row in rows)
    seen: dict[str, dict[str, int]] = {"source_wav": {}, "id": {}}
    for row in rows:
        values, note = row.values, row.problems.append
        if not values["source_wav"]:
            note("source_wav is empty")
        remedy = "" if transcribe else "; write it down, or let Whisper do so with --transcribe"
        if values["source_wav"] and not values["source_text"] and not transcribe:
            note(f"source_text is empty{remedy}")
        if not values["target_text"] and not values["target_wav"]:
            note("neither target_wav nor target_text")
        elif not values["target_text"] and not transcribe:
            note(f"target_text is empty{remedy}")
        elif not values["target_wav"] and not can_speak:
            note("target_wav is empty, and there is no voice for the target language")
        for name in ("source_text", "target_text"):
            if values[name] and not any(letter.isalnum() for letter in values[name]):
                note(f"{name} {values[name]!r} has no letters")
        if has_splits and values["split"] not in SPLITS:
            note(f"split {values['split']!r} is none of {', '.join(SPLITS)}")
        # The folders belong to the name: a/1.wav and b/1.wav are two recordings.
        recording = Path(values["source_wav"])
        name = values["id"] or "__".join((*recording.parent.parts, recording.stem))
        values["id"] = NOT_IN_ID.sub("_", name).strip("_.")
        for column, remedy in (("source_wav", "leave one of them out"), ("id", "give ids of your own in a column id")):
            value = values[column]
            first = seen[column].setdefault(value, row.line)
            if value and first != row.line:
                note(f"{column} {value} is also in line {first}; {remedy}")
                break


def main() -> None:
    parser = argparse.ArgumentParser(description="Check a table of recordings.")
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--audio-root", type=Path, required=True, help="paths in the table start from here")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--min-seconds", type=float, default=0.3)
    parser.add_argument("--max-seconds", type=float, default=30.0)
    parser.add_argument("--strict-rate", action="store_true", help="recordings that are not at 16 kHz are bad")
    parser.add_argument("--transcribe", action="store_true", help="texts may be missing where there is speech")
    parser.add_argument("--no-voice", action="store_true", help="target speech cannot be made from text")
    parser.add_argument("--skip-bad", action="store_true", help="go on without the bad rows")
    parser.add_argument("--jobs", type=positive, default=1)
    args = parser.parse_args()

    rows = read_rows(args.table)
    settle_file_names(rows, args.audio_root)
    check_values(rows, args.transcribe, not args.no_voice)
    limits = Limits(args.min_seconds, args.max_seconds, args.strict_rate)
    wanted = [(row, name) for row in rows for name in FILES if row.values[name]]
    paths = sorted({args.audio_root / row.values[name] for row, name in wanted})
    found = dict(parallel_map(Check(limits), paths, args.jobs, "check"))
    for row, name in wanted:
        problem = found[args.audio_root / row.values[name]]
        if problem:
            row.problems.append(f"{name} {row.values[name]}: {problem}")

    bad, good = [row for row in rows if row.problems], [row for row in rows if not row.problems]
    lines = [f"{row.line}\t{problem}" for row in bad for problem in row.problems]
    write_text(args.out / "bad_rows.tsv", "".join(f"{line}\n" for line in ["line\tproblem", *lines]))
    for row in bad:
        print(printable(f"{args.table}, line {row.line}: {'; '.join(row.problems)}"), file=sys.stderr)
    if bad and not args.skip_bad:
        raise SystemExit(
            f"error: {len(bad)} of {len(rows)} rows are bad (listed above and in {args.out / 'bad_rows.tsv'}); "
            "mend them, or go on without them with --skip-bad"
        )
    if not good:
        raise SystemExit(f"error: {args.table} has no usable row")
    write_tsv(args.out / "checked.tsv", [row.values for row in good], CHECKED)
    print(f"table: {len(good)} rows are good, {len(bad)} bad", flush=True)


if __name__ == "__main__":
    main()
