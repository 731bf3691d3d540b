"""Stage 5: the units of the English side. Each sentence is spoken and heard in one process, and its sound not kept.

    python english_units.py --recordings DIR/texts/recordings.tsv --kmeans kmeans.npz --out DIR/english --jobs 2

`shard_00012.tsv` holds the columns `en units`, a unit for each 20 ms of what the English voice says for this text. A
text that several recordings have is spoken once. `--audio-hours` keeps the sound of the first hours as well, in
`audio/<number>.wav` with `audio.tsv` (`id audio en units`), for the vocoder to learn from.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from echostream.constants import UNIT_SAMPLES
from scripts.command_line import require
from scripts.files import atomic_path, digest, write_text
from scripts.recipes.everyday.record import read_recordings
from scripts.recipes.everyday.texts import SEPARATOR, seconds_of, table
from scripts.speech.audio import SAMPLE_RATE, speech_pcm
from scripts.speech.speech_synthesis import read_table
from scripts.units.unit_features import FeatureExtractor, make_extractor, one_thread
from scripts.units.units import UnitModel
from scripts.work import Work, add_share_arguments, is_too_early, make_files, share

# Raise it when the voice or its units change: what there is, is then made again.
KIND = "english units v1"
SHARD_SIZE = 512


@dataclass(frozen=True)
class Shard(Work):
    """Texts to be spoken; `audio` is the folder for their sound, or None."""

    texts: tuple[str, ...] = ()
    audio: Path | None = None


class EnglishUnits:
    """Speaks, and names what it hears, on one thread."""

    def __init__(self, kmeans: Path):
        one_thread()
        self._voice = require("hibari").Hibari(threads=1)
        self._model = UnitModel.load(kmeans)
        self._extract: FeatureExtractor = make_extractor(str(self._model.features))

    def __call__(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Sound int16 `(n,)` at 16 kHz, and its units `(n // 320,)`."""
        pcm = speech_pcm(self._voice(text, seed=0), self._voice.sample_rate, UNIT_SAMPLES)
        return pcm, self._model.encode(self._extract(pcm.astype(np.float32) / 2**15))


_english: EnglishUnits | None = None


def _start(kmeans: Path) -> None:
    global _english
    _english = EnglishUnits(kmeans)


def _make(shard: Shard) -> None:
    assert _english is not None
    rows, kept = [], []
    for number, text in enumerate(shard.texts):
        try:
            pcm, units = _english(text)
        except ValueError as error:
            raise ValueError(f"{text!r}: {error}") from error
        named = " ".join(map(str, units))
        rows.append((text, named))
        if shard.audio is not None:
            name = f"{shard.id}_{number:03d}"
            with atomic_path(shard.audio / f"{name}.wav") as temporary:
                soundfile.write(temporary, pcm, SAMPLE_RATE, subtype="PCM_16")
            kept.append((name, f"{shard.audio.name}/{name}.wav", text, named))
    if shard.audio is not None:
        write_text(shard.out.with_suffix(".audio.tsv"), table(["id", "audio", "en", "units"], kept))
    write_text(shard.out, table(["en", "units"], rows))


def english_texts(recordings: Path) -> list[str]:
    """What the English voice says: the text of each recording, once, in the order of the table."""
    texts = (row[5].replace(SEPARATOR, " ") for row in read_recordings(recordings) if row[5])
    return list(dict.fromkeys(texts))


def read_units(folder: Path) -> dict[str, str]:
    """Units of each text, as they are written, from all shards in a folder."""
    units = {}
    for path in sorted(folder.glob("shard_*.tsv")):
        if path.suffixes != [".tsv"]:
            continue
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
                units[row["en"]] = row["units"]
    return units


def main() -> None:
    parser = argparse.ArgumentParser(description="Find the units of the English side.")
    parser.add_argument("--recordings", type=Path, required=True, help="table of texts.py")
    parser.add_argument("--kmeans", type=Path, required=True, help="unit model")
    parser.add_argument("--audio-hours", type=float, default=0.0, help="whose sound is kept, estimated (default: 0)")
    parser.add_argument("--out", type=Path, required=True)
    add_share_arguments(parser)
    args = parser.parse_args()

    if is_too_early(args, args.out.name, "found", args.recordings, args.kmeans):
        return
    texts = english_texts(args.recordings)
    works, seconds = [], 0.0
    for start in range(0, len(texts), SHARD_SIZE):
        part, name = tuple(texts[start : start + SHARD_SIZE]), f"shard_{start // SHARD_SIZE:05d}"
        audio = args.out / "audio" if seconds < args.audio_hours * 3600 else None
        seconds += sum(map(seconds_of, part))
        works.append(Shard(name, args.out / f"{name}.tsv", None, part, audio))
    settings = digest(KIND, args.kmeans)
    make_files(
        args,
        share(works, args),
        lambda shard: digest(settings, shard.texts, shard.audio is not None),
        _make,
        "found",
        "english units, shards",
        initializer=_start,
        initargs=(args.kmeans,),
    )
    if args.audio_hours and not args.dry_run:
        rows = []
        for path in sorted(args.out.glob("shard_*.audio.tsv")):
            rows += [tuple(row.values()) for row in read_table(path)]
        write_text(args.out / "audio.tsv", table(["id", "audio", "en", "units"], rows))


if __name__ == "__main__":
    main()
