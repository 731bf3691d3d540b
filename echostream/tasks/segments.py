"""Segment sizes of training batches.

Multi-chunk training uses many segment sizes, so that any of them can be chosen at inference. The size of a batch is a
pure function of seed, update and position in the update: all ranks draw the same without communication, and a resumed
run draws the same as an uninterrupted one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from echostream.constants import FRAME_MS

WHOLE_UTTERANCE = 0


def parse_segment_sizes(text: str, allow_uniform: bool = False) -> tuple[int, ...] | None:
    """Parse a list of segment sizes such as ``"1,8,0"``, in 40 ms frames; 0 is the whole utterance.

    Returns:
        The sizes, or None for ``"uniform"``, which is valid with ``allow_uniform`` only.

    Raises:
        ValueError: ``text`` is not such a list.
    """
    if allow_uniform and text.strip() == "uniform":
        return None
    numbers = _whole_numbers(text)
    if not numbers:
        expected = 'a list such as "1,8,0"' + (' or "uniform"' if allow_uniform else "")
        raise ValueError(f"segment sizes {text!r}: expected {expected} (frames of {FRAME_MS} ms, 0: whole utterance)")
    return numbers


def parse_right_contexts(text: str | None) -> tuple[int, ...] | None:
    """Parse a list of right contexts such as ``"0,4,16"``, in encoder frames; None for None.

    Raises:
        ValueError: ``text`` is not such a list.
    """
    if text is None:
        return None
    numbers = _whole_numbers(text)
    if not numbers:
        raise ValueError(f'right contexts {text!r}: expected a list such as "0,4,16" (encoder frames)')
    return numbers


def _whole_numbers(text: str) -> tuple[int, ...]:
    """Numbers separated by commas; none if ``text`` is anything else."""
    pieces = [piece.strip() for piece in text.split(",") if piece.strip()]
    return tuple(map(int, pieces)) if all(piece.isdecimal() for piece in pieces) else ()


def number_of(*key: object) -> int:
    """A number of 64 bits that depends on the key alone: the same in every process and on every machine."""
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


@dataclass(frozen=True)
class MultiChunkSampler:
    """Draws the segment size of each batch.

    The warm-up starts with the smallest size and adds the larger ones step by step. A CTC head learns early in training
    at which frame it emits a symbol. What it learns with little look-ahead also works with more, but a head that has
    learned with the whole utterance emits symbols before they have been spoken.

    Args:
        sizes: sizes to choose from with equal probability, in 25 Hz frames, 0 for the whole utterance; None: uniform
            over 1 to the length of the longest utterance.
        seed: seed of the run.
        warmup_updates: number of updates of the warm-up; 0 for none.
    """

    sizes: Sequence[int] | None
    seed: int
    warmup_updates: int = 0

    def sample_segment_length(self, update: int, micro_batch: int, longest_frames: int) -> int:
        """Segment size of one batch in 25 Hz frames, 0 for the whole utterance.

        Args:
            update: number of updates before this one.
            micro_batch: index of the batch in the update (``--update-freq``).
            longest_frames: length of the longest utterance in the batch over all ranks, 25 Hz frames.
        """
        draw = self._draw(update, micro_batch)
        share = min(1.0, update / self.warmup_updates) if self.warmup_updates else 1.0
        if self.sizes is None:
            return 1 + int(draw * max(1, int(share * longest_frames)))
        allowed = sorted(self.sizes, key=lambda size: size or float("inf"))[: max(1, int(share * len(self.sizes)))]
        return allowed[int(draw * len(allowed))]

    def sample_right_context(self, update: int, micro_batch: int, choices: Sequence[int]) -> int:
        """One of the right contexts in ``choices`` for the same batch, drawn independently of its segment."""
        return choices[int(self._draw("right context", update, micro_batch) * len(choices))]

    def _draw(self, *key: object) -> float:
        """A number from 0 to below 1."""
        return number_of(self.seed, *key) / 2**64


def segment_name(size: int, frame_ms: int = FRAME_MS) -> str:
    """Label of a segment size in logs, such as ``"320ms"``; ``"full"`` for the whole utterance."""
    return "full" if size == WHOLE_UTTERANCE else f"{size * frame_ms}ms"
