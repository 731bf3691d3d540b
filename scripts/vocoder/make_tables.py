"""Join a list of recordings with their units, and hold some out: train.tsv and held_out.tsv.

python make_tables.py --units units.tsv --audio speech.tsv --text-column text --audio-root DIR --held-out 60 --out DIR
"""

from __future__ import annotations

import argparse
from pathlib import Path

from scripts.files import write_text
from scripts.speech.recordings import Recording, list_recordings, shuffled
from scripts.speech.speech_synthesis import read_table

COLUMNS = ("id", "audio", "units", "text")
HELD_OUT_SHARE = 10  # at most a tenth is held out


def with_units(recordings: list[Recording], units: dict[str, str]) -> list[Recording]:
    """The recordings that have units.

    Raises:
        SystemExit: none has.
    """
    known = [recording for recording in recordings if recording.id in units]
    if not known:
        example = recordings[0].id
        raise SystemExit(f"error: none of the {len(recordings)} recordings has units: no line with the id {example!r}")
    if len(known) < len(recordings):
        print(f"tables: {len(recordings) - len(known)} of {len(recordings)} recordings have no units: left out")
    return known


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Join recordings and units, and hold some out.")
    parser.add_argument("--units", type=Path, required=True, help=".tsv with the columns id and units")
    parser.add_argument(
        "--audio", type=Path, help=".tsv with id and audio, list of files, or folder (default: --units has audio)"
    )
    parser.add_argument("--audio-root", type=Path, required=True, help="folder that paths in tables start from")
    parser.add_argument("--text-column", default="", help="column of the .tsv with what is said")
    parser.add_argument("--held-out", type=int, default=60, help="recordings held out (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another choice of these")
    parser.add_argument("--out", type=Path, required=True, help="folder for train.tsv and held_out.tsv")
    args = parser.parse_args(argv)
    units = {row["id"]: row["units"] for row in read_table(args.units, "units")}
    recordings = list_recordings(args.audio or args.units, args.audio_root, args.text_column)
    known = with_units(recordings, units)
    count = min(args.held_out, len(known) // HELD_OUT_SHARE)
    # In random order, for an evaluation may take the first ones only.
    held_out = shuffled(known, args.seed)[:count]
    parts = {"held_out": held_out, "train": [recording for recording in known if recording not in held_out]}
    for name, part in parts.items():
        lines = ["\t".join(COLUMNS), *("\t".join((r.id, r.audio, units[r.id], r.text)) for r in part)]
        write_text(args.out / f"{name}.tsv", "\n".join(lines) + "\n")
    print(f"tables: {len(parts['train'])} recordings to train on, {count} held out", flush=True)


if __name__ == "__main__":
    main()
