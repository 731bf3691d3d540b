"""Learn clusters of speech features on a random sample of recordings.

python learn_units.py --list speech.tsv --audio-root DIR --features mfcc --clusters 100 --out kmeans.npz
python learn_units.py ... --features whisper --align text             # projected onto what tells phones apart
python learn_units.py ... --features whisper --phones phones.tsv      # likewise, with alignments made before
python learn_units.py ... --features hubert:11 --hubert hubert.pt --clusters 1000 --device cuda
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import soundfile

from scripts.command_line import INSTALL_HINT, positive, require
from scripts.speech.recordings import Recording, list_recordings, read_recording, shuffled
from scripts.units.phone_alignment import PhoneAligner
from scripts.units.phones_table import LEARN, REPORT, read_phones
from scripts.units.unit_features import HUBERT, PACKAGES, FeatureExtractor, make_extractor, one_thread, split_name
from scripts.units.units import CONTEXT_FRAMES, fit_units
from scripts.work import parallel_map

_extract: FeatureExtractor | None = None
_align: PhoneAligner | None = None


def _work(task: tuple[Recording, Path, tuple, bool]) -> tuple[np.ndarray, list[str] | None]:
    global _extract, _align
    recording, root, source, align = task
    # Made by the first task, not when the process starts: from here an error is reported in one line.
    if _extract is None:
        one_thread()
        _extract = make_extractor(*source)
        _align = PhoneAligner() if align else None
    try:
        samples = read_recording(recording, root)
        return _extract(samples), _align(samples, recording.text) if _align else None
    except ValueError as error:
        raise ValueError(f"{recording.id}: {error}") from error


def take_minutes(recordings: list[Recording], root: Path, minutes: float) -> list[Recording]:
    """The first recordings that together last `minutes`, or all of them; at least one.

    Raises:
        SystemExit: a recording can't be read.
    """
    seconds, taken = 0.0, []
    for recording in recordings:
        if seconds >= 60 * minutes:
            break
        try:
            seconds += soundfile.info(root / recording.audio).duration
        except (OSError, soundfile.LibsndfileError) as error:
            raise SystemExit(f"error: cannot read {root / recording.audio}: {error}") from error
        taken.append(recording)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description="Learn discrete units of speech.")
    parser.add_argument("--list", type=Path, required=True, help=".tsv with id and audio, list of files, or folder")
    parser.add_argument("--audio-root", type=Path, required=True, help="folder that audio paths are relative to")
    parser.add_argument("--features", required=True, help="mfcc, whisper or hubert:LAYER, e.g. hubert:11")
    parser.add_argument("--hubert", type=Path, help="fairseq checkpoint, for features of HuBERT")
    parser.add_argument("--device", default="cpu", help="cpu or cuda, for HuBERT (default: %(default)s)")
    parser.add_argument("--clusters", type=positive, default=100, help="number of units (default: %(default)s)")
    parser.add_argument(
        "--sample-minutes", type=float, default=60, help="speech to learn from; 4 GB an hour with whisper (default: 60)"
    )
    known = parser.add_mutually_exclusive_group()
    known.add_argument("--phones", type=Path, help="alignments: project by linear discriminant analysis first")
    known.add_argument("--align", default="", metavar="COLUMN", help="likewise; align with this column's English text")
    parser.add_argument("--without", type=Path, help="alignments whose report part is kept out of the sample")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help=".npz to write")
    parser.add_argument("--jobs", type=positive, default=1, help="processes, one thread each")
    args = parser.parse_args()
    try:
        kind, _ = split_name(args.features)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
    for package in (*PACKAGES[kind], "sklearn"):
        if package != "pocketsphinx" or args.align:
            require(package, INSTALL_HINT if kind == "mfcc" else f"{INSTALL_HINT}, or use --features mfcc")

    labels = read_phones(args.phones, LEARN) if args.phones else {}
    table = args.without or args.phones
    kept_out = read_phones(table, REPORT).keys() - labels.keys() if table else set()
    recordings = [r for r in list_recordings(args.list, args.audio_root, args.align) if r.id not in kept_out]
    # Aligned recordings first: the projection needs them.
    drawn = sorted(shuffled(recordings, args.seed), key=lambda recording: recording.id not in labels)
    sample = take_minutes(drawn, args.audio_root, args.sample_minutes)
    source = args.features, args.hubert, args.device
    tasks = [(recording, args.audio_root, source, bool(args.align)) for recording in sample]
    found = {}
    for task, (features, phones) in parallel_map(_work, tasks, args.jobs, "features"):
        found[task[0].id] = features
        if phones:
            labels[task[0].id] = phones
    # HuBERT's layers are clustered as they are, as published clusters are; the others need a common scale.
    bare = kind == HUBERT
    model = fit_units(
        [found[recording.id] for recording in sample],
        [labels.get(recording.id) for recording in sample],
        args.features,
        args.clusters,
        context=0 if bare else CONTEXT_FRAMES,
        normalise=not bare,
        seed=args.seed,
    )
    model.save(args.out)
    minutes = sum(map(len, found.values())) / 50 / 60
    aligned = sum(recording.id in labels for recording in sample)
    print(
        f"clusters: {model.num_units} of {args.features}, from {minutes:.1f} min ({aligned} recordings aligned)",
        flush=True,
    )


if __name__ == "__main__":
    main()
