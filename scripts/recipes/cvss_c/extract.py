"""Stage 3: both recordings of each pair as 16 kHz mono wav files; in shards, and resuming where it stopped.

    python extract.py --lang fr --corpora corpora --data-root DIR --jobs 2 --num-shards 8 --shard 3

reads the mp3 of Common Voice and the 24 kHz wav of CVSS-C (any format and rate that libsndfile knows), and writes
DIR/audio/<lang>/<id>.wav and DIR/audio/en/<id>.wav. Loudness and pauses stay as recorded. A recording that cannot be
used does not stop the others: its pair is listed in DIR/audio/failed.*.tsv with the reason, and tried again next time.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from echostream.audio.downmix import mix_down
from scripts.files import atomic_path, write_text
from scripts.recipes.cvss_c.layout import CorpusLayout
from scripts.speech.audio import SAMPLE_RATE, to_16khz
from scripts.speech.speech_synthesis import read_table
from scripts.units.unit_features import one_thread
from scripts.work import add_share_arguments, parallel_map, share

MIN_SECONDS = 0.1


@dataclass(frozen=True)
class Conversion:
    """A pair: the recordings there are, and the files to be made of them."""

    id: str
    recordings: tuple[Path, Path]
    wavs: tuple[Path, Path]


def convert(recording: Path, wav: Path) -> None:
    """Store a recording as 16 kHz mono, 16 bit.

    Raises:
        ValueError: it cannot be read, or is too short to hold speech.
    """
    try:
        samples, rate = soundfile.read(recording, dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError) as error:
        reason = "missing" if not recording.exists() else "unreadable"
        raise ValueError(f"{recording.name} is {reason}") from error
    if len(samples) < MIN_SECONDS * rate:
        raise ValueError(f"{recording.name} lasts {len(samples) / rate:.3f} s")
    one_thread()
    speech = to_16khz(mix_down(samples, rate), rate)
    pcm = np.round(speech.clip(-1, 1) * 32767).astype(np.int16)
    with atomic_path(wav) as temporary:
        soundfile.write(temporary, pcm, SAMPLE_RATE, subtype="PCM_16")


def _work(conversion: Conversion) -> str:
    try:
        for recording, wav in zip(conversion.recordings, conversion.wavs, strict=True):
            if not wav.exists():
                convert(recording, wav)
    except ValueError as error:
        return str(error)
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description="Extract and resample the recordings of both languages.")
    parser.add_argument("--lang", required=True, help="source language: fr, es or de")
    parser.add_argument("--corpora", type=Path, required=True, help="folder of download.py")
    parser.add_argument("--data-root", type=Path, required=True, help="holds texts/all.tsv; audio/ is made in it")
    add_share_arguments(parser)
    args = parser.parse_args()
    table = args.data_root / "texts" / "all.tsv"
    if args.dry_run and not table.is_file():
        print("audio: would be extracted, once there are texts", flush=True)
        return
    layout, audio = CorpusLayout(args.corpora, args.lang), args.data_root / "audio"
    conversions = [
        Conversion(
            row["id"],
            (layout.clip(row["clip"]), layout.target(row["split"], row["clip"])),
            (audio / args.lang / f"{row['id']}.wav", audio / "en" / f"{row['id']}.wav"),
        )
        for row in share(read_table(table, "clip", "split"), args)
    ]
    missing = [work for work in conversions if not all(wav.exists() for wav in work.wavs)]
    print(f"audio: {len(missing)} pairs to extract, {len(conversions) - len(missing)} already done", flush=True)
    if args.dry_run:
        return
    failed = {w.id: reason for w, reason in parallel_map(_work, missing, args.jobs, "audio") if reason}
    lines = [f"{work.id}\t{failed[work.id]}" for work in missing if work.id in failed]
    write_text(audio / f"failed.{args.shard}of{args.num_shards}.tsv", "\n".join(["id\treason", *lines]) + "\n")
    if failed:
        print(f"audio: {len(failed)} pairs cannot be used, e.g. {lines[0].replace(chr(9), ': ')}", flush=True)


if __name__ == "__main__":
    main()
