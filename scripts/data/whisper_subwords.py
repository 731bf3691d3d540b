"""Whisper's own subwords, cut down to those that a text uses, as a SentencePiece model.

A text decoder that starts from Whisper's (`--init-mt-decoder-from-whisper`) has to write the subwords that Whisper
writes. Its 50,257 are for all languages; most of their embeddings would never be used.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from echostream.checkpoints.whisper_names import BYTE_CHARACTERS
from echostream.text import WORD_MARK
from scripts.data.subwords import DICTIONARY_NAME, MODEL_NAME, load_subwords, train_subwords
from scripts.files import atomic_path, write_text

NUM_SPECIALS = 4  # <s>, <pad>, </s>, <unk>
SMALLEST_MODEL = 400  # pieces of the model whose text normalisation is taken


def whisper_pieces(tokenizer: Path) -> dict[str, float]:
    """Pieces of Whisper's `tokenizer.json` in SentencePiece's form, with a score by which earlier merges win.

    Tokens that are no whole characters, or that have a space inside, have no such form and are left out.
    """
    model = json.loads(tokenizer.read_text(encoding="utf-8"))["model"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    ranks = {merge.replace(" ", "", 1): rank for rank, merge in enumerate(merges, start=1)}
    bytes_of = {character: byte for byte, character in enumerate(BYTE_CHARACTERS)}
    pieces = {}
    for token in model["vocab"]:
        if not all(character in bytes_of for character in token):
            continue
        try:
            text = bytes(bytes_of[character] for character in token).decode()
        except UnicodeDecodeError:
            continue
        if text and " " not in text[1:] and text.isprintable() and WORD_MARK not in text:
            pieces[text.replace(" ", WORD_MARK)] = -float(ranks.get(token, 0))
    return pieces


def prune_whisper_subwords(
    lines: list[str], tokenizer: Path, folder: Path, vocab_size: int
) -> sentencepiece.SentencePieceProcessor:
    """The `vocab_size` pieces that `lines` use most, as `spm_unigram.model` and `dict.txt` in `folder`.

    Rarer ones are written in the pieces they were merged from. Every character of the text is a piece, so that nothing
    is unknown. Ids are as in `scripts.data.subwords`; behind the dictionary's the model holds the rarer pieces, which
    it needs on the way from characters to longer ones.
    """
    proto = sentencepiece_model_pb2.ModelProto()
    with tempfile.TemporaryDirectory() as scratch:
        train_subwords(lines, Path(scratch), SMALLEST_MODEL)
        proto.ParseFromString((Path(scratch) / MODEL_NAME).read_bytes())
    del proto.pieces[NUM_SPECIALS:]
    proto.trainer_spec.model_type = sentencepiece_model_pb2.TrainerSpec.BPE
    kinds = sentencepiece_model_pb2.ModelProto.SentencePiece
    pieces = whisper_pieces(tokenizer)
    characters = {WORD_MARK, *(character for line in lines for character in line if not character.isspace())}
    for character in sorted(characters - pieces.keys()):
        pieces[character] = -float(len(pieces))

    def model(kept: list[str], rarer: list[str]) -> bytes:
        del proto.pieces[NUM_SPECIALS:]
        for names, kind in ((kept, kinds.NORMAL), (rarer, kinds.UNUSED)):
            for name in names:
                proto.pieces.add(piece=name, score=pieces[name], type=kind)
        return proto.SerializeToString()

    whole = sentencepiece.SentencePieceProcessor(model_proto=model(list(pieces), []))
    counts = Counter(piece for line in lines for piece in whole.encode(line, out_type=str))
    # SentencePiece normalises the text, so that other characters may be used than stand there.
    needed = {piece for piece in counts if len(piece) == 1} | (characters & pieces.keys())
    by_use = [piece for piece, _ in counts.most_common() if piece in pieces and piece not in needed]
    kept = sorted(needed) + by_use[: max(0, vocab_size - NUM_SPECIALS - len(needed))]
    used = set(kept)
    with atomic_path(folder / MODEL_NAME) as temporary:
        temporary.write_bytes(model(kept, [piece for piece in pieces if piece not in used]))
    write_text(folder / DICTIONARY_NAME, "".join(f"{piece} 1\n" for piece in kept))
    return load_subwords(folder)
