"""The data set of the task: source features, source text, target text and target units of each utterance."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch
from fairseq.data import Dictionary, FairseqDataset, data_utils
from torch import Tensor

from echostream.criterions.targets import UNKNOWN_PHONE, word_starts
from echostream.tasks.columns import Ragged
from echostream.tasks.features import FeatureReader, LengthMismatchError
from echostream.tasks.manifests import Manifest
from echostream.tasks.phones import SourcePhones
from echostream.tasks.unlabelled import UnlabelledSpeech

logger = logging.getLogger(__name__)

NO_PHONES = np.empty(0, np.int64)


def word_indices(tokens: Tensor, starts: Tensor) -> Tensor:
    """Index of the word that each token belongs to.

    Args:
        tokens: int64 ``(N,)``; the last one is EOS, which counts as a word of its own.
        starts: bool ``(vocabulary,)``, True for symbols that start a word.

    Returns:
        int64 ``(N,)``, non-decreasing from 0.
    """
    starts_word = starts[tokens].long()
    starts_word[0] = 0  # the first token belongs to word 0, whether it starts a word or not
    starts_word[-1] = 1 if len(tokens) > 1 else 0
    return starts_word.cumsum(0)


@dataclass(frozen=True)
class TrainingExample:
    """Tensors of one utterance."""

    index: int  # row of the manifest
    features: Tensor  # (T, 80) @100 Hz
    source_text: Tensor  # (S,)
    target_text: Tensor  # (N,), ends in EOS
    word_ids: Tensor  # (N,) word index of each target token
    units: Tensor  # (U,)
    phones: Tensor  # (T',) @25 Hz; may be shorter than the utterance, or empty


class SpeechTranslationDataset(FairseqDataset):
    """Utterances of one split. Sizes are log-mel frames, so ``--max-tokens`` counts 10 ms frames.

    Random transforms are seeded by run, epoch and utterance, so that the augmentation of an utterance does not depend
    on those before it, and a resumed run has the same augmentation as an uninterrupted one.

    Args:
        utterances: rows of the manifest.
        source_texts, target_texts: dictionary indices of each utterance; the target without EOS.
        reader: reads features.
        source_dictionary, target_dictionary: their padding and EOS symbols are used.
        seed: seed of the run.
        phones: class of the source phone of each 25 Hz frame by utterance id; utterances may be missing.
        skip_mismatches: leave out recordings whose length is not that of the manifest, instead of an error.
        unlabelled: speech of which every batch gets ``unlabelled_pieces`` pieces beside its utterances.
    """

    def __init__(
        self,
        utterances: Manifest,
        source_texts: Ragged,
        target_texts: Ragged,
        reader: FeatureReader,
        source_dictionary: Dictionary,
        target_dictionary: Dictionary,
        seed: int = 1,
        phones: SourcePhones | None = None,
        skip_mismatches: bool = False,
        unlabelled: UnlabelledSpeech | None = None,
        unlabelled_pieces: int = 1,
    ):
        self.utterances = utterances
        self.source_texts = source_texts
        self.target_texts = target_texts
        self.reader = reader
        self.source_dictionary = source_dictionary
        self.target_dictionary = target_dictionary
        self.target_word_starts = word_starts(target_dictionary)
        self.seed = seed
        self.phones = phones
        self.skip_mismatches = skip_mismatches
        self.unlabelled, self.unlabelled_pieces = unlabelled, unlabelled_pieces
        self._skipped: set[int] = set()  # rows for which the warning has been given
        self.epoch = 1
        self._sizes = utterances.n_frames.astype(np.int64)

    def __len__(self) -> int:
        return len(self.utterances)

    def set_epoch(self, epoch: int) -> None:
        """Choose the augmentation of ``epoch``."""
        self.epoch = epoch

    def __getitem__(self, index: int) -> TrainingExample | None:
        """One utterance; None if it is skipped because of its length.

        Raises:
            FeatureError: its audio can't be read, or its length is not that of the manifest.
        """
        utterance = self.utterances[index]
        try:
            # fairseq's transforms use NumPy's global random generator.
            with data_utils.numpy_seed(self.seed, self.epoch, int(index)):
                features = self.reader.read(utterance.audio, utterance.n_frames)
        except LengthMismatchError as error:
            message = f"{utterance.id}: {error}"
            if not self.skip_mismatches:
                raise LengthMismatchError(f"{message} (--on-length-mismatch skip goes on without it)") from error
            if index not in self._skipped:
                self._skipped.add(index)
                logger.warning(f"skipped {message}")
            return None
        return self.example(index, features)

    def example(self, index: int, features: Tensor) -> TrainingExample:
        """One utterance with given features ``(T, 80)`` in place of its own."""
        utterance = self.utterances[index]
        target_text = torch.from_numpy(self.target_texts[index].astype(np.int64))
        target_text = torch.cat([target_text, torch.tensor([self.target_dictionary.eos()])])
        return TrainingExample(
            index=int(index),
            features=features,
            source_text=torch.from_numpy(self.source_texts[index].astype(np.int64)),
            target_text=target_text,
            word_ids=word_indices(target_text, self.target_word_starts),
            units=torch.from_numpy(utterance.units.astype(np.int64)),
            phones=torch.from_numpy(self.phones.of(utterance.id) if self.phones else NO_PHONES),
        )

    def collater(self, samples: list[TrainingExample | None]) -> dict:
        """Pad examples into a batch, without those that are None; ``{}`` if none is left.

        Returns:
            A dictionary with these entries:

            - ``net_input``: ``src_tokens`` (B, T, 80), ``src_lengths`` (B,) and ``prev_text_tokens`` (B, N)
            - ``target_text`` (B, N), ending in EOS, and ``target_text_lengths`` (B,)
            - ``word_ids`` (B, N): word index of each target token
            - ``source_text`` (B, S) and ``source_text_lengths`` (B,)
            - ``units`` (B, U) and ``unit_lengths`` (B,)
            - ``phones`` (B, T') @25 Hz, ``UNKNOWN_PHONE`` where the phone is not known
            - ``id`` (B,): rows of the manifest; ``ids``: the ids there
            - ``ntokens``: total number of units; ``nsentences``: B
            - ``unlabelled`` (pieces, T, 80), if there is such speech: features of pieces of it, all of one length
        """
        batch = self._batch([sample for sample in samples if sample is not None])
        if batch and self.unlabelled is not None:
            key = (self.seed, self.epoch, *batch["id"].tolist())
            heard, whole = self.unlabelled.pieces(self.unlabelled_pieces, *key)
            batch |= {"unlabelled": heard, "unlabelled_whole": whole}
        return batch

    def _batch(self, samples: list[TrainingExample]) -> dict:
        if not samples:
            return {}
        src_tokens = torch.nn.utils.rnn.pad_sequence([s.features for s in samples], batch_first=True)
        target = [s.target_text for s in samples]
        pad, eos = self.target_dictionary.pad(), self.target_dictionary.eos()
        target_text = data_utils.collate_tokens(target, pad)
        word_ids = torch.stack([_pad_word_ids(s.word_ids, target_text.size(1)) for s in samples])
        return {
            "id": torch.tensor([s.index for s in samples]),
            "ids": [self.utterances.ids[s.index] for s in samples],
            "net_input": {
                "src_tokens": src_tokens,
                "src_lengths": _lengths([s.features for s in samples]),
                "prev_text_tokens": data_utils.collate_tokens(target, pad, eos, move_eos_to_beginning=True),
            },
            "target_text": target_text,
            "target_text_lengths": _lengths(target),
            "word_ids": word_ids,
            "source_text": _pad([s.source_text for s in samples], self.source_dictionary.pad()),
            "source_text_lengths": _lengths([s.source_text for s in samples]),
            "units": _pad([s.units for s in samples], 0),
            "unit_lengths": _lengths([s.units for s in samples]),
            "phones": _pad_phones([s.phones for s in samples], (src_tokens.size(1) + 3) // 4),
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

    def batch_by_size(
        self,
        indices: np.ndarray,
        max_tokens: int | None = None,
        max_sentences: int | None = None,
        required_batch_size_multiple: int = 1,
    ) -> list[np.ndarray]:
        """fairseq's batches, and the rest: of the last batch fairseq takes all or, below the multiple, nothing."""
        batches = super().batch_by_size(indices, max_tokens, max_sentences, required_batch_size_multiple)
        taken = sum(map(len, batches))
        return [*batches, np.asarray(indices)[taken:]] if taken < len(indices) else batches

    def ordered_indices(self) -> np.ndarray:
        """Longest first: batches have little padding, and a batch that doesn't fit in memory fails at the start."""
        return np.argsort(-self._sizes, kind="stable")


def _lengths(tensors: list[Tensor]) -> Tensor:
    return torch.tensor([len(tensor) for tensor in tensors])


def _pad(rows: list[Tensor], value: int) -> Tensor:
    """``(B, N)`` with ``N`` at least 1: the CTC loss takes empty targets, but no batch of nothing else."""
    return torch.nn.utils.rnn.pad_sequence([*rows, rows[0].new_zeros(1)], batch_first=True, padding_value=value)[:-1]


def _pad_phones(phones: list[Tensor], frames: int) -> Tensor:
    """Pad or cut the phones of each utterance to ``(B, frames)``."""
    padded = torch.full((len(phones), frames), UNKNOWN_PHONE)
    for row, known in zip(padded, phones, strict=True):
        row[: len(known)] = known[:frames]
    return padded


def _pad_word_ids(word_ids: Tensor, size: int) -> Tensor:
    """Pad with the index after the last word: ids stay non-decreasing, and padding belongs to no word."""
    return torch.cat([word_ids, (word_ids[-1:] + 1).expand(size - len(word_ids))])
