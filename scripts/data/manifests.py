"""A speech-to-unit data set in fairseq's form, as StreamSpeech uses it, from recordings, texts and units.

    python manifests.py --data-root DIR --pairs DIR/texts/pairs.tsv --source-audio audio/fr --num-units 100

writes into DIR: train/dev/test.tsv, source log-mel features (zips), gcmvn.npz, SentencePiece models, dictionaries and
multitask targets in source_unigram, target_unigram and ctc_target_unigram, config_gcmvn.yaml, config_multitask.yaml.
Every path written is relative to DIR. A column "split" in the table says where each pair belongs. Features are computed
here, or read from the folder that fbank.py has filled (--fbank): those need no more memory than one utterance's.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from echostream.constants import SAMPLE_RATE
from scripts.command_line import positive, require
from scripts.data.fbank_archive import ARCHIVE_BYTES, log_mel, read_archive, write_archive, write_cmvn
from scripts.data.subwords import borrow_subwords, train_subwords
from scripts.files import borrow, write_text, write_tsv
from scripts.speech.audio import read_speech
from scripts.speech.speech_synthesis import read_table
from scripts.speech.text_normalization import normalize_text
from scripts.units.units import remove_repeats

Row = dict[str, str]
SPLITS = ("train", "dev", "test")
CMVN_NAME = "gcmvn.npz"

DATA_CONFIG = """\
# Paths here and in the .tsv files are relative to this folder.
# {splits}
audio_root: .
sample_rate: {sample_rate}
input_channels: 1
input_feat_per_channel: 80
# {units}
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
    """What the column "split" says; else last rows for the test set, those before for the development set; 0 held out:
    all three sets are the whole.

    Raises:
        SystemExit: nothing would be left to train on, or a split that is none.
    """
    if rows and "split" in rows[0]:
        unknown = sorted({row["split"] or "" for row in rows} - set(SPLITS))
        if unknown:
            raise SystemExit(f"error: the column split holds {unknown[0]!r}; it is one of {', '.join(SPLITS)}")
        splits = {split: [row for row in rows if row["split"] == split] for split in SPLITS}
        empty = [split for split in SPLITS if not splits[split]]
        if empty:
            raise SystemExit(f"error: no pair is in {' or '.join(empty)}; each of {', '.join(SPLITS)} needs one")
        return splits
    if not held_out:
        return dict.fromkeys(SPLITS, rows)
    if len(rows) <= 2 * held_out:
        raise SystemExit(f"error: {len(rows)} pairs are too few to hold out {held_out} for dev and {held_out} for test")
    return {
        "train": rows[: -2 * held_out],
        "dev": rows[-2 * held_out : -held_out],
        "test": rows[-held_out:],
    }


def unit_sequences(path: Path) -> dict[str, list[int]]:
    """Units without repeats of each utterance in a frame-level units.tsv."""
    return {row["id"]: remove_repeats(np.array(row["units"].split(), int)) for row in read_table(path, "units")}


class Features(Mapping[str, np.ndarray]):
    """Log-mel features of the utterances, each made or read when it is asked for.

    Args:
        names: ids of the utterances.
        audio: folder of `<id>.wav`.
        stored: folder of `<id>.npy` from fbank.py, or None.
    """

    def __init__(self, names: Sequence[str], audio: Path, stored: Path | None):
        self._names, self._audio, self._stored = dict.fromkeys(names), audio, stored

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, name: str) -> np.ndarray:
        if self._stored is None:
            return log_mel(read_speech(self._audio / f"{name}.wav"))
        path = self._stored / f"{name}.npy"
        if not path.is_file():
            raise SystemExit(f"error: no features {path}; run the feature stage again, all of its shards")
        return np.load(path, allow_pickle=False)


def write_speech_manifests(
    root: Path,
    splits: dict[str, list[Row]],
    features: Features,
    units: Mapping[str, list[int]] | None,
    continue_from: Path | None = None,
    archive_bytes: int = ARCHIVE_BYTES,
) -> None:
    """Features, their normalisation (from the training set only), and the three .tsv files.

    The features go into archives of at most `archive_bytes`. Without `units` each target is the single unit 0, because
    the format has no empty one.
    """
    missing = [name for name in features if units is not None and name not in units]
    if missing:
        raise SystemExit(
            f"error: {root / 'units.tsv'} has no units for {missing[0]}; run the units stage again "
            f"({len(missing)} of {len(features)} are missing)"
        )
    lengths: dict[str, int] = {}

    def stored() -> Iterator[tuple[str, np.ndarray]]:
        for name in require("tqdm").tqdm(features, desc="log-mel", unit="utt"):
            array = features[name]
            lengths[name] = len(array)
            yield name, array

    addresses = write_archive(root / "src_fbank80.zip", stored(), archive_bytes)
    if continue_from is not None:
        borrow(continue_from, root, CMVN_NAME)
    else:
        write_cmvn(root / CMVN_NAME, read_archive(root, (addresses[row["id"]] for row in splits["train"])))
    for split, rows in splits.items():
        manifest = []
        for row in rows:
            target = [0] if units is None else units[row["id"]]
            manifest.append(
                {
                    "id": row["id"],
                    "src_audio": addresses[row["id"]],
                    "src_n_frames": str(lengths[row["id"]]),
                    "tgt_audio": " ".join(map(str, target)),
                    "tgt_n_frames": str(len(target)),
                }
            )
        write_tsv(root / f"{split}.tsv", manifest)


def write_text_targets(
    root: Path,
    splits: dict[str, list[Row]],
    columns: tuple[str, str],
    vocab_sizes: tuple[int, int],
    continue_from: Path | None = None,
) -> None:
    """Subword models from the training set or another folder, and each text's pieces for the three auxiliary tasks.

    Both target tasks get the same model: the CTC counts pieces that the decoder then writes.
    """
    source, target = columns
    tasks = {"source_unigram": (source, vocab_sizes[0])}
    tasks |= dict.fromkeys(("target_unigram", "ctc_target_unigram"), (target, vocab_sizes[1]))
    for task, (column, vocab_size) in tasks.items():
        if continue_from is not None:
            model = borrow_subwords(continue_from / task, root / task)
        else:
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
    parser.add_argument(
        "--continue-from",
        type=Path,
        metavar="DIR",
        help="take vocabularies and normalisation of this data set or model",
    )
    parser.add_argument("--fbank", type=Path, help="folder of features from fbank.py")
    parser.add_argument(
        "--archive-bytes",
        type=positive,
        default=ARCHIVE_BYTES,
        metavar="BYTES",
        help="size of an archive of features, beyond which src_fbank80.1.zip and so on follow",
    )
    units = parser.add_mutually_exclusive_group(required=True)
    units.add_argument("--num-units", type=positive, help="clusters that the units were made with")
    units.add_argument("--text-targets", action="store_true", help="no units: the target is text only")
    parser.add_argument("--held-out", type=int, default=0, help="pairs for dev, and as many for test (0: see header)")
    args = parser.parse_args()

    pairs = read_table(args.pairs, args.source_column, args.target_column)
    splits = split_rows(pairs, args.held_out)
    names = [row["id"] for split in SPLITS for row in splits[split]]
    features = Features(names, args.data_root / args.source_audio, args.fbank)
    sequences = None if args.text_targets else unit_sequences(args.data_root / "units.tsv")
    write_speech_manifests(args.data_root, splits, features, sequences, args.continue_from, args.archive_bytes)
    columns = (args.source_column, args.target_column)
    write_text_targets(args.data_root, splits, columns, (args.source_vocab, args.target_vocab), args.continue_from)
    if "split" in pairs[0]:
        note = "dev and test have no utterance in common with train."
    elif args.held_out:
        note = f"{args.held_out} pairs each are held out for dev and test."
    else:
        note = "dev and test are the training set itself: scores show that a model learns, not how it generalises."
    unit_note = (
        "There is no target speech: unit 0 stands everywhere, train with --unit-weight 0."
        if args.text_targets
        else "Not every cluster need occur in the training data; the vocoder knows them all."
    )
    config = DATA_CONFIG.format(sample_rate=SAMPLE_RATE, splits=note, num_units=args.num_units or 1, units=unit_note)
    write_text(args.data_root / "config_gcmvn.yaml", config)
    write_text(args.data_root / "config_multitask.yaml", MULTITASK_CONFIG)
    sizes = ", ".join(f"{len(rows)} {split}" for split, rows in splits.items())
    print(f"manifests: {sizes}", flush=True)


if __name__ == "__main__":
    main()
