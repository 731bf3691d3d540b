"""Definitions of targets that the data set and the criterion share."""

from __future__ import annotations

import torch
from fairseq.data import Dictionary
from torch import Tensor

from echostream.text import WORD_MARK

UNKNOWN_PHONE = -100  # ignored by the cross entropy


def word_starts(dictionary: Dictionary) -> Tensor:
    """Bool ``(vocabulary,)``: True for symbols that start a word."""
    return torch.tensor([symbol.startswith(WORD_MARK) for symbol in dictionary.symbols])
