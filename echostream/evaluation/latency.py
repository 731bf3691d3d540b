"""Latency metrics on lists of times in milliseconds, independent of SimulEval's classes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

from echostream.evaluation.timeline import HALF_SAMPLE_MS, Chunk

SPEECH_TOKEN_MS = 300.0  # Kano et al. 2023: speech is divided into tokens of 300 ms, about the length of a word


def average_lagging(word_ms: Sequence[float], source_ms: float, target_length: int) -> float:
    """Average Lagging (Ma et al. 2019, arXiv:1810.08398, eq. 8) behind an ideal translator with a constant rate.

    The mean includes all words up to the first one at or after the end of the source.

    Args:
        word_ms: time of each output word.
        source_ms: length of the source.
        target_length: number of words of the ideal translator: that of the reference for AL; the larger one of
            reference and hypothesis for LAAL (Papi et al. 2022, arXiv:2206.05807).

    Raises:
        ValueError: there are no words, or a length is not positive.
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

    The source between two writes is divided into tokens of 300 ms; the last one may be shorter. The delay of a target
    token is measured against the source token with the same index, minus the number of tokens by which the output was
    ahead of the input before this write, but never against a source token that had not been read yet.

    Args:
        writes: for each write, the length of the source read before it, and the end of every target token in it.

    Raises:
        ValueError: there are no target tokens.
    """
    source_ends: list[float] = []
    delays: list[float] = []
    read = 0.0
    for arrived, target_ends in writes:
        ahead = max(0, len(delays) - len(source_ends))
        source_ends += token_ends(read, arrived)
        read = max(read, arrived)
        for end in target_ends:
            match = min(len(delays) + 1 - ahead, len(source_ends))
            delays.append(end - (source_ends[match - 1] if match > 0 else 0.0))
    if not delays:
        raise ValueError("no token delay: nothing was written")
    return sum(delays) / len(delays)


def token_ends(start: float, end: float) -> list[float]:
    """Divide the speech from ``start`` to ``end`` into tokens of 300 ms, the last one shorter; returns their ends."""
    ends = []
    while start + SPEECH_TOKEN_MS < end - HALF_SAMPLE_MS:
        start += SPEECH_TOKEN_MS
        ends.append(start)
    return [*ends, end] if end - start > HALF_SAMPLE_MS else ends


def lag_drift(word_ms: Sequence[float], arrived_ms: Sequence[float]) -> float | None:
    """How fast a voice falls behind what it has to say: the slope, by least squares, of the lag of its words.

    Args:
        word_ms: time at which the end of each word was heard.
        arrived_ms: length of the source read when each word was written.

    Returns:
        ms a minute; None if all words were written at one time.
    """
    if not word_ms:
        return None
    mean = sum(arrived_ms) / len(arrived_ms)
    spread = sum((arrived - mean) ** 2 for arrived in arrived_ms)
    if not spread:
        return None
    pairs = zip(word_ms, arrived_ms, strict=True)
    return 60_000 * sum((word - arrived) * (arrived - mean) for word, arrived in pairs) / spread


def text_writes(arrived_ms: Sequence[float], shown_ms: Sequence[float]) -> list[tuple[float, list[float]]]:
    """Words of text output as the writes of :func:`average_token_delay`; the words of one step form one write.

    Args:
        arrived_ms: length of the source read when each word was written.
        shown_ms: time at which each word was shown, which is also its end.
    """
    pairs = groupby(zip(arrived_ms, shown_ms, strict=True), key=itemgetter(0))
    return [(arrived, [shown for _, shown in group]) for arrived, group in pairs]


def speech_writes(arrived_ms: Sequence[float], chunks: Sequence[Chunk]) -> list[tuple[float, list[float]]]:
    """Output speech in tokens of 300 ms as the writes of :func:`average_token_delay`.

    Args:
        arrived_ms: length of the source read when each chunk was written.
        chunks: played pieces of output audio.
    """
    pairs = groupby(zip(arrived_ms, chunks, strict=True), key=itemgetter(0))
    return [
        (arrived, [end for _, chunk in group for end in token_ends(chunk.start, chunk.end)]) for arrived, group in pairs
    ]
