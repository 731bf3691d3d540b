"""Stage 4: the table of pairs, with transcripts filled in and every pair in train, dev or test.

    python make_pairs.py --texts ROOT/texts/checked.tsv --out ROOT/texts

writes pairs.tsv (id, split, source_text, target_text) and to_speak.tsv (id, target_text), the targets without speech.
Where the table has no column split, the source text decides by its hash: the same sentence is never in two splits, and
adding rows moves no other.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

from scripts.files import write_text, write_tsv
from scripts.recipes.custom.table import read_checked
from scripts.speech.text_normalization import normalize_text


def hash_share(text: str, seed: int) -> float:
    """A number in [0, 100) that depends on the words of `text` alone."""
    value = hashlib.sha256(f"{seed}\n{normalize_text(text)}".encode()).digest()
    return int.from_bytes(value[:8], "big") / 2**64 * 100


def split_by_hash(texts: list[str], seed: int, dev_percent: float, test_percent: float) -> list[str]:
    """Split of each text: low hashes are test, the next dev. Where one would stay empty, one sentence is test, one dev.

    Raises:
        SystemExit: fewer than three different sentences.
    """
    shares = {text: hash_share(text, seed) for text in texts}
    lowest = sorted(set(shares.values()))
    if len(lowest) < 3:
        raise SystemExit(f"error: {len(lowest)} different sentences cannot fill train, dev and test; give more rows")

    def place(test_below: float, dev_below: float) -> dict[str, str]:
        return {
            text: "test" if number < test_below else "dev" if number < dev_below else "train"
            for text, number in shares.items()
        }

    placed = place(test_percent, test_percent + dev_percent)
    if len(set(placed.values())) < 3:
        placed = place(lowest[1], lowest[2])
    return [placed[text] for text in texts]


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the table of pairs.")
    parser.add_argument("--texts", type=Path, required=True, help="checked.tsv")
    parser.add_argument("--transcripts", type=Path, help="folder with source/<id>.txt and target/<id>.txt")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dev-percent", type=float, default=5.0)
    parser.add_argument("--test-percent", type=float, default=5.0)
    parser.add_argument("--skip-bad", action="store_true", help="go on without rows in which nothing was understood")
    args = parser.parse_args()
    if not (args.dev_percent > 0 and args.test_percent > 0 and args.dev_percent + args.test_percent < 100):
        raise SystemExit("error: --dev-percent and --test-percent are above 0 and below 100 together")

    rows, silent = [], []
    for row in read_checked(args.texts):
        for side in ("source", "target"):
            if not row[f"{side}_text"] and args.transcripts:
                path = args.transcripts / side / f"{row['id']}.txt"
                if not path.is_file():
                    raise SystemExit(f"error: no transcript {path}; run stage 3 first, all of its shards")
                row[f"{side}_text"] = path.read_text(encoding="utf-8").strip()
        understood = all(normalize_text(row[f"{side}_text"]) for side in ("source", "target"))
        (rows if understood else silent).append(row)
    for row in silent:
        print(f"{row['id']}: Whisper understood nothing in it", file=sys.stderr)
    if silent and not args.skip_bad:
        raise SystemExit(f"error: {len(silent)} recordings have no text; leave them out with --skip-bad")
    if not rows:
        raise SystemExit("error: no pair is left")
    if not all(row["split"] for row in rows):
        texts = [row["source_text"] for row in rows]
        for row, split in zip(rows, split_by_hash(texts, args.seed, args.dev_percent, args.test_percent), strict=True):
            row["split"] = split
    write_tsv(args.out / "pairs.tsv", rows, ("id", "split", "source_text", "target_text"))
    unspoken = [f"{row['id']}\t{row['target_text']}" for row in rows if not row["target_wav"]]
    write_text(args.out / "to_speak.tsv", "\n".join(["id\ttarget_text", *unspoken]) + "\n")
    sizes = ", ".join(f"{sum(row['split'] == split for row in rows)} {split}" for split in ("train", "dev", "test"))
    print(f"pairs: {sizes}; {len(unspoken)} targets to be spoken", flush=True)


if __name__ == "__main__":
    main()
