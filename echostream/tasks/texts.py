"""Texts of a split as dictionary indices, and checks against the dictionary and the length of the audio."""

from __future__ import annotations

import logging
from argparse import Namespace
from array import array
from collections.abc import Callable
from pathlib import Path

import numpy as np
from fairseq.data import Dictionary, encoders

from echostream.tasks.columns import Ragged, RaggedBuilder
from echostream.tasks.data_config import TextConfig
from echostream.tasks.manifests import Manifest, ManifestError, matching_texts

logger = logging.getLogger(__name__)

# With a larger share of unknown subwords, the dictionary is probably not the one that the text was tokenised with.
MAX_UNKNOWN_SHARE = 0.5
LOG_MEL_MS = 10
MAX_EXAMPLES = 5  # ids in a message


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


def encode_texts(manifest: Path, rows: Manifest, split: str, text: TextConfig, allow_empty: bool = False) -> Ragged:
    """The text of each row as dictionary indices, without EOS.

    Args:
        manifest: file of the rows, for messages.
        rows: utterances.
        split: name of the split.
        text: folder, dictionary and tokenisers of the texts.
        allow_empty: a text may be empty.

    Raises:
        ManifestError: a row has no text, a tokeniser can't be used, or most subwords are not in the dictionary.
    """
    tokenisers = [_tokeniser(text, key) for key in ("pre_tokenizer", "bpe_tokenizer") if key in text.tokenizers]
    index, unknown = text.dictionary.index, text.dictionary.unk()
    encoded, where = RaggedBuilder(), array("q")
    pieces = missing = 0
    example = ""
    for row, line in matching_texts(manifest, rows, text.data, split, text.name, allow_empty):
        for tokenise in tokenisers:
            line = tokenise(line)
        symbols = line.split()
        numbers = [index(symbol) for symbol in symbols]
        encoded.append(numbers)
        where.append(row)
        pieces += len(numbers)
        if unknown in numbers:
            missing += numbers.count(unknown)
            example = example or f"{symbols[numbers.index(unknown)]!r} of id {rows.ids[row]!r}"
    if missing > MAX_UNKNOWN_SHARE * pieces:
        raise ManifestError(
            f"{text.dictionary_path} does not fit {text.data / split}.tsv: {100 * missing / pieces:.0f} % of the "
            f"pieces are unknown, such as {example}"
        )
    if missing:
        logger.warning(f"{split}: {missing} of {pieces} pieces of {text.name} are unknown to the dictionary")
    texts, order = encoded.build(), np.frombuffer(where, np.int64)
    return texts if (order == np.arange(len(order))).all() else texts.take(np.argsort(order))


def _tokeniser(text: TextConfig, key: str) -> Callable[[str], str]:
    """The encoder that the multitask YAML's entry ``key`` describes.

    Raises:
        ManifestError: it can't be built or, when it is called, used.
    """
    build = encoders.build_tokenizer if key == "pre_tokenizer" else encoders.build_bpe

    def refused(error: Exception) -> ManifestError:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return ManifestError(f"{text.name}: the {key} {text.tokenizers[key]} can't be used: {reason}")

    try:
        tokeniser = build(Namespace(**text.tokenizers[key]))
        if tokeniser is None:
            raise ValueError(f"it names none, as in '{key[:3] if key[0] == 'b' else 'tokenizer'}: NAME'")
    except Exception as error:  # fairseq's tokenisers and SentencePiece have no common exception class
        raise refused(error) from error

    def encode(line: str) -> str:
        try:
            return tokeniser.encode(line)
        except Exception as error:
            raise refused(error) from error

    return encode


def warn_about_ctc_length(split: str, rows: Manifest, sources: Ragged, targets: Ragged, frame_ms: int) -> None:
    """Log how many utterances have more subwords than encoder frames, and some ids: there is no CTC path for those."""
    frames = -(-rows.n_frames // (frame_ms // LOG_MEL_MS))
    too_long = np.flatnonzero(np.maximum(sources.lengths, targets.lengths) > frames)
    if len(too_long):
        examples = ", ".join(rows.ids[row] for row in too_long[:MAX_EXAMPLES])
        logger.warning(
            f"{split}: {len(too_long)} utterances have more pieces than frames of {frame_ms} ms, such as {examples}; "
            "their CTC loss is infinite and left out (meters asr_inf, st_inf)"
        )
