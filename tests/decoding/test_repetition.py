"""Phrases are repeated at most three times in a row, even if the decoder prefers more; nothing else is restricted."""

import itertools

import numpy as np
import pytest

from echostream.decoding.repetition import LONGEST_PHRASE, MEMORY, MOST_REPEATS, repeating
from echostream.streaming import StreamingTranslator


@pytest.mark.parametrize("length", [1, 2, 5, LONGEST_PHRASE])
def test_token_that_completes_a_fourth_repetition_is_found(length):
    phrase = tuple(range(10, 10 + length))
    three = (7, *phrase * MOST_REPEATS, *phrase[:-1])
    assert repeating(three) == {phrase[-1]}
    assert repeating(three[-MEMORY:]) == {phrase[-1]}, "more need not be remembered"
    assert repeating(three[:-length]) == set(), "three times may be"
    assert repeating((7, 8, *three[2:])) == set(), "the first time was another phrase"


def test_longer_and_new_phrases_are_allowed():
    assert repeating(()) == set()
    assert repeating(tuple(range(MEMORY))) == set()
    assert repeating(tuple(range(LONGEST_PHRASE + 1)) * 4) == set()


def test_repetitions_match_their_definition():
    random = np.random.default_rng(0)
    found = 0
    for _ in range(2000):
        tokens = tuple(random.integers(0, 2, size=random.integers(0, 20)).tolist())
        expected = set()
        for token in (0, 1):
            extended = (*tokens, token)
            lengths = range(1, len(extended) // 4 + 1)
            if any(extended[-length:] * 4 == extended[-4 * length :] for length in lengths):
                expected.add(token)
        assert repeating(tokens) == expected
        found += len(expected)
    assert found > 100


@pytest.mark.parametrize("beam", [1, 3])
def test_repeating_decoder_leaves_its_loop(beam, monkeypatch):
    """A decoder with random weights repeats its tokens from the start."""
    speech = (0.1 * np.random.default_rng(1).standard_normal(96_000)).astype(np.float32)

    def say(guarded: bool) -> list[str]:
        translator = StreamingTranslator.random("echostream_tiny", seed=3, beam=beam, task="s2tt", policy="fixed-rate")
        if not guarded:
            for module in ("decoding.beam_search", "streaming.word_level_translator"):
                monkeypatch.setattr(f"echostream.{module}.repeating", lambda tokens: set())
        words = translator.step(speech, translator.init_state(), is_last=True).words
        return [f"w{subword}" for word in words for subword in word.text.split("w")[1:]]

    def longest_run(subwords: list[str]) -> int:
        return max(len(list(run)) for _, run in itertools.groupby(subwords))

    guarded, free = say(guarded=True), say(guarded=False)
    assert longest_run(free) > MOST_REPEATS, "the example shows nothing"
    assert len(guarded) > 10
    assert longest_run(guarded) <= MOST_REPEATS
