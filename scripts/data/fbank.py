"""Log-mel features of a folder of recordings, one .npy each: the part of the manifest stage worth sharding.

python fbank.py --texts pairs.tsv --audio DIR/audio/source --out DIR/fbank --jobs 2 --num-shards 4 --shard 0
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from scripts.data.fbank_archive import WINDOW_SAMPLES, log_mel
from scripts.files import atomic_path, digest
from scripts.speech.audio import read_speech
from scripts.speech.speech_synthesis import read_table
from scripts.units.unit_features import one_thread
from scripts.work import Work, add_share_arguments, is_too_early, make_files, share

# Raise it when the features change: the old ones are then made again.
KIND = "kaldi fbank 80 v1"


def _compute(work: Work) -> None:
    assert work.recording is not None
    samples = read_speech(work.recording)
    if len(samples) < WINDOW_SAMPLES:
        raise ValueError(f"{work.recording} is shorter than one frame of 25 ms")
    with atomic_path(work.out) as temporary:
        np.save(temporary, log_mel(samples))


def main() -> None:
    parser = argparse.ArgumentParser(description="Compute log-mel features.")
    parser.add_argument("--texts", type=Path, required=True, help="tab-separated table with a column id")
    parser.add_argument("--audio", type=Path, required=True, help="folder of <id>.wav, 16 kHz mono")
    parser.add_argument("--out", type=Path, required=True, help="folder for <id>.npy, float32 (frames, 80)")
    add_share_arguments(parser)
    args = parser.parse_args()

    if is_too_early(args, args.out.name, "computed", args.texts):
        return
    names = [row["id"] for row in share(read_table(args.texts), args)]
    works = [Work(name, args.out / f"{name}.npy", args.audio / f"{name}.wav") for name in names]
    make_files(args, works, lambda work: digest(KIND, work.recording), _compute, "computed", initializer=one_thread)


if __name__ == "__main__":
    main()
