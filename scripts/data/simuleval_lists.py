"""Lists that SimulEval reads: source.txt (recordings), target.txt (references), and source_text.txt for recognition.

SimulEval looks for recordings from the folder that it is started in, so source.txt has absolute paths, as has
target_audio.txt (spoken references, if asked for). They are written anew by each run: run the recipe again after moving
the data.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from scripts.files import write_text
from scripts.speech.speech_synthesis import read_table
from scripts.speech.text_normalization import normalize_text


def main() -> None:
    parser = argparse.ArgumentParser(description="Write SimulEval's lists for one split of a prepared data set.")
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, required=True, help="tab-separated table with id and both texts")
    parser.add_argument("--source-column", default="fr")
    parser.add_argument("--target-column", default="en")
    parser.add_argument("--source-audio", default="audio/fr", help="folder of <id>.wav under the data root")
    parser.add_argument("--target-audio", help="likewise; lists the target's recordings too")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--split", default="test", help="utterances in <split>.tsv of the data root (default: test)")
    which.add_argument("--all", action="store_true", help="all pairs")
    parser.add_argument("--out", default="simuleval", help="folder under the data root (default: %(default)s)")
    args = parser.parse_args()

    texts = {row["id"]: row for row in read_table(args.pairs, args.source_column, args.target_column)}
    names = list(texts) if args.all else [row["id"] for row in read_table(args.data_root / f"{args.split}.tsv")]
    unknown = [name for name in names if name not in texts]
    if unknown:
        raise SystemExit(f"error: {args.pairs} has no text for {unknown[0]}; run the manifest stage again")
    rows = [texts[name] for name in names]

    def recordings(folder: str) -> list[str]:
        return [str((args.data_root / folder).resolve() / f"{name}.wav") for name in names]

    lists = {
        "source.txt": recordings(args.source_audio),
        "target.txt": [normalize_text(row[args.target_column]) for row in rows],
        "source_text.txt": [normalize_text(row[args.source_column]) for row in rows],
    }
    if args.target_audio:
        lists["target_audio.txt"] = recordings(args.target_audio)
    for name, lines in lists.items():
        write_text(args.data_root / args.out / name, "\n".join(lines) + "\n")
    print(f"lists: {len(rows)} utterances in {args.data_root / args.out}", flush=True)


if __name__ == "__main__":
    main()
