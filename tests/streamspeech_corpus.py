"""A miniature CVSS-C as StreamSpeech's preparation leaves it: its folders, file names, columns and absolute paths.

covost2/fr/clips/*.mp3                                  48 kHz, as Common Voice has them
cvss/cvss-c/fr-en/{train,dev,test}.tsv                  clip and translation, no header
cvss/cvss-c/fr-en/src_fbank80.zip, gcmvn.npz
cvss/cvss-c/fr-en/fbank2unit/{train,dev,test}.tsv       with both texts, beside .src, .txt, .unit and both configs
cvss/cvss-c/fr-en/{src,tgt}_unigram6000/                SentencePiece, dictionary (both named after fr), pieces
cvss/cvss-c/fr-en/simuleval/{train,dev,test}/           wav_list.txt, target.txt
pretrain_models/unit-based_HiFi-GAN_vocoder/mHuBERT.layer11.km1000.en/{g_00500000,config.json}
"""

from __future__ import annotations

import csv
import io
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sentencepiece
import soundfile
import soxr
from tiny_models import speech_like
from tiny_translator import VOCODERS

from echostream.checkpoints.vocoder_files import save_vocoder
from echostream.vocoders.registry import build_vocoder
from scripts.data.fbank_archive import log_mel

SIZES = {"train": 40, "dev": 9, "test": 4}
UNITS = 1000
VOCABULARY = {"src": 70, "tgt": 60}
FRENCH = ["le", "la", "une", "gare", "hôtel", "train", "où", "est", "part", "à", "midi", "demain", "merci", "beaucoup"]
FRENCH += ["l'été", "ça", "va", "bien", "ici", "près", "il", "pleut"]
ENGLISH = ["the", "a", "station", "hotel", "train", "where", "is", "leaves", "at", "noon", "tomorrow", "thanks", "much"]
ENGLISH += ["summer", "it", "goes", "well", "here", "rains"]
SPEECH_CONFIG = """\
global_cmvn:
  stats_npz_path: {root}/gcmvn.npz
input_channels: 1
input_feat_per_channel: 80
specaugment:
  freq_mask_F: 27
  freq_mask_N: 1
  time_mask_N: 1
  time_mask_T: 100
  time_mask_p: 1.0
  time_wrap_W: 0
transforms:
  '*':
  - global_cmvn
  _train:
  - global_cmvn
  - specaugment
vocoder:
  checkpoint: {vocoder}/g_00500000
  config: {vocoder}/config.json
  type: code_hifigan
"""
TEXT_CONFIG = """\
{name}:
   decoder_type: {decoder}
   dict: {root}/{side}_unigram6000/spm_unigram_fr.txt
   data: {root}/{side}_unigram6000
   loss_weight: {weight}
   rdrop_alpha: 0.0
   decoder_args:
      decoder_layers: {layers}
      decoder_embed_dim: 512
      decoder_ffn_embed_dim: 2048
      decoder_attention_heads: 8
   label_smoothing: 0.1
"""
TEXTS = (
    {"name": "target_unigram", "decoder": "transformer", "side": "tgt", "weight": "8.0", "layers": 4},
    {"name": "source_unigram", "decoder": "ctc", "side": "src", "weight": "4.0", "layers": 0},
    {"name": "ctc_target_unigram", "decoder": "ctc", "side": "tgt", "weight": "4.0", "layers": 0},
)


@dataclass(frozen=True)
class Corpus:
    """Where the parts are; ``targets``: translations of the test set, in the order of its lists."""

    data: Path  # fbank2unit
    lists: Path  # simuleval/test
    vocoder: Path
    targets: tuple[str, ...]


def write_corpus(folder: Path) -> Corpus:
    """Write everything into ``folder``."""
    clips, root = folder / "covost2/fr/clips", folder / "cvss/cvss-c/fr-en"
    data, vocoder = (
        root / "fbank2unit",
        folder / "pretrain_models/unit-based_HiFi-GAN_vocoder/mHuBERT.layer11.km1000.en",
    )
    for made in (clips, data, root / "src_unigram6000", root / "tgt_unigram6000"):
        made.mkdir(parents=True)
    generator = np.random.default_rng(0)
    number, rows, arrays = 17_300_000, {}, {}
    for split, size in SIZES.items():
        rows[split] = []
        for _ in range(size):
            number += 1
            row = {"id": f"common_voice_fr_{number}"}
            sound = speech_like(generator.uniform(1.2, 2.4), 48_000, number)
            soundfile.write(clips / f"{row['id']}.mp3", sound, 48_000)
            arrays[row["id"]] = log_mel(soxr.resample(sound, 48_000, 16_000))
            french = " ".join(generator.choice(FRENCH, generator.integers(3, 7)))
            row["src_text"] = generator.choice(['"{}".', "{} ?", "{}."]).format(french.capitalize())
            row["tgt_text"] = " ".join(generator.choice(ENGLISH, generator.integers(3, 7)))
            units = generator.integers(0, UNITS, generator.integers(20, 45))
            rows[split].append({**row, "tgt_audio": " ".join(map(str, units)), "tgt_n_frames": len(units)})
    addresses = write_archive(root / "src_fbank80.zip", arrays)
    frames = np.concatenate([arrays[row["id"]] for row in rows["train"]])
    np.savez(root / "gcmvn.npz", mean=frames.mean(0), std=frames.std(0))
    for split, utterances in rows.items():
        write_split(root, split, utterances, addresses, {name: len(array) for name, array in arrays.items()}, clips)
    for side in VOCABULARY:
        write_pieces(root / f"{side}_unigram6000", {s: [(r["id"], r[f"{side}_text"]) for r in rows[s]] for s in rows})
    tiny = build_vocoder(VOCODERS["code_hifigan"] | {"num_embeddings": UNITS}).eval()
    save_vocoder(tiny, vocoder, step=500_000)
    (data / "config_gcmvn.yaml").write_text(SPEECH_CONFIG.format(root=root, vocoder=vocoder), encoding="utf-8")
    multitask = "".join(TEXT_CONFIG.format(root=root, **values) for values in TEXTS)
    (data / "config_mtl_asr_st_ctcst.yaml").write_text(multitask, encoding="utf-8")
    return Corpus(data, root / "simuleval/test", vocoder, tuple(row["tgt_text"] for row in rows["test"]))


def write_archive(path: Path, arrays: dict[str, np.ndarray]) -> dict[str, str]:
    """One zip of .npy, not compressed; the absolute path, offset and length of each."""
    addresses = {}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            archive.writestr(f"{name}.npy", buffer.getvalue())
        for info in archive.infolist():
            offset = info.header_offset + 30 + len(info.filename)
            addresses[Path(info.filename).stem] = f"{path}:{offset}:{info.file_size}"
    return addresses


def write_split(
    root: Path, split: str, rows: list[dict], addresses: dict[str, str], lengths: dict[str, int], clips: Path
) -> None:
    """Manifest, texts and units beside it, CVSS-C's own table, and SimulEval's lists."""
    write_table(
        root / f"fbank2unit/{split}.tsv",
        [
            {
                "id": row["id"],
                "src_audio": addresses[row["id"]],
                "src_n_frames": lengths[row["id"]],
                "src_text": row["src_text"],
                "tgt_text": row["tgt_text"],
                "tgt_audio": row["tgt_audio"],
                "tgt_n_frames": row["tgt_n_frames"],
            }
            for row in rows
        ],
    )
    for ending, column in (("src", "src_text"), ("txt", "tgt_text"), ("unit", "tgt_audio")):
        write_lines(root / f"fbank2unit/{split}.{ending}", [row[column] for row in rows])
    write_lines(root / f"{split}.tsv", [f"{row['id']}.mp3\t{row['tgt_text']}" for row in rows])
    write_lines(root / f"simuleval/{split}/wav_list.txt", [f"{clips}/{row['id']}.mp3" for row in rows])
    write_lines(root / f"simuleval/{split}/target.txt", [row["tgt_text"] for row in rows])


def write_pieces(folder: Path, texts: dict[str, list[tuple[str, str]]]) -> None:
    """A SentencePiece model of the training texts without marks, its dictionary, and the pieces of each split."""
    plain = {
        split: [(name, re.sub(r"[^\w\s]", "", text.lower())) for name, text in rows] for split, rows in texts.items()
    }
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter([text for _, text in plain["train"]]),
        model_prefix=str(folder / "spm_unigram_fr"),
        vocab_size=VOCABULARY[folder.name[:3]],
        hard_vocab_limit=False,
        character_coverage=1.0,
        unk_id=3,
        bos_id=0,
        pad_id=1,
        eos_id=2,
        minloglevel=2,
    )
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spm_unigram_fr.model"))
    write_lines(folder / "spm_unigram_fr.txt", [f"{model.id_to_piece(i)} 1" for i in range(4, len(model))])
    for split, rows in plain.items():
        pieces = [{"id": name, "tgt_text": " ".join(model.encode(text, out_type=str))} for name, text in rows]
        write_table(folder / f"{split}.tsv", pieces)


def write_table(path: Path, rows: list[dict]) -> None:
    """Tab-separated as fairseq's preparation writes it: nothing is quoted, a quote is escaped."""
    with path.open("w", encoding="utf-8", newline="") as file:
        options = {"delimiter": "\t", "lineterminator": "\n", "quoting": csv.QUOTE_NONE, "escapechar": "\\"}
        table = csv.DictWriter(file, list(rows[0]), **options)
        table.writeheader()
        table.writerows(rows)


def write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
