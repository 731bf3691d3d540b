"""No phrase over and over: a decoder that has lost its place repeats what it wrote last, and hears no way out.

The token that would bring a phrase once more than allowed in a row is not written, in the manner of the n-gram blocking
of Paulus et al. (2018, *A deep reinforced model for abstractive summarization*, section 2.5), which however forbids any
second time: speakers do say "no, no, no". A word may be said :data:`MOST_REPEATS` times running. A phrase of several
words may be said so often only if the source's words were repeated as often, and else once less.
"""

from __future__ import annotations

from collections.abc import Sequence

from echostream.decoding.target_tokens import END

MOST_REPEATS = 3
MOST_UNHEARD_REPEATS = 2  # of a phrase of several words that was not heard so
LONGEST_PHRASE = 16  # subwords of the target, words of the source
WORDS_PER_SOURCE_WORD = 3  # "bienvenue" is "you are welcome"; seldom does a word become more
MEMORY = (MOST_REPEATS + 1) * LONGEST_PHRASE  # tokens to be remembered, of which one may be the end of a sentence
HEARD_MEMORY = MOST_REPEATS * LONGEST_PHRASE  # source words to be remembered


def repeating(tokens: Sequence[int], starts_word: Sequence[bool], heard: int = 0) -> set[int]:
    """Those that would end a phrase said too often in a row, if they came after ``tokens``.

    Args:
        tokens: written so far, of this sentence and those before; ends of sentences don't count.
        starts_word: for each symbol of the target dictionary, whether it begins a word.
        heard: of :func:`heard_repetition`.
    """
    said = [token for token in tokens if token != END]
    found = set()
    for length in range(1, LONGEST_PHRASE + 1):
        words = sum(starts_word[token] for token in said[-length:])
        is_free = words < 2 or words <= WORDS_PER_SOURCE_WORD * heard
        span = ((MOST_REPEATS if is_free else MOST_UNHEARD_REPEATS) + 1) * length - 1
        if span > len(said):
            continue
        tail = said[len(said) - span :]
        if tail[length:] == tail[:-length]:
            found.add(tail[-length])
    return found


def heard_repetition(words: Sequence[str]) -> int:
    """Words of the longest phrase of the source that was heard :data:`MOST_REPEATS` times running; 0: none was.

    Case and punctuation don't matter. The last time counts as soon as its first word is there: the translation of the
    others may well be written before they are finished.
    """
    spoken = [word for word in map(_letters, words) if word]
    for length in range(min(LONGEST_PHRASE, len(spoken) // (MOST_REPEATS - 1)), 0, -1):
        needed = (MOST_REPEATS - 2) * length + 1  # words in a row that are those of one phrase before
        run = 0
        for word, again in zip(spoken, spoken[length:], strict=False):
            run = run + 1 if word == again else 0
            if run == needed:
                return length
    return 0


def _letters(word: str) -> str:
    return "".join(filter(str.isalnum, word)).casefold()
