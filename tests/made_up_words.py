"""Words that nobody has said, as a stream would give them: in bursts, in parts, too fast and with pauses."""

from __future__ import annotations

import random

from echostream.decoding.word_boundary import SourceWord
from echostream.streaming import OutputWord

LETTERS = "eeeaaiinnorstulàéç'"


def made_up_words(duration_s: float, seed: int = 0) -> tuple[list[SourceWord], list[list[OutputWord]]]:
    """Words of a source, and the sentences of its translation, each word with the time at which it was written."""
    rng, sure = random.Random(seed), random.Random(seed + 1)
    source: list[SourceWord] = []
    sentences: list[list[OutputWord]] = []
    at_s = 0.3
    while at_s < duration_s:
        rate = rng.choice((9.0, 13.0, 15.0, 18.0, 24.0))  # characters a second
        words = [_word(rng) for _ in range(rng.choice((1, 2, 6, 9, 14, 30)))]
        said: list[OutputWord] = []
        for number, word in enumerate(words):
            length_s = (len(word) + 1) / rate
            source.append(
                SourceWord(word, round(at_s, 3), round(at_s + length_s, 3), number > 0 and rng.random() < 0.1)
            )
            at_s += length_s
            # several words at the end of a segment, at one time
            written_s = round(0.32 * (int(at_s / 0.32) + 3), 3)
            mark = "." if number == len(words) - 1 and rng.random() < 0.3 else ""
            text, joined = _word(rng) + mark, number > 0 and rng.random() < 0.1
            said.append(OutputWord(text, written_s, written_s, written_s, joined, confidence=sure.random()))
        sentences.append(said)
        at_s += rng.choice((0.2, 1.1, 1.5, 4.0))
    return source, sentences


def _word(rng: random.Random) -> str:
    length = min(1 + int(rng.expovariate(0.22)), 50)
    return "".join(rng.choice(LETTERS) for _ in range(length))
