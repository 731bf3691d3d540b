"""Phrases are not repeated beyond their limit, even if the decoder prefers it; nothing else is restricted."""

import numpy as np
import pytest
import torch

from echostream.decoding.repetition import (
    HEARD_MEMORY,
    LONGEST_PHRASE,
    MEMORY,
    MOST_REPEATS,
    MOST_UNHEARD_REPEATS,
    heard_repetition,
    repeating,
)
from echostream.decoding.target_tokens import END
from echostream.streaming import StreamingTranslator

FIRST = 10  # symbols below it are special
STARTS = [index == FIRST for index in range(100)]  # a phrase that has the first word's start in it is one word
WORDS = [True] * 100


def phrase(length: int) -> tuple[int, ...]:
    return tuple(range(FIRST, FIRST + length))


@pytest.mark.parametrize("length", [1, 2, 5, LONGEST_PHRASE])
def test_token_that_completes_a_fourth_repetition_of_a_word_is_found(length):
    word = phrase(length)
    three = (7, *word * MOST_REPEATS, *word[:-1])
    assert repeating(three, STARTS) == {word[-1]}
    assert repeating((*three[-MEMORY + 1 :], END)[-MEMORY:], STARTS) == {word[-1]}, "more need not be remembered"
    assert repeating(three[:-length], STARTS) == set(), "three times may be"
    assert repeating((7, 8, *three[2:]), STARTS) == set(), "the first time was another word"


@pytest.mark.parametrize("length", [2, 5, LONGEST_PHRASE])
def test_several_words_are_said_a_third_time_only_if_heard_so(length):
    words = phrase(length)
    two = (7, *words * MOST_UNHEARD_REPEATS, *words[:-1])
    three = (7, *words * MOST_REPEATS, *words[:-1])
    assert repeating(two, WORDS) == repeating(three, WORDS) == {words[-1]}
    assert repeating(two[:-length], WORDS) == set(), "twice may be"
    assert repeating(two, WORDS, heard=length) == set()
    assert repeating(three, WORDS, heard=length) == {words[-1]}, "a fourth time may never be"
    assert repeating(two, WORDS, heard=1) == (set() if length <= 3 else {words[-1]}), "one word can't have become five"


def test_repetition_goes_on_over_the_end_of_a_sentence():
    words = phrase(4)
    assert repeating((*words, END, *words, END, *words[:-1]), WORDS) == {words[-1]}


def test_longer_and_new_phrases_are_allowed():
    assert repeating((), WORDS) == set()
    assert repeating(tuple(range(MEMORY)), WORDS) == set()
    assert repeating(phrase(LONGEST_PHRASE + 1) * 4, WORDS) == set()


def test_repetitions_match_their_definition():
    random = np.random.default_rng(0)
    found = 0
    starts = [True] * FIRST + [True, False]
    for _ in range(2000):
        tokens = tuple((FIRST + random.integers(0, 2, size=random.integers(0, 20))).tolist())
        heard = int(random.integers(0, 3))
        expected = set()
        for token in (FIRST, FIRST + 1):
            extended = (*tokens, token)
            for length in range(1, min(LONGEST_PHRASE, len(extended)) + 1):
                words = sum(starts[symbol] for symbol in extended[-length:])
                times = 3 if words > 1 and words > 3 * heard else 4
                if len(extended) >= times * length and extended[-length:] * times == extended[-times * length :]:
                    expected.add(token)
        assert repeating(tokens, starts, heard) == expected
        found += len(expected)
    assert found > 100


@pytest.mark.parametrize(
    ("text", "longest"),
    [
        ("", 0),
        ("non non", 0),
        ("Non, non, non !", 1),
        ("il pleut il pleut", 0),
        ("il pleut, il pleut, il", 2),  # the third time has begun
        ("il pleut il pleut il neige il pleut", 2),
        ("il pleut . il neige . il vente", 0),
        ("c'est-à-dire C’EST À DIRE", 0),
        ("ah merci bien merci bien merci bien madame", 2),
    ],
)
def test_longest_phrase_that_was_heard_three_times_is_found(text, longest):
    assert heard_repetition(text.split()) == longest


def test_what_is_remembered_of_the_source_is_enough():
    sentence = [f"mot{index}" for index in range(LONGEST_PHRASE)]
    assert heard_repetition((["avant"] * 2 + sentence * MOST_REPEATS)[-HEARD_MEMORY:]) == LONGEST_PHRASE
    assert heard_repetition([f"mot{index}" for index in range(LONGEST_PHRASE + 1)] * MOST_REPEATS) == 0


def longest_run(words: list[str], length: int) -> int:
    """How often a phrase of ``length`` words is said running, at most."""
    longest = run = 0
    for word, again in zip(words, words[length:], strict=False):
        run = run + 1 if word == again else 0
        longest = max(longest, run)
    return 1 + longest // length if words else 0


@pytest.mark.parametrize("beam", [1, 3])
def test_repeating_decoder_leaves_its_loop(beam, monkeypatch):
    """A decoder with random weights repeats its tokens from the start."""
    speech = (0.1 * np.random.default_rng(1).standard_normal(96_000)).astype(np.float32)

    def say(guarded: bool) -> list[str]:
        translator = StreamingTranslator.random("echostream_tiny", seed=3, beam=beam, task="s2tt", policy="fixed-rate")
        if not guarded:
            monkeypatch.setattr("echostream.streaming.word_level_translator.repeating", lambda *_: set())
        words = translator.step(speech, translator.init_state(), is_last=True).words
        return [f"w{subword}" for word in words for subword in word.text.split("w")[1:]]

    guarded, free = say(guarded=True), say(guarded=False)
    assert longest_run(free, 1) > MOST_REPEATS, "the example shows nothing"
    assert len(guarded) > 10
    assert longest_run(guarded, 1) <= MOST_REPEATS


@pytest.fixture
def by_turns() -> StreamingTranslator:
    """A translator whose decoder wants nothing but to write two words by turns, over ends of sentences, too."""
    translator = StreamingTranslator.random("echostream_tiny", seed=3, task="s2tt", policy="fixed-rate")
    vocabulary = len(translator.writer.symbols)
    wish = torch.zeros(vocabulary, vocabulary)
    wish[:, 5], wish[5, 5], wish[5, 7] = 1000.0, 0.0, 1000.0  # symbols of odd numbers begin words
    translator.model.mt_decoder.register_forward_hook(lambda _, given, out: (out[0], out[1] + wish[given[0]], out[2]))
    return translator


def say_again(translator: StreamingTranslator) -> None:
    """From now on it hears two words by turns, whatever is said: 9 and 11 in every 320 ms."""

    def two_words(head: torch.nn.Module, given: tuple, out: tuple) -> tuple:
        logits = torch.zeros_like(out[0])
        logits[..., 0] = 1.0
        logits[:, ::8, 9], logits[:, 4::8, 11] = 2.0, 2.0
        return logits, out[1]

    translator.model.asr_head.register_forward_hook(two_words)


@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("is_heard", [False, True])
def test_two_words_by_turns_are_said_twice_unless_heard_three_times(by_turns, beam, is_heard):
    by_turns.writer.beam = beam
    if is_heard:
        say_again(by_turns)
    speech = (0.1 * np.random.default_rng(1).standard_normal(96_000)).astype(np.float32)
    whole = by_turns.step(speech, by_turns.init_state(), is_last=True)
    said = [word.text for word in whole.words]
    times = longest_run(said, 2)
    assert times == (MOST_REPEATS if is_heard else MOST_UNHEARD_REPEATS), said
    assert len(said) > 20
    state, words = by_turns.init_state(), []
    for start in range(0, speech.size, 4_321):
        words += by_turns.step(speech[start : start + 4_321], state, start + 4_321 >= speech.size).words
        assert len(state.translation.sentence.written) <= MEMORY
        assert len(state.translation.sentence.heard_words) < 200
    assert words == whole.words


def test_what_was_said_and_heard_goes_on_with_the_next_sentence(by_turns):
    """Each of many sentences is short, so that only what came before it shows that it repeats."""
    by_turns.recomposer.ends_sentence = lambda silence_ms, word: word == "w7"
    speech = (0.1 * np.random.default_rng(1).standard_normal(160_000)).astype(np.float32)
    said = [word.text for word in by_turns.step(speech, by_turns.init_state(), is_last=True).words]
    assert longest_run(said, 2) == MOST_UNHEARD_REPEATS, said
    say_again(by_turns)
    state = by_turns.init_state()
    said = [word.text for word in by_turns.step(speech, state, is_last=True).words]
    assert longest_run(said, 2) == MOST_REPEATS, said
    assert len(state.translation.sentence.heard.split()) <= HEARD_MEMORY
