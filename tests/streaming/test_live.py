"""The live display: only complete words, and one line per sentence."""

import pytest

from echostream.cli.console import faint
from echostream.decoding.word_boundary import WordBoundaryDetector
from echostream.streaming import EchoStreamState, OutputWord, SentenceRecomposer, StepOutput, StreamingTranslator
from echostream.streaming.live import LiveView, PlainText

SYMBOLS = ["<s>", "<pad>", "</s>", "<unk>", "▁une", "▁cham", "bre", "▁pour", "▁fin."]
UNE, CHAM, BRE, POUR, END = range(4, 9)


@pytest.fixture(scope="module")
def translator() -> StreamingTranslator:
    return StreamingTranslator.random(arch="echostream_tiny", seed=0, task="asr")


@pytest.fixture
def detector() -> WordBoundaryDetector:
    return WordBoundaryDetector(SYMBOLS)


@pytest.fixture
def recomposer() -> SentenceRecomposer:
    return SentenceRecomposer(16_000, 320)


def recognise(detector, state: EchoStreamState, classes: list[int], is_last: bool = False) -> StepOutput:
    """The words that are complete after more frames of the ASR CTC."""
    words, _, state.recogniser.boundaries = detector.process_segment(classes, state.recogniser.boundaries, is_last)
    return StepOutput(source_words=words)


def hear(view, detector, state: EchoStreamState, classes: list[int], is_last: bool = False) -> str:
    """Text displayed after more frames of the ASR CTC."""
    output = recognise(detector, state, classes, is_last)
    state.finished = is_last
    return view.add(output, state, 1.0).replace("    1.00 s  heard  ", "").strip()


def test_word_split_by_a_pause_is_shown_complete(translator, detector, recomposer):
    view, state = LiveView(recomposer), translator.init_state()
    assert hear(view, detector, state, [UNE, 0, CHAM]) == "une"
    assert hear(view, detector, state, [0] * 12) == ""  # "cham" is finished, but a continuation may follow
    assert hear(view, detector, state, [BRE]) == ""
    assert hear(view, detector, state, [POUR]) == "chambre"
    assert hear(view, detector, state, [], is_last=True) == "pour"


def test_word_before_a_pause_is_shown_when_the_next_starts_or_the_sentence_ends(translator, detector, recomposer):
    view, state = LiveView(recomposer), translator.init_state()
    assert hear(view, detector, state, [UNE] + [0] * 12) == ""
    assert hear(view, detector, state, [POUR]) == "une"
    assert hear(view, detector, state, [0] * 12) == ""
    assert hear(view, detector, state, [0] * 20) == "pour"
    assert hear(view, detector, state, [CHAM] + [0] * 12) == ""
    assert hear(view, detector, state, [], is_last=True) == "cham"


def test_doubtful_words_are_marked_and_no_word_can_be_a_mark(translator, recomposer):
    words = [
        OutputWord("I", 1.0, confidence=0.5),
        OutputWord("have", 1.0, confidence=0.49),
        OutputWord("n't", 1.0, joined=True, confidence=0.9),
        OutputWord("\x1b[2mseen\x1b[22m", 1.0, confidence=0.9),
    ]
    state = translator.init_state()
    said = LiveView(recomposer, faint).add(StepOutput(words=words), state, 1.0)
    assert said == "    1.00 s  said   I \x1b[2mhave\x1b[22mn't \\x1b[2mseen\\x1b[22m\n"
    assert "I haven't" in LiveView(recomposer).add(StepOutput(words=words), state, 1.0)


def test_plain_text_has_one_line_per_sentence(translator, detector, recomposer):
    view, state = PlainText(recomposer, of_source=True), translator.init_state()
    text = ""
    for classes in ([UNE, 0, CHAM], [0] * 12, [BRE, POUR], [0] * 12, [0] * 20, [END], [UNE] + [0] * 12, [0] * 30):
        text += view.add(recognise(detector, state, classes), state, 1.0)
    assert text == "une chambre pour\nfin.\nune\n"
    view.add(recognise(detector, state, [POUR, UNE]), state, 1.0)
    assert view.end() == "\n" and view.end() == ""


def said(text: str, *ends: int) -> StepOutput:
    return StepOutput(words=[OutputWord(word, 1.0) for word in text.split()], sentence_ends=list(ends))


def test_sentences_of_the_translation_are_told_apart_where_they_end(translator, recomposer):
    live, plain, state = LiveView(recomposer), PlainText(recomposer, of_source=False), translator.init_state()
    outputs = [said("We met at 3. Good", 4), said("bye", 1), said("see you"), said("", 0), said("so", 0)]
    seen = "".join(live.add(output, state, 1.0) for output in outputs)
    lines = [line.removeprefix("    1.00 s  ") for line in seen.splitlines()]
    assert lines == [
        "said   We met at 3.", "end", "said   Good", "said   bye", "end", "said   see you", "end", "end", "said   so"
    ]  # fmt: skip
    assert "".join(plain.add(output, state, 1.0) for output in outputs) == "We met at 3.\nGood bye\nsee you\nso"
    assert plain.end() == "\n"
