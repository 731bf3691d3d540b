"""Ends of sentences go out where they are, whatever the pushes, in text and in speech."""

import numpy as np
import pytest
from tiny_translator import make_translator, noise

from echostream.streaming import StreamingTranslator
from echostream.streaming.sentence_stage import Writing
from echostream.streaming.state import by_sentence, join_words
from echostream.streaming.word_level_translator import TargetWord


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    pause = np.zeros(24_000, dtype=np.float32)
    return np.concatenate([noise(2.5, 1), pause, noise(2.0, 2), noise(1.5, 3)])


@pytest.fixture(params=["s2st", "s2tt"])
def translator(request) -> StreamingTranslator:
    made = make_translator(policy="fixed-rate", segment_ms=160, task=request.param)
    # Made-up words have no punctuation; some of them shall end a sentence.
    made.recomposer.ends_sentence = lambda silence_ms, word: silence_ms >= 800 or word.endswith(("1", "5"))
    return made


def written_sentences(translator: StreamingTranslator, speech: np.ndarray, monkeypatch) -> list[str]:
    """Texts of the sentences that the stage before the speech has written."""
    sentences, words = [], []
    speak = translator.sentences.speak

    def remember(writings, *rest):
        for writing in writings[0]:
            words.extend(word for word in writing.words if word.text)
            if writing.ends:
                sentences.append(join_words(words))
                words.clear()
        return speak(writings, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(translator.sentences, "speak", remember)
        translator.translate(speech)
    assert not words, "the end of the source ends the last one"
    return [sentence for sentence in sentences if sentence]


def test_sentences_are_those_that_were_written(translator, speech, monkeypatch):
    expected = written_sentences(translator, speech, monkeypatch)
    whole = translator.translate(speech)
    assert [join_words(sentence) for sentence in whole.sentences] == expected
    assert len(expected) > 4 and len(set(map(len, whole.sentences))) > 1
    assert whole.sentence_ends[-1] == len(whole.words), "a stream ends with the end of a sentence"


def test_ends_do_not_depend_on_pushes(translator, speech):
    whole = translator.translate(speech)
    for push in (1_111, 7_777, 40_000):
        state, words, ends = translator.init_state(), [], []
        for start in range(0, speech.size, push):
            output = translator.step(speech[start : start + push], state, start + push >= speech.size)
            assert all(0 <= end <= len(output.words) for end in output.sentence_ends)
            ends += [len(words) + end for end in output.sentence_ends]
            words += output.words
        assert (words, ends) == (whole.words, whole.sentence_ends)


@pytest.mark.parametrize("with_speech", [True, False])
def test_a_sentence_may_end_after_its_last_word_was_given_out(with_speech):
    stage = make_translator("istft").sentences  # its words have their places at once

    def speak(state, *sentences: tuple[int, bool]) -> tuple[list[int], object]:
        """The ends among the words of one step, each of whose sentences gets so many words and ends or goes on."""
        writings = [Writing([TargetWord("w", (1, 2))] * count, ends) for count, ends in sentences]
        (spoken,) = stage.speak([writings], [state], [1.0])
        assert len(spoken.words) == sum(count for count, _ in sentences)
        return spoken.ends, spoken.state

    ends, state = speak(stage.init_state(with_speech), (2, False))
    assert ends == [] and state.in_sentence
    ends, state = speak(state, (0, True))
    assert ends == [0] and not state.in_sentence
    ends, state = speak(state, (0, True), (1, True), (0, True), (2, False))
    assert ends == [1], "a sentence without words has no end"
    ends, state = speak(state, (1, True), (3, True))
    assert ends == [1, 4]


def test_what_is_left_out_has_no_end(translator, speech):
    nothing = translator.view(least_confidence=0.999999).translate(speech)
    assert not nothing.words and not nothing.sentence_ends
    assert not translator.view(task="asr").translate(speech).sentence_ends


def test_words_are_cut_at_the_ends():
    assert by_sentence("abcd", [1, 3]) == ["a", "bc", "d"]
    assert by_sentence("ab", [0, 2]) == ["", "ab", ""]
    assert by_sentence("", []) == [""]
