"""Which segment size a batch is trained with.

Multi-chunk training shows one model many segment sizes, so that any of them can be chosen later. The choice
is a pure function of seed, update and position inside the update: all ranks agree without talking, and a
resumed run draws what the uninterrupted one would have drawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from echostream.constants import FRAME_MS

WHOLE_UTTERANCE = 0


def parse_segment_sizes(text: str, allow_uniform: bool = False) -> tuple[int, ...] | None:
    """Read a list such as ``"1,8,0"`` of sizes in 40 ms frames, 0 being the whole utterance; None for
    ``"uniform"``.

    Raises:
        ValueError: not such a list.
    """
    if allow_uniform and text.strip() == "uniform":
        return None
    pieces = [piece.strip() for piece in text.split(",") if piece.strip()]
    if not pieces or not all(piece.isdecimal() for piece in pieces):
        expected = 'a list such as "1,8,0"' + (' or "uniform"' if allow_uniform else "")
        raise ValueError(f"segment sizes {text!r}: expected {expected} (frames of {FRAME_MS} ms, 0: whole utterance)")
    return tuple(int(piece) for piece in pieces)


def sample_segment(
    sizes: Sequence[int] | None,
    seed: int,
    update: int,
    micro_batch: int,
    longest_frames: int,
    warmup_updates: int = 0,
) -> int:
    """Draw the segment size of one batch.

    During the warm-up only the smaller sizes are drawn, at first the smallest one: where a CTC head emits a symbol
    is settled early in training, and what it can do with little look-ahead it can do with more, while a head that
    has learned with the whole utterance emits symbols before they were heard.

    Args:
        sizes: sizes to choose from with equal probability, or None for uniform over 1..``longest_frames``.
        seed: seed of the run.
        update: number of updates done before this one.
        micro_batch: position of the batch among those that make up the update (``--update-freq``).
        longest_frames: length of the longest utterance in the batch over all ranks, 25 Hz frames.
        warmup_updates: updates after which all sizes are drawn; their number grows in equal steps till then.

    Returns:
        Segment size in 25 Hz frames, 0 for the whole utterance.
    """
    digest = hashlib.blake2b(f"{seed}/{update}/{micro_batch}".encode(), digest_size=8).digest()
    draw = int.from_bytes(digest, "big") / 2**64
    share = min(1.0, update / warmup_updates) if warmup_updates else 1.0
    if sizes is None:
        return 1 + int(draw * max(1, int(share * longest_frames)))
    allowed = sorted(sizes, key=lambda size: size or float("inf"))[: max(1, int(share * len(sizes)))]
    return allowed[int(draw * len(allowed))]


def segment_name(size: int) -> str:
    """Label of a segment size in the logs: ``"320ms"``, or ``"full"`` for the whole utterance."""
    return "full" if size == WHOLE_UTTERANCE else f"{size * FRAME_MS}ms"
