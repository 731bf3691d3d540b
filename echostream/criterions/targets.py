"""What data set and criterion agree on about targets."""

from __future__ import annotations

import torch
from fairseq.data import Dictionary
from torch import Tensor

from echostream.text import WORD_MARK

UNKNOWN_PHONE = -100  # cross entropy passes over it


def word_starts(dictionary: Dictionary) -> Tensor:
    """Bool ``(vocabulary,)``: the symbol begins a word."""
    return torch.tensor([symbol.startswith(WORD_MARK) for symbol in dictionary.symbols])
