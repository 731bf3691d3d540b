"""Log-mel features of a folder of recordings, one .npy each: the part of the manifest stage worth sharding.

python fbank.py --texts pairs.tsv --audio DIR/audio/source --out DIR/fbank --jobs 2 --num-shards 4 --shard 0
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
from audio import read_speech
from fbank_archive import log_mel
from recipe import Ledger, add_share_arguments, atomic_path, digest, parallel_map, share
from speech_synthesis import read_table

# Raise it when the features change: the old ones are then made again.
KIND = "kaldi fbank 80 v1"


@dataclass(frozen=True)
class Work:
    """A recording and where its features belong."""

    id: str
    recording: Path
    features: Path


def _compute(work: Work) -> None:
    features = log_mel(read_speech(work.recording))
    if not len(features):
        raise ValueError(f"{work.recording} is shorter than one frame of 25 ms")
    with atomic_path(work.features) as temporary:
        np.save(temporary, features)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compute log-mel features.")
    parser.add_argument("--texts", type=Path, required=True, help="tab-separated table with a column id")
    parser.add_argument("--audio", type=Path, required=True, help="folder of <id>.wav, 16 kHz mono")
    parser.add_argument("--out", type=Path, required=True, help="folder for <id>.npy, float32 (frames, 80)")
    parser.add_argument("--dry-run", action="store_true", help="only say how much there is to do")
    add_share_arguments(parser)
    args = parser.parse_args()

    name = args.out.name
    if args.dry_run and not args.texts.is_file():
        print(f"{name}: would be computed, once there are recordings", flush=True)
        return
    rows = share(read_table(args.texts), args)
    works = [Work(row["id"], args.audio / f"{row['id']}.wav", args.out / f"{row['id']}.npy") for row in rows]
    absent = [work for work in works if not work.recording.is_file()]
    if absent and not args.dry_run:
        raise SystemExit(
            f"error: no recording {absent[0].recording} ({len(absent)} of {len(works)} are missing); "
            "run the earlier stages first, all of their shards"
        )
    ledger = Ledger(args.out / ".done.tsv", (args.shard, args.num_shards))
    digests = {work.id: digest(KIND, work.recording) for work in works if work not in absent}
    missing = [w for w in works if w.id not in digests or not ledger.is_done(w.id, digests[w.id], [w.features])]
    if args.dry_run:
        print(f"{name}: {len(missing)} to be computed, {len(works) - len(missing)} already done", flush=True)
        return
    if missing:  # once, before the processes fork
        import_module("torch").set_num_threads(1)
    for work, _ in parallel_map(_compute, missing, args.jobs, name):
        ledger.mark(work.id, digests[work.id])
    print(f"{name}: {len(missing)} computed, {len(works) - len(missing)} already done", flush=True)


if __name__ == "__main__":
    main()
