"""No phrase over and over: a decoder that has lost its place repeats what it wrote last, and hears no way out.

The token that would bring a phrase once more than :data:`MOST_REPEATS` times in a row is not written, in the manner of
the n-gram blocking of Paulus et al. (2018, *A deep reinforced model for abstractive summarization*, section 2.5), which
however forbids any second time: speakers do say "no, no, no".
"""

from __future__ import annotations

from collections.abc import Sequence

MOST_REPEATS = 3
LONGEST_PHRASE = 16  # subwords
MEMORY = (MOST_REPEATS + 1) * LONGEST_PHRASE - 1  # tokens to be remembered


def repeating(tokens: Sequence[int]) -> set[int]:
    """Those that would end a phrase said too often in a row, if they came after ``tokens``."""
    found = set()
    for length in range(1, LONGEST_PHRASE + 1):
        span = (MOST_REPEATS + 1) * length - 1
        if span > len(tokens):
            break
        tail = tokens[len(tokens) - span :]
        if tail[length:] == tail[:-length]:
            found.add(tail[-length])
    return found
