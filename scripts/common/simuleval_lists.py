"""Lists that SimulEval reads: source.txt (recordings), target.txt (references), source_text.txt.

SimulEval looks for recordings from the folder that it is started in, so source.txt is the one file with absolute
paths. It is written anew by each run: run the recipe again after moving the data.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from recipe import write_text
from speech_synthesis import read_table
from text_normalization import normalize_text


def main() -> None:
    parser = argparse.ArgumentParser(description="Write SimulEval's lists for one split of a prepared data set.")
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, required=True, help="tab-separated table with id and both texts")
    parser.add_argument("--source-column", default="fr")
    parser.add_argument("--target-column", default="en")
    parser.add_argument("--source-audio", default="audio/fr", help="folder of <id>.wav under the data root")
    parser.add_argument("--split", default="test")
    args = parser.parse_args()

    texts = {row["id"]: row for row in read_table(args.pairs, args.source_column, args.target_column)}
    rows = [texts[row["id"]] for row in read_table(args.data_root / f"{args.split}.tsv")]
    audio = (args.data_root / args.source_audio).resolve()
    lists = {
        "source.txt": [str(audio / f"{row['id']}.wav") for row in rows],
        "target.txt": [normalize_text(row[args.target_column]) for row in rows],
        "source_text.txt": [normalize_text(row[args.source_column]) for row in rows],
    }
    for name, lines in lists.items():
        write_text(args.data_root / "simuleval" / name, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
