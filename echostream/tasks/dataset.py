"""The data set of the task: source features, source text, target text and target units of each utterance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from fairseq.data import Dictionary, FairseqDataset, data_utils
from torch import Tensor

from echostream.criterions.targets import UNKNOWN_PHONE, word_starts
from echostream.tasks.features import FeatureReader
from echostream.tasks.manifests import Utterance

NO_PHONES = np.empty(0, np.int64)


def word_indices(tokens: Tensor, starts: Tensor) -> Tensor:
    """Index of the word that each token belongs to.

    Args:
        tokens: int64 ``(N,)``, the last one being EOS, which counts as a word of its own.
        starts: bool ``(vocabulary,)``, symbols that begin a word.

    Returns:
        int64 ``(N,)``, from 0, never decreasing.
    """
    begins = starts[tokens].long()
    begins[0] = 0  # whatever comes first is in word 0
    begins[-1] = 1 if len(tokens) > 1 else 0
    return begins.cumsum(0)


@dataclass(frozen=True)
class TrainingExample:
    """Tensors of one utterance: features ``(T, 80)`` at 100 Hz, text tokens, units ``(U,)``; target text
    ends in EOS;
    phones ``(T',)`` at 25 Hz, as far as they are known.
    """

    index: int
    features: Tensor
    source_text: Tensor
    target_text: Tensor
    word_ids: Tensor
    units: Tensor
    phones: Tensor


class SpeechTranslationDataset(FairseqDataset):
    """Utterances of one split. Sizes are log-mel frames, so ``--max-tokens`` counts 10 ms frames.

    Random transforms are seeded by run, epoch and utterance: what an utterance looks like depends on nothing that
    came before it, and a resumed run sees the same augmentation as an uninterrupted one.

    Args:
        utterances: rows of the manifest.
        source_texts, target_texts: dictionary indices of each utterance, target without EOS.
        reader: reads features.
        source_dictionary, target_dictionary: their padding and EOS symbols are used.
        seed: seed of the run.
        phones: classes of the source's phones by id, int64 at 25 Hz; an utterance may be missing.
    """

    def __init__(
        self,
        utterances: list[Utterance],
        source_texts: list[np.ndarray],
        target_texts: list[np.ndarray],
        reader: FeatureReader,
        source_dictionary: Dictionary,
        target_dictionary: Dictionary,
        seed: int = 1,
        phones: Mapping[str, np.ndarray] | None = None,
    ):
        self.utterances = utterances
        self.source_texts = source_texts
        self.target_texts = target_texts
        self.reader = reader
        self.source_dictionary = source_dictionary
        self.target_dictionary = target_dictionary
        self.target_word_starts = word_starts(target_dictionary)
        self.seed = seed
        self.phones = phones or {}
        self.epoch = 1
        self._sizes = np.array([utterance.n_frames for utterance in utterances], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.utterances)

    def set_epoch(self, epoch: int) -> None:
        """Choose the augmentation of ``epoch``."""
        self.epoch = epoch

    def __getitem__(self, index: int) -> TrainingExample:
        utterance = self.utterances[index]
        # fairseq's transforms draw from NumPy's global generator
        with data_utils.numpy_seed(self.seed, self.epoch, int(index)):
            features = self.reader.read(utterance.audio)
        target_text = torch.from_numpy(self.target_texts[index].astype(np.int64))
        target_text = torch.cat([target_text, torch.tensor([self.target_dictionary.eos()])])
        return TrainingExample(
            index=int(index),
            features=features,
            source_text=torch.from_numpy(self.source_texts[index].astype(np.int64)),
            target_text=target_text,
            word_ids=word_indices(target_text, self.target_word_starts),
            units=torch.from_numpy(utterance.units.astype(np.int64)),
            phones=torch.from_numpy(self.phones.get(utterance.id, NO_PHONES)),
        )

    def collater(self, samples: list[TrainingExample]) -> dict:
        """Pad examples into a batch; ``{}`` for none.

        Returns:
            ``net_input`` with ``src_tokens`` (B, T, 80), ``src_lengths`` (B,) and ``prev_text_tokens`` (B,
            N); ``target_text`` (B, N) ending in EOS, ``word_ids`` (B, N), ``source_text`` (B, S), ``units``
            (B, U), each with its ``_lengths`` (B,); ``phones`` (B, T') at 25 Hz, ``UNKNOWN_PHONE`` where
            none is known; ``id`` (B,) rows of the manifest, ``ids`` their names, ``ntokens`` the number of
            units and ``nsentences``.
        """
        if not samples:
            return {}
        src_tokens = torch.nn.utils.rnn.pad_sequence([s.features for s in samples], batch_first=True)
        target = [s.target_text for s in samples]
        pad, eos = self.target_dictionary.pad(), self.target_dictionary.eos()
        target_text = data_utils.collate_tokens(target, pad)
        word_ids = torch.stack([_pad_with_next(s.word_ids, target_text.size(1)) for s in samples])
        return {
            "id": torch.tensor([s.index for s in samples]),
            "ids": [self.utterances[s.index].id for s in samples],
            "net_input": {
                "src_tokens": src_tokens,
                "src_lengths": _lengths([s.features for s in samples]),
                "prev_text_tokens": data_utils.collate_tokens(target, pad, eos, move_eos_to_beginning=True),
            },
            "target_text": target_text,
            "target_text_lengths": _lengths(target),
            "word_ids": word_ids,
            "source_text": data_utils.collate_tokens([s.source_text for s in samples], self.source_dictionary.pad()),
            "source_text_lengths": _lengths([s.source_text for s in samples]),
            "units": data_utils.collate_tokens([s.units for s in samples], 0),
            "unit_lengths": _lengths([s.units for s in samples]),
            "phones": _phones([s.phones for s in samples], (src_tokens.size(1) + 3) // 4),
            "ntokens": sum(len(s.units) for s in samples),
            "nsentences": len(samples),
        }

    def num_tokens(self, index: int) -> int:
        """Log-mel frames of an utterance."""
        return int(self._sizes[index])

    def num_tokens_vec(self, indices: np.ndarray) -> np.ndarray:
        """Log-mel frames of several utterances."""
        return self._sizes[indices]

    def size(self, index: int) -> tuple[int, int]:
        """Log-mel frames and target pieces, EOS included."""
        return int(self._sizes[index]), len(self.target_texts[index]) + 1

    @property
    def sizes(self) -> np.ndarray:
        """Log-mel frames of all utterances."""
        return self._sizes

    def ordered_indices(self) -> np.ndarray:
        """Longest first, so that an update that doesn't fit in memory fails at once and batches have little
        padding.
        """
        return np.argsort(-self._sizes, kind="stable")


def _lengths(tensors: list[Tensor]) -> Tensor:
    return torch.tensor([len(tensor) for tensor in tensors])


def _phones(phones: list[Tensor], frames: int) -> Tensor:
    """``(B, frames)``, padded with what is not known."""
    padded = torch.full((len(phones), frames), UNKNOWN_PHONE)
    for row, known in zip(padded, phones, strict=True):
        row[: len(known)] = known[:frames]
    return padded


def _pad_with_next(word_ids: Tensor, size: int) -> Tensor:
    """Padding is a word after the last: word numbers never decrease, and no word sees it as part of itself."""
    return torch.cat([word_ids, (word_ids[-1:] + 1).expand(size - len(word_ids))])
