"""SentencePiece models and the fairseq dictionaries that go with them."""

from __future__ import annotations

import io
from pathlib import Path

import sentencepiece
from recipe import atomic_path, write_text

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
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    pieces = [processor.id_to_piece(i) for i in range(4, processor.get_piece_size())]
    write_text(folder / DICTIONARY_NAME, "".join(f"{piece} 1\n" for piece in pieces))
    return processor
