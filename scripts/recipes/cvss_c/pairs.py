"""Stage 4: the pairs that have both recordings: texts/pairs.tsv, and what is left out and why in texts/unusable.tsv.

    python pairs.py --lang fr --data-root DIR

The column `audio` is the target's recording, relative to DIR, so that the table is a list of speech for the unit tools.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

from scripts.recipes.cvss_c.layout import SPLITS
from scripts.recipes.cvss_c.texts import write_rows
from scripts.speech.audio import SAMPLE_RATE
from scripts.speech.speech_synthesis import read_table

WAV_HEADER_BYTES = 44


def wav_hours(path: Path) -> float:
    """Length of one of the wav files of extract.py, from its size."""
    return max(0, path.stat().st_size - WAV_HEADER_BYTES) / 2 / SAMPLE_RATE / 3600


def main() -> None:
    parser = argparse.ArgumentParser(description="List the pairs whose recordings were extracted.")
    parser.add_argument("--lang", required=True, help="source language: fr, es or de")
    parser.add_argument("--data-root", type=Path, required=True, help="holds texts/all.tsv and audio/")
    args = parser.parse_args()
    audio, texts = args.data_root / "audio", args.data_root / "texts"
    reasons = {
        r["id"]: r["reason"] for table in sorted(audio.glob("failed.*.tsv")) for r in read_table(table, "reason")
    }
    kept, unusable, hours = [], [], defaultdict(lambda: [0, 0.0, 0.0])
    for row in read_table(texts / "all.tsv", "split", "clip", args.lang, "en"):
        name, split = row["id"], row["split"]
        wavs = [audio / language / f"{name}.wav" for language in (args.lang, "en")]
        if all(wav.exists() for wav in wavs):
            kept.append((name, split, f"audio/en/{name}.wav", row[args.lang], row["en"]))
            hours[split] = [a + b for a, b in zip(hours[split], (1, *map(wav_hours, wavs)), strict=True)]
        elif name in reasons:
            unusable.append((name, split, reasons[name]))
        else:
            raise SystemExit(
                f"error: the recordings of {name} were not extracted; run stage 3 again, all of its shards"
            )
    empty = [split for split in SPLITS if split not in hours]
    if empty:
        raise SystemExit(f"error: no pair is left in {', '.join(empty)}; e.g. {': '.join(unusable[0])}")
    write_rows(texts / "pairs.tsv", ("id", "split", "audio", args.lang, "en"), kept)
    write_rows(texts / "unusable.tsv", ("id", "split", "reason"), unusable)
    for split in SPLITS:
        count, source, target = hours[split]
        print(f"pairs: {split}: {count}, {source:.2f} h {args.lang}, {target:.2f} h en", flush=True)
    if unusable:
        print(f"pairs: {len(unusable)} left out, see {texts / 'unusable.tsv'}", flush=True)


if __name__ == "__main__":
    main()
