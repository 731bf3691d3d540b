"""SentencePiece models and the fairseq dictionaries that go with them."""

from __future__ import annotations

import io
from pathlib import Path

import sentencepiece

from scripts.files import atomic_path, borrow, write_text

MODEL_NAME = "spm_unigram.model"
DICTIONARY_NAME = "dict.txt"


def train_subwords(lines: list[str], folder: Path, vocab_size: int) -> sentencepiece.SentencePieceProcessor:
    """Train a unigram model on `lines`; writes `spm_unigram.model` and `dict.txt` into `folder`.

    Ids of the model are ids of fairseq's Dictionary: `<s>` 0, `<pad>` 1, `</s>` 2, `<unk>` 3, then the pieces in the
    model's order. A small text may give fewer pieces than `vocab_size`, never more.
    """
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="unigram",
        vocab_size=vocab_size,
        character_coverage=1.0,
        hard_vocab_limit=False,
        bos_id=0,
        pad_id=1,
        eos_id=2,
        unk_id=3,
        num_threads=1,
        minloglevel=2,
    )
    with atomic_path(folder / MODEL_NAME) as temporary:
        temporary.write_bytes(model.getvalue())
    processor = load_subwords(folder)
    pieces = [processor.id_to_piece(i) for i in range(4, processor.get_piece_size())]
    write_text(folder / DICTIONARY_NAME, "".join(f"{piece} 1\n" for piece in pieces))
    return processor


def borrow_subwords(source: Path, folder: Path) -> sentencepiece.SentencePieceProcessor:
    """Copy model and dictionary from another data set's folder, or a model's, into `folder`.

    Raises:
        SystemExit: they are not there.
    """
    for name in (MODEL_NAME, DICTIONARY_NAME):
        borrow(source, folder, name)
    return load_subwords(folder)


def load_subwords(folder: Path) -> sentencepiece.SentencePieceProcessor:
    """The model in a folder that this module has filled."""
    return sentencepiece.SentencePieceProcessor(model_proto=(folder / MODEL_NAME).read_bytes())
