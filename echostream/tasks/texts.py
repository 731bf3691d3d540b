"""Texts of a split as dictionary indices, and checks against the dictionary and the length of the audio."""

from __future__ import annotations

import logging
from argparse import Namespace
from pathlib import Path

import numpy as np
from fairseq.data import Dictionary, encoders

from echostream.tasks.data_config import TextConfig
from echostream.tasks.manifests import ManifestError, Utterance, texts_in_order

logger = logging.getLogger(__name__)

# With a larger share of unknown subwords, the dictionary is probably not the one that the text was tokenised with.
MAX_UNKNOWN_SHARE = 0.5
LOG_MEL_FRAMES_PER_ENCODER_FRAME = 4


def dictionary_from_symbols(symbols: list[str]) -> Dictionary:
    """A fairseq dictionary with the given ``symbols``, special symbols first.

    Raises:
        ValueError: the list doesn't start with fairseq's special symbols, or repeats a symbol.
    """
    dictionary = Dictionary()
    for symbol in symbols[dictionary.nspecial :]:
        dictionary.add_symbol(symbol)
    if dictionary.symbols != list(symbols):
        raise ValueError("the list of symbols does not begin with fairseq's four specials or repeats a symbol")
    return dictionary


def encode_texts(manifest: Path, rows: list[Utterance], split: str, text: TextConfig) -> list[np.ndarray]:
    """The text of each row as int32 dictionary indices ``(subwords,)``, without EOS.

    Args:
        manifest: file of the rows, for messages.
        rows: utterances.
        split: name of the split.
        text: folder, dictionary and tokenisers of the texts.

    Raises:
        ManifestError: a row has no text, a tokeniser can't be used, or most subwords are not in the dictionary.
    """
    lines = texts_in_order(manifest, rows, text.data, split, text.name)
    for key, build in (("pre_tokenizer", encoders.build_tokenizer), ("bpe_tokenizer", encoders.build_bpe)):
        if key in text.tokenizers:
            try:
                tokenizer = build(Namespace(**text.tokenizers[key]))
                if tokenizer is None:
                    raise ValueError(f"it names none, as in '{key[:3] if key[0] == 'b' else 'tokenizer'}: NAME'")
                lines = [tokenizer.encode(line) for line in lines]
            except Exception as error:  # fairseq's tokenisers and SentencePiece have no common exception class
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise ManifestError(f"{text.name}: the {key} {text.tokenizers[key]} can't be used: {reason}") from error
    index, unknown = text.dictionary.index, text.dictionary.unk()
    encoded = [np.array([index(piece) for piece in line.split()], dtype=np.int32) for line in lines]
    pieces, missing = sum(map(len, encoded)), sum(int((e == unknown).sum()) for e in encoded)
    if missing > MAX_UNKNOWN_SHARE * pieces:
        row = next(i for i, e in enumerate(encoded) if (e == unknown).any())
        piece = lines[row].split()[int(np.argmax(encoded[row] == unknown))]
        raise ManifestError(
            f"{text.dictionary_path} does not fit {text.data / split}.tsv: {100 * missing / pieces:.0f} % of the "
            f"pieces are unknown, such as {piece!r} of id {rows[row].id!r}"
        )
    if missing:
        logger.warning(f"{split}: {missing} of {pieces} pieces of {text.name} are unknown to the dictionary")
    return encoded


def warn_about_ctc_length(
    split: str, rows: list[Utterance], sources: list[np.ndarray], targets: list[np.ndarray]
) -> None:
    """Log how many utterances have more subwords than encoder frames: there is no CTC path for those."""
    triples = zip(rows, sources, targets, strict=True)
    too_long = sum(max(len(s), len(t)) > -(-row.n_frames // LOG_MEL_FRAMES_PER_ENCODER_FRAME) for row, s, t in triples)
    if too_long:
        logger.warning(
            f"{split}: {too_long} utterances have more pieces than frames of 40 ms; their CTC loss is infinite and "
            "left out (meters asr_inf, st_inf)"
        )
