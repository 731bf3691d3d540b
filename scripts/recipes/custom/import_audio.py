"""Stage 2: the table's recordings, whatever their format, as 16 kHz mono wav files.

python import_audio.py --texts ROOT/texts/checked.tsv --column source_wav --audio-root DIR --out ROOT/audio/source
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import soundfile

from echostream.audio.downmix import mix_down
from scripts.command_line import require
from scripts.files import atomic_path, digest
from scripts.recipes.custom.table import read_checked
from scripts.speech.audio import SAMPLE_RATE
from scripts.work import Work, add_share_arguments, is_too_early, make_files, share

# Raise it when the conversion changes: recordings are then converted again.
KIND = "16 kHz mono v1"


def _convert(work: Work) -> None:
    assert work.recording is not None
    try:
        samples, rate = soundfile.read(work.recording, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise ValueError(f"{work.recording} cannot be read any more: {error}; run stage 1 again") from error
    mono = mix_down(samples, rate)
    if rate != SAMPLE_RATE:
        mono = require("soxr").resample(mono, rate, SAMPLE_RATE)
    # Where mixing, resampling or a floating-point file goes beyond full scale, quieter is better than clipped.
    mono = mono / max(1.0, np.abs(mono).max(initial=0.0))
    with atomic_path(work.out) as temporary:
        soundfile.write(temporary, np.round(mono * 32767).astype(np.int16), SAMPLE_RATE, subtype="PCM_16")


def main() -> None:
    parser = argparse.ArgumentParser(description="Convert recordings to 16 kHz mono.")
    parser.add_argument("--texts", type=Path, required=True, help="checked.tsv")
    parser.add_argument("--column", choices=("source_wav", "target_wav"), required=True)
    parser.add_argument("--audio-root", type=Path, required=True, help="paths in the table start from here")
    parser.add_argument("--out", type=Path, required=True, help="folder for <id>.wav")
    add_share_arguments(parser)
    args = parser.parse_args()

    if is_too_early(args, args.out.name, "converted", args.texts):
        return
    rows = share([row for row in read_checked(args.texts) if row[args.column]], args)
    works = [Work(row["id"], args.out / f"{row['id']}.wav", args.audio_root / row[args.column]) for row in rows]
    make_files(args, works, lambda work: digest(KIND, work.recording), _convert, "converted")


if __name__ == "__main__":
    main()
