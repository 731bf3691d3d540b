"""Forced phone alignments of a sample of English recordings, for learning units and for judging them.

python align_phones.py --list speech.tsv --text-column en --audio-root DIR --utterances 300 --out phones.tsv
"""

from __future__ import annotations

import argparse
from pathlib import Path

from scripts.command_line import positive, require
from scripts.speech.recordings import Recording, list_recordings, read_recording, shuffled
from scripts.units.phone_alignment import PhoneAligner
from scripts.units.phones_table import write_phones
from scripts.work import parallel_map

_align: PhoneAligner | None = None


def _start() -> None:
    global _align
    _align = PhoneAligner()


def _work(task: tuple[Recording, Path]) -> list[str] | None:
    assert _align is not None
    recording, root = task
    return _align(read_recording(recording, root), recording.text)


def main() -> None:
    parser = argparse.ArgumentParser(description="Say which phone is spoken when, in a sample of English recordings.")
    parser.add_argument("--list", type=Path, required=True, help=".tsv with the columns id, audio and a text")
    parser.add_argument("--text-column", default="text", help="column of the spoken text (default: %(default)s)")
    parser.add_argument("--audio-root", type=Path, required=True, help="folder that audio paths are relative to")
    parser.add_argument("--utterances", type=positive, default=300, help="how many, drawn at random (default: 300)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="table to write: id, part, phones (one per 20 ms)")
    parser.add_argument("--jobs", type=positive, default=1, help="processes, one thread each")
    args = parser.parse_args()
    require("pocketsphinx")
    recordings = list_recordings(args.list, args.audio_root, args.text_column)
    tasks = [(recording, args.audio_root) for recording in shuffled(recordings, args.seed)[: args.utterances]]
    phones = {task[0].id: found for task, found in parallel_map(_work, tasks, args.jobs, "phones", _start)}
    # In the order of the tasks, not in that of their ends: the table must not depend on --jobs.
    aligned = {task[0].id: labels for task in tasks if (labels := phones[task[0].id])}
    if not aligned:
        raise SystemExit(f"error: not one of {len(tasks)} recordings could be aligned with its text: is it English?")
    write_phones(args.out, aligned)
    print(f"phones: {len(aligned)} of {len(tasks)} recordings aligned", flush=True)


if __name__ == "__main__":
    main()
