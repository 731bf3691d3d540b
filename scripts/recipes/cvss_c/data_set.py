"""Stage 7: the data set that fairseq trains on, in StreamSpeech's form, from pairs, features and units.

    python data_set.py --lang fr --data-root DIR --kmeans DIR/kmeans.npz --manifest zip

writes train/dev/test.tsv, gcmvn.npz, config_gcmvn.yaml, config_multitask.yaml, and SentencePiece models, dictionaries
and texts in source_unigram, target_unigram and ctc_target_unigram. `--manifest` says what `src_audio` names: parts of
zip files with log-mel features, one .npy for each utterance, or recordings that training analyses itself.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import yaml

from scripts.command_line import positive, require
from scripts.data import manifests as common_manifests
from scripts.data.fbank_archive import ARCHIVE_BYTES, write_archive, write_cmvn
from scripts.files import write_text, write_tsv
from scripts.recipes.cvss_c.layout import SPLITS
from scripts.speech.speech_synthesis import read_table
from scripts.units.units import UnitModel

CMVN_UTTERANCES = 5_000  # of recordings: some 7 hours say enough about 80 means
FRAME_SAMPLES, HOP_SAMPLES = 400, 160
Row = dict[str, str]


def locate_sources(
    root: Path,
    lang: str,
    names: list[str],
    kind: str,
    features: common_manifests.Features,
    archive_bytes: int = ARCHIVE_BYTES,
) -> dict[str, tuple[str, int]]:
    """What `src_audio` says of each utterance, relative to `root`, and its number of 10 ms frames.

    With `zip` the archives are written here, of at most `archive_bytes` each.
    """
    located: dict[str, tuple[str, int]] = {}
    with require("tqdm").tqdm(total=len(names), desc=kind, unit="utt") as progress:
        if kind == "zip":
            lengths: dict[str, int] = {}
            stored = _counted(names, features, lengths, progress)
            addresses = write_archive(root / "src_fbank80.zip", stored, archive_bytes)
            return {name: (address, lengths[name]) for name, address in addresses.items()}
        for name in names:
            path = root / "fbank" / f"{name}.npy" if kind == "npy" else root / "audio" / lang / f"{name}.wav"
            if not path.is_file():
                raise SystemExit(f"error: there is no {path}; run the earlier stages again, all of their shards")
            if kind == "npy":
                frames = len(np.load(path, mmap_mode="r", allow_pickle=False))
            else:
                frames = 1 + (soundfile.info(path).frames - FRAME_SAMPLES) // HOP_SAMPLES
            located[name] = (path.relative_to(root).as_posix(), frames)
            progress.update()
    return located


def _counted(
    names: list[str], features: common_manifests.Features, lengths: dict[str, int], progress: Any
) -> Iterator[tuple[str, np.ndarray]]:
    for name in names:
        array = features[name]
        lengths[name] = len(array)
        progress.update()
        yield name, array


def write_manifests(
    root: Path, splits: dict[str, list[Row]], sources: dict[str, tuple[str, int]], units: dict[str, list[int]]
) -> None:
    """The three .tsv files.

    Raises:
        SystemExit: an utterance has no units.
    """
    for split, rows in splits.items():
        absent = [row["id"] for row in rows if not units.get(row["id"])]
        if absent:
            raise SystemExit(f"error: {root / 'units.tsv'} has no units for {absent[0]}; run the units stage again")
        manifest = [
            {
                "id": row["id"],
                "src_audio": sources[row["id"]][0],
                "src_n_frames": str(sources[row["id"]][1]),
                "tgt_audio": " ".join(map(str, units[row["id"]])),
                "tgt_n_frames": str(len(units[row["id"]])),
            }
            for row in rows
        ]
        write_tsv(root / f"{split}.tsv", manifest)


def cmvn_rows(rows: list[Row], kind: str) -> list[Row]:
    """Training utterances that normalisation is measured on: all, or a sample where features have to be computed."""
    if kind != "wav" or len(rows) <= CMVN_UTTERANCES:
        return rows
    chosen = np.random.default_rng(0).choice(len(rows), CMVN_UTTERANCES, replace=False)
    return [rows[index] for index in sorted(chosen)]


def write_data_config(template: Path, path: Path, num_units: int) -> None:
    """The project's feature config with the number of units of this data set."""
    config = yaml.safe_load(template.read_text(encoding="utf-8"))
    config["num_units"] = num_units
    text = "# Paths here and in the .tsv files are relative to this folder.\n" + yaml.safe_dump(config, sort_keys=False)
    write_text(path, text)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the CVSS-C data set for fairseq.")
    parser.add_argument("--lang", required=True, help="source language: fr, es or de")
    parser.add_argument("--data-root", type=Path, required=True, help="holds texts, audio, fbank, units.tsv")
    parser.add_argument("--kmeans", type=Path, required=True, help="clusters of the units")
    parser.add_argument("--manifest", choices=("zip", "npy", "wav"), default="zip", help="what src_audio names")
    parser.add_argument(
        "--archive-bytes",
        type=positive,
        default=ARCHIVE_BYTES,
        metavar="BYTES",
        help="with zip: size of an archive, beyond which src_fbank80.1.zip and so on follow",
    )
    parser.add_argument("--vocab-size", type=int, default=6000, help="SentencePiece vocabulary of either language")
    parser.add_argument("--config", type=Path, required=True, help="feature config to start from")
    args = parser.parse_args()
    torch.set_num_threads(1)
    root = args.data_root
    rows = read_table(root / "texts" / "pairs.tsv", "split", args.lang, "en")
    splits = common_manifests.split_rows(rows, 0)
    try:
        num_units = UnitModel.load(args.kmeans).num_units
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
    units = common_manifests.unit_sequences(root / "units.tsv")
    names = [row["id"] for row in rows]
    stored = None if args.manifest == "wav" else root / "fbank"
    features = common_manifests.Features(names, root / "audio" / args.lang, stored)
    sources = locate_sources(root, args.lang, names, args.manifest, features, args.archive_bytes)
    write_manifests(root, splits, sources, units)
    measured = cmvn_rows(splits["train"], args.manifest)
    progress = require("tqdm").tqdm(measured, desc="normalisation", unit="utt")
    write_cmvn(root / "gcmvn.npz", (features[row["id"]] for row in progress))
    common_manifests.write_text_targets(root, splits, (args.lang, "en"), (args.vocab_size, args.vocab_size))
    write_data_config(args.config, root / "config_gcmvn.yaml", num_units)
    write_text(root / "config_multitask.yaml", common_manifests.MULTITASK_CONFIG)
    sizes = ", ".join(f"{len(splits[split])} {split}" for split in SPLITS)
    print(f"manifests: {sizes}; {num_units} units", flush=True)


if __name__ == "__main__":
    main()
