"""A list of recordings (id, audio, text) of tables of texts whose speech lies in one folder.

python speech_list.py --texts pairs.tsv extra.tsv --column en --audio audio/en --out texts/speech.tsv
"""

from __future__ import annotations

import argparse
from pathlib import Path

from scripts.files import write_text
from scripts.speech.speech_synthesis import read_table


def main() -> None:
    parser = argparse.ArgumentParser(description="List the recordings of tables of texts.")
    parser.add_argument("--texts", type=Path, nargs="+", required=True, help="tab-separated tables with a column id")
    parser.add_argument("--column", required=True, help="column of the spoken text")
    parser.add_argument("--audio", required=True, help="folder of <id>.wav, relative to where the list will be used")
    parser.add_argument("--out", type=Path, required=True, help="table to write: id, audio, text")
    args = parser.parse_args()
    rows = [row for table in args.texts for row in read_table(table, args.column)]
    lines = [f"{row['id']}\t{args.audio}/{row['id']}.wav\t{row[args.column]}" for row in rows]
    write_text(args.out, "\n".join(["id\taudio\ttext", *lines]) + "\n")


if __name__ == "__main__":
    main()
