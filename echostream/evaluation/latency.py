"""Latency metrics on plain lists of times, free of SimulEval's classes; all in milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

from echostream.evaluation.timeline import HALF_SAMPLE_MS, Chunk

SPEECH_TOKEN_MS = 300.0  # Kano et al. 2023: speech counts in pieces of 300 ms, about a word each


def average_lagging(word_ms: Sequence[float], source_ms: float, target_length: int) -> float:
    """Average Lagging (Ma et al. 2019, arXiv:1810.08398, eq. 8) of words behind an ideal even translator.

    ``target_length``: words that the ideal translator has to say: those of the reference for AL, the larger
    of reference and hypothesis for LAAL (Papi et al. 2022, arXiv:2206.05807). The mean runs up to and
    including the first word at or after the source's end.

    Raises:
        ValueError: no words, or nothing to divide by.
    """
    if not word_ms or source_ms <= 0 or target_length <= 0:
        raise ValueError(f"no lagging of {len(word_ms)} words, source {source_ms} ms, target length {target_length}")
    total = 0.0
    for i, time in enumerate(word_ms):
        total += time - i * source_ms / target_length
        if time >= source_ms:
            return total / (i + 1)
    return total / len(word_ms)


def average_token_delay(writes: Sequence[tuple[float, Sequence[float]]]) -> float:
    """Average Token Delay (Kano et al. 2023, arXiv:2211.13173).

    ``writes``: one entry for each time the translator wrote: how much source it had read, and the end of
    every target token it then wrote. The source read between two writes is cut into tokens of 300 ms, the
    last one shorter. A target token is compared with the source token of the same rank, put back by as many
    tokens as the output was ahead of the input before this write, and never beyond what had been read.

    Raises:
        ValueError: nothing was written.
    """
    source_ends: list[float] = []
    delays: list[float] = []
    read = 0.0
    for arrived, token_ends in writes:
        ahead = max(0, len(delays) - len(source_ends))
        source_ends += cut(read, arrived)
        read = max(read, arrived)
        for end in token_ends:
            match = min(len(delays) + 1 - ahead, len(source_ends))
            delays.append(end - (source_ends[match - 1] if match > 0 else 0.0))
    if not delays:
        raise ValueError("no token delay: nothing was written")
    return sum(delays) / len(delays)


def cut(start: float, end: float) -> list[float]:
    """Ends of the 300 ms tokens that fill the speech from ``start`` to ``end``; the last may be shorter."""
    ends = []
    while start + SPEECH_TOKEN_MS < end - HALF_SAMPLE_MS:
        start += SPEECH_TOKEN_MS
        ends.append(start)
    return [*ends, end] if end - start > HALF_SAMPLE_MS else ends


def text_writes(arrived_ms: Sequence[float], shown_ms: Sequence[float]) -> list[tuple[float, list[float]]]:
    """Words as the writes of :func:`average_token_delay`: those of one step are one write.

    Words on a screen have no length. ``arrived_ms``: source read when each word was written; ``shown_ms``:
    when it was shown.
    """
    pairs = groupby(zip(arrived_ms, shown_ms, strict=True), key=itemgetter(0))
    return [(arrived, [shown for _, shown in group]) for arrived, group in pairs]


def speech_writes(arrived_ms: Sequence[float], chunks: Sequence[Chunk]) -> list[tuple[float, list[float]]]:
    """Output speech, cut into tokens of 300 ms, as the writes of :func:`average_token_delay`.

    ``arrived_ms``: source read when each piece was written.
    """
    pairs = groupby(zip(arrived_ms, chunks, strict=True), key=itemgetter(0))
    return [(arrived, [end for _, chunk in group for end in cut(chunk.start, chunk.end)]) for arrived, group in pairs]


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: the smallest value that ``percent`` of all values don't exceed.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("no percentile of nothing")
    rank = max(1, -int(-percent * len(values) // 100))
    return sorted(values)[rank - 1]
