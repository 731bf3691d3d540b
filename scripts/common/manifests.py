"""A speech-to-unit data set in fairseq's form, as StreamSpeech uses it, from recordings, texts and units.

    python manifests.py --data-root DIR --pairs DIR/texts/pairs.tsv --source-audio audio/fr --num-units 100

writes into DIR: train/dev/test.tsv, source log-mel features (zip), gcmvn.npz, SentencePiece models, dictionaries and
multitask targets in source_unigram, target_unigram and ctc_target_unigram, config_gcmvn.yaml, config_multitask.yaml.
Every path written is relative to DIR.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from audio import read_speech
from fbank_archive import log_mel, write_archive, write_cmvn
from recipe import require, write_text
from speech_synthesis import read_table
from subwords import train_subwords
from text_normalization import normalize_text
from units import remove_repeats

Row = dict[str, str]
SPLITS = ("train", "dev", "test")

DATA_CONFIG = """\
# Paths here and in the .tsv files are relative to this folder.
# {splits}
audio_root: .
sample_rate: 16000
input_channels: 1
input_feat_per_channel: 80
# Not every cluster need occur in the training data; the vocoder knows them all.
num_units: {num_units}
global_cmvn:
  stats_npz_path: gcmvn.npz
# Gentle masks: short utterances in a small set lose whole words to the usual ones.
specaugment:
  time_warp_W: 0
  freq_mask_N: 1
  freq_mask_F: 8
  time_mask_N: 1
  time_mask_T: 10
  time_mask_p: 0.05
transforms:
  '*':
    - global_cmvn
  _train:
    - global_cmvn
    - specaugment
"""
MULTITASK_CONFIG = """\
# Text targets beside the units. Paths are relative to this folder.
source_unigram:
  decoder_type: ctc
  dict: source_unigram/dict.txt
  data: source_unigram
  loss_weight: 4.0
  rdrop_alpha: 0.0
target_unigram:
  decoder_type: transformer
  dict: target_unigram/dict.txt
  data: target_unigram
  loss_weight: 8.0
  label_smoothing: 0.1
  rdrop_alpha: 0.0
  decoder_args:
    decoder_layers: 4
    decoder_embed_dim: 256
    decoder_ffn_embed_dim: 1024
    decoder_attention_heads: 4
ctc_target_unigram:
  decoder_type: ctc
  dict: ctc_target_unigram/dict.txt
  data: ctc_target_unigram
  loss_weight: 4.0
  rdrop_alpha: 0.0
"""


def split_rows(rows: list[Row], held_out: int) -> dict[str, list[Row]]:
    """Last rows for the test set, those before for the development set; 0 held out: all three sets are the whole.

    Raises:
        SystemExit: nothing would be left to train on.
    """
    if not held_out:
        return dict.fromkeys(SPLITS, rows)
    if len(rows) <= 2 * held_out:
        raise SystemExit(f"error: {len(rows)} pairs are too few to hold out {held_out} for dev and {held_out} for test")
    return {
        "train": rows[: -2 * held_out],
        "dev": rows[-2 * held_out : -held_out],
        "test": rows[-held_out:],
    }


def write_tsv(path: Path, rows: list[Row]) -> None:
    """Write a tab-separated file with a header line."""
    columns = list(rows[0])
    lines = ["\t".join(columns), *("\t".join(row[column] for column in columns) for row in rows)]
    write_text(path, "\n".join(lines) + "\n")


def unit_sequences(path: Path) -> dict[str, list[int]]:
    """Units without repeats of each utterance in a frame-level units.tsv."""
    return {row["id"]: remove_repeats(np.array(row["units"].split(), int)) for row in read_table(path, "units")}


def write_speech_manifests(root: Path, splits: dict[str, list[Row]], features: dict[str, np.ndarray]) -> None:
    """Features, their normalisation (from the training set only), and the three .tsv files."""
    addresses = write_archive(root / "src_fbank80.zip", features.items())
    write_cmvn(root / "gcmvn.npz", (features[row["id"]] for row in splits["train"]))
    units = unit_sequences(root / "units.tsv")
    for split, rows in splits.items():
        manifest = []
        for row in rows:
            if row["id"] not in units:
                raise SystemExit(f"error: {root / 'units.tsv'} has no units for {row['id']}; run the units stage again")
            manifest.append(
                {
                    "id": row["id"],
                    "src_audio": addresses[row["id"]],
                    "src_n_frames": str(len(features[row["id"]])),
                    "tgt_audio": " ".join(map(str, units[row["id"]])),
                    "tgt_n_frames": str(len(units[row["id"]])),
                }
            )
        write_tsv(root / f"{split}.tsv", manifest)


def write_text_targets(
    root: Path, splits: dict[str, list[Row]], columns: tuple[str, str], vocab_sizes: tuple[int, int]
) -> None:
    """Subword models from the training set, and the pieces of each text for the three auxiliary tasks.

    Both target tasks get the same model: the CTC counts pieces that the decoder then writes.
    """
    source, target = columns
    tasks = {"source_unigram": (source, vocab_sizes[0])}
    tasks |= dict.fromkeys(("target_unigram", "ctc_target_unigram"), (target, vocab_sizes[1]))
    for task, (column, vocab_size) in tasks.items():
        model = train_subwords([normalize_text(row[column]) for row in splits["train"]], root / task, vocab_size)
        for split, rows in splits.items():
            pieces = [" ".join(model.encode(normalize_text(row[column]), out_type=str)) for row in rows]
            targets = [{"id": row["id"], "tgt_text": text} for row, text in zip(rows, pieces, strict=True)]
            write_tsv(root / task / f"{split}.tsv", targets)
        print(f"manifests: {task}: {model.get_piece_size()} pieces", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a fairseq speech-to-unit data set.")
    parser.add_argument("--data-root", type=Path, required=True, help="holds units.tsv and the audio")
    parser.add_argument("--pairs", type=Path, required=True, help="tab-separated table with id and both texts")
    parser.add_argument("--source-column", default="fr")
    parser.add_argument("--target-column", default="en")
    parser.add_argument("--source-audio", default="audio/fr", help="folder of <id>.wav under the data root")
    parser.add_argument("--source-vocab", type=int, default=200, help="SentencePiece vocabulary, at most")
    parser.add_argument("--target-vocab", type=int, default=200, help="SentencePiece vocabulary, at most")
    parser.add_argument("--num-units", type=int, required=True, help="clusters that the units were made with")
    parser.add_argument("--held-out", type=int, default=0, help="pairs for dev, and as many for test (0: see header)")
    args = parser.parse_args()
    torch.set_num_threads(1)

    splits = split_rows(read_table(args.pairs, args.source_column, args.target_column), args.held_out)
    rows = {row["id"]: row for split in SPLITS for row in splits[split]}
    features = {}
    for name in require("tqdm").tqdm(rows, desc="log-mel", unit="utt"):
        features[name] = log_mel(read_speech(args.data_root / args.source_audio / f"{name}.wav"))
    write_speech_manifests(args.data_root, splits, features)
    columns = (args.source_column, args.target_column)
    write_text_targets(args.data_root, splits, columns, (args.source_vocab, args.target_vocab))
    note = (
        f"{args.held_out} pairs each are held out for dev and test."
        if args.held_out
        else "dev and test are the training set itself: scores show that a model learns, not how it generalises."
    )
    write_text(args.data_root / "config_gcmvn.yaml", DATA_CONFIG.format(splits=note, num_units=args.num_units))
    write_text(args.data_root / "config_multitask.yaml", MULTITASK_CONFIG)
    sizes = ", ".join(f"{len(rows)} {split}" for split, rows in splits.items())
    print(f"manifests: {sizes}", flush=True)


if __name__ == "__main__":
    main()
