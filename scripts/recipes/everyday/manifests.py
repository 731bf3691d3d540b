"""Stage 6: what fairseq and SimulEval read, from shards, units and texts.

    python manifests.py --data-root DIR --source-vocab 1000 --target-vocab 2000

writes into DIR `train.tsv` and `dev.tsv` in fairseq's form (audio as `french/shard_00000.zip:offset:bytes`, whose
features are computed while training), subword models and the texts of the three auxiliary tasks, the normalisation of
the features, the two YAML configs; and for each test set a folder `simuleval_<set>` with lists and sound files, also
for what people say in French (`simuleval_armelle` to test on, `simuleval_tuxpaint_fr` to develop on).

The French side is what is heard, in lower case without punctuation; the English side keeps both. Recordings without
French words have an empty text and no units.
"""

from __future__ import annotations

import argparse
import io
import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from echostream.constants import SAMPLE_RATE
from scripts.data.fbank_archive import log_mel, write_cmvn
from scripts.data.manifests import CMVN_NAME, DATA_CONFIG, MULTITASK_CONFIG, write_tsv
from scripts.data.subwords import train_subwords
from scripts.data.whisper_subwords import prune_whisper_subwords
from scripts.recipes.everyday.english_units import read_units
from scripts.recipes.everyday.record import read_recordings, read_shards
from scripts.recipes.everyday.texts import SEPARATOR
from scripts.recipes.recipe import atomic_path, digest, positive, require, write_text
from scripts.speech.speech_synthesis import read_table
from scripts.speech.text_normalization import normalize_text
from scripts.units.units import remove_repeats

# For the front end whisper, which has its own normalisation.
WHISPER_CONFIG = """\
# Paths here and in the .tsv files are relative to this folder.
audio_root: .
sample_rate: {sample_rate}
input_channels: 1
input_feat_per_channel: 80
num_units: {num_units}
allow_empty_targets: true
specaugment:
  time_warp_W: 0
  freq_mask_N: 1
  freq_mask_F: 10
  time_mask_N: 1
  time_mask_T: 20
  time_mask_p: 0.05
transforms:
  '*': []
  _train:
    - specaugment
"""
# Enough for a mean and a standard deviation of each of 80 bins.
CMVN_RECORDINGS = 2000
# Of the recipe's folder human: French that is never trained on.
HUMAN_SETS = ("armelle", "tuxpaint_fr")
SUBWORD_SENTENCES = 200_000


def read_address(root: Path, address: str) -> bytes:
    """What stands at `archive.zip:offset:bytes`."""
    name, offset, size = address.rsplit(":", 2)
    with (root / name).open("rb") as file:
        file.seek(int(offset))
        return file.read(int(size))


def features_of(root: Path, addresses: list[str]) -> Iterator[np.ndarray]:
    """Log-mel features of recordings in archives."""
    for address in require("tqdm").tqdm(addresses, desc="normalisation", unit="utt"):
        yield log_mel(soundfile.read(io.BytesIO(read_address(root, address)), dtype="float32")[0])


def speech_rows(recordings: list[tuple[str, ...]], shards: dict[str, dict[str, str]], units: dict[str, str]) -> list:
    """Rows of a manifest."""
    rows = []
    for name, _, _, _, _, english in recordings:
        text = english.replace(SEPARATOR, " ")
        target = remove_repeats(np.array(units[text].split(), int)) if text else []
        place = shards[name]
        rows.append(
            {
                "id": name,
                "src_audio": place["audio"],
                "src_n_frames": place["n_frames"],
                "tgt_audio": " ".join(map(str, target)),
                "tgt_n_frames": str(len(target)),
            }
        )
    return rows


def write_lists(root: Path, name: str, recordings: list[tuple[str, ...]], shards: dict, references: dict) -> None:
    """Sound files and lists of a test set for SimulEval: with case and punctuation, and one file for each reference."""
    folder = root / f"simuleval_{name}"
    sources = []
    for recording in recordings:
        place = folder / "audio" / f"{recording[0]}.flac"
        if not place.is_file():
            with atomic_path(place) as temporary:
                temporary.write_bytes(read_address(root, shards[recording[0]]["audio"]))
        sources.append(str(place.resolve()))
    english = [recording[5].replace(SEPARATOR, " ") for recording in recordings]
    lists = {
        "source.txt": sources,
        "target.txt": english,
        "source_text.txt": [normalize_text(recording[4].replace(SEPARATOR, " ")) for recording in recordings],
    }
    others = [references.get(recording[0]) or [text] for recording, text in zip(recordings, english, strict=True)]
    for number in range(1, min(4, max(map(len, others)))):
        # Where a sentence has fewer translations, its first stands again.
        lists[f"target.{number}.txt"] = [texts[number] if number < len(texts) else texts[0] for texts in others]
    for file, lines in lists.items():
        write_text(folder / file, "\n".join(lines) + "\n")
    print(f"lists: {len(recordings)} utterances in {folder}", flush=True)


def write_human_lists(root: Path) -> None:
    """Lists of what people say in French, where the stage before has fetched it."""
    for name in HUMAN_SETS:
        manifest = root / "human" / f"{name}.tsv"
        if not manifest.is_file():
            continue
        rows = read_table(manifest, "audio", "fr", "en")
        places = {row["id"]: {"audio": f"human/{row['audio']}"} for row in rows}
        write_lists(root, name, [(row["id"], "", "", "", row["fr"], row["en"]) for row in rows], places, {})


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a fairseq speech-to-unit data set from shards.")
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--source-vocab", type=positive, default=1000)
    parser.add_argument("--target-vocab", type=positive, default=2000)
    parser.add_argument("--num-units", type=positive, default=100)
    parser.add_argument(
        "--whisper-tokenizer", type=Path, help="tokenizer.json of Whisper, whose subwords the English side then has"
    )
    parser.add_argument(
        "--so-far", action="store_true", help="only the recordings that there are; units may be missing"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    root = args.data_root
    recordings = read_recordings(root / "texts" / "recordings.tsv")
    shards = {row["id"]: row for row in read_shards(root / "french")}
    units = read_units(root / "english")
    if args.so_far:
        recordings = [row for row in recordings if row[0] in shards]
        units = defaultdict(str, units)
    absent = [row[0] for row in recordings if row[0] not in shards]
    unspoken = [row[0] for row in recordings if row[5] and row[5].replace(SEPARATOR, " ") not in units]
    if absent or (unspoken and not args.so_far):
        raise SystemExit(
            f"error: {len(absent)} recordings and the units of {len(unspoken)} are missing, "
            f"{(absent + unspoken)[0]} first; run the stages before, all of their shards"
        )
    splits: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    sets: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for row in recordings:
        if row[1] == "test":
            sets[row[2]].append(row)
        else:
            splits[row[1]].append(row)
    training = splits["train"]
    drawn = random.Random(digest(args.seed, "normalisation")).sample(training, min(CMVN_RECORDINGS, len(training)))
    write_cmvn(root / CMVN_NAME, features_of(root, [shards[row[0]]["audio"] for row in drawn]))
    for split in ("train", "dev"):
        write_tsv(root / f"{split}.tsv", speech_rows(splits[split], shards, units))

    sentences = [
        row for row in read_table(root / "texts" / "sentences.tsv", "split", "fr", "en") if row["split"] == "train"
    ]
    random.Random(digest(args.seed, "subwords")).shuffle(sentences)
    sentences = sentences[:SUBWORD_SENTENCES]
    tasks = {"source_unigram": ("fr", args.source_vocab)}
    tasks |= dict.fromkeys(("target_unigram", "ctc_target_unigram"), ("en", args.target_vocab))
    for task, (column, size) in tasks.items():
        spell = normalize_text if column == "fr" else str
        lines = [spell(row[column]) for row in sentences]
        if column == "en" and args.whisper_tokenizer:
            model = prune_whisper_subwords(lines, args.whisper_tokenizer, root / task, size)
        else:
            model = train_subwords(lines, root / task, size)
        for split in ("train", "dev"):
            texts = [spell(row[4 if column == "fr" else 5].replace(SEPARATOR, " ")) for row in splits[split]]
            write_tsv(
                root / task / f"{split}.tsv",
                [
                    {"id": row[0], "tgt_text": " ".join(model.encode(text, out_type=str))}
                    for row, text in zip(splits[split], texts, strict=True)
                ],
            )
        print(f"manifests: {task}: {model.get_piece_size()} pieces", flush=True)
    note = "dev and test have no sentence in common with train."
    unit_note = "Not every cluster need occur in the training data; the vocoder knows them all."
    config = DATA_CONFIG.format(sample_rate=SAMPLE_RATE, splits=note, num_units=args.num_units, units=unit_note)
    write_text(
        root / "config_gcmvn.yaml",
        f"{config}# What holds no French words has no text and no units.\nallow_empty_targets: true\n",
    )
    write_text(root / "config_whisper.yaml", WHISPER_CONFIG.format(sample_rate=SAMPLE_RATE, num_units=args.num_units))
    write_text(root / "config_multitask.yaml", MULTITASK_CONFIG)

    references: dict[str, list[str]] = defaultdict(list)
    for row in read_table(root / "texts" / "references.tsv", "en"):
        references[row["id"]].append(row["en"])
    for name, rows in sorted(sets.items()):
        write_lists(root, name, rows, shards, references)
    write_human_lists(root)
    print(f"manifests: {', '.join(f'{len(rows)} {split}' for split, rows in splits.items())}", flush=True)


if __name__ == "__main__":
    main()
