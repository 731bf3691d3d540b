"""Positions of words in the output, and ends of sentences."""

import copy

import numpy as np

from echostream.streaming import SentenceRecomposer
from echostream.streaming.word_level_translator import TargetWord


def test_recomposer_places_words_at_their_units():
    recomposer = SentenceRecomposer(16_000, 320, sentence_pause_ms=100)
    state = recomposer.init_state()
    for word in (TargetWord("good", (1, 2)), TargetWord("day", (3,)), TargetWord("", (4,))):
        state = recomposer.add_word(word, 1.2, state)
    before = copy.deepcopy(state)
    words, samples, following = recomposer.place([5], np.zeros(1600, np.float32), state)
    assert state == before, "the caller's state has changed"
    assert words == [] and samples.size == 1600
    words, _, state = recomposer.place([5, 10, 5], np.zeros(6400, np.float32), following)
    assert [(word.text, word.start_s, word.end_s, word.source_time_s) for word in words] == [
        ("good", 0.0, 0.2, 1.2),
        ("day", 0.2, 0.4, 1.2),
    ]
    state = recomposer.add_word(TargetWord("bye", (1,)), 3.0, recomposer.end_sentence(state))
    (word,), samples, _ = recomposer.place([10], np.zeros(3200, np.float32), state)
    assert samples.size == 1600 + 3200  # the pause comes first
    assert (word.start_s, word.end_s) == (0.6, 0.8)


def test_sentences_end_at_pauses_and_at_final_punctuation():
    recomposer = SentenceRecomposer(16_000, 320, end_silence_ms=800)
    assert recomposer.ends_sentence(800, "and") and not recomposer.ends_sentence(760, "and")
    assert recomposer.ends_sentence(0, "done.") and not recomposer.ends_sentence(0, "o'clock")
