"""Sentence breaks from the language model and pauses, on French sentences and independent of chunks."""

import itertools
import math
import sys

import pytest

from echostream.checkpoints.arpa_files import load_arpa
from echostream.constants import FRAME_MS, FRAME_S
from echostream.decoding.ngram import NGramModel
from echostream.decoding.sentence_breaks import LEAST_NATS, NATS_PER_S, SentenceBreakDetector
from echostream.decoding.word_boundary import SourceWord
from scripts.training import train_source_lm

THINGS = ("le dîner", "le train", "la gare", "la clé", "mon frère", "ma voisine", "le facteur", "une amie")
STATES = ("est prêt", "est ici", "est en retard", "est parti")
WISHES = ("je cherche", "nous attendons", "je vois", "elle connaît")
SENTENCES = [" ".join(pair) for pair in [*itertools.product(THINGS, STATES), *itertools.product(WISHES, THINGS)]]
ONE = "le dîner est prêt"
OTHER = "je cherche la gare"
WORD_FRAMES, GAP_FRAMES = 6, 2


def pieces_of(word: str) -> list[str]:
    """Subwords of up to three letters."""
    return [f"▁{word[:3]}", *(word[at : at + 3] for at in range(3, len(word), 3))]


@pytest.fixture(scope="module")
def symbols() -> list[str]:
    known = {piece for text in SENTENCES for word in text.split() for piece in pieces_of(word)}
    return ["<s>", "<pad>", "</s>", "<unk>", *sorted(known)]


@pytest.fixture(scope="module")
def language_model(symbols, tmp_path_factory) -> NGramModel:
    folder = tmp_path_factory.mktemp("lm")
    lines = [" ".join(piece for word in text.split() for piece in pieces_of(word)) for text in SENTENCES]
    rows = ["id\ttgt_text", *(f"{number}\t{line}" for number, line in enumerate(lines))]
    (folder / "train.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "dict.txt").write_text("".join(f"{symbol} 1\n" for symbol in symbols[4:]), encoding="utf-8")
    options = {"--texts": "train.tsv", "--dictionary": "dict.txt", "--output": "lm.arpa.gz"}
    with pytest.MonkeyPatch.context() as patch:
        arguments = [text for option, name in options.items() for text in (option, str(folder / name))]
        patch.setattr(sys, "argv", ["train_source_lm.py", *arguments])
        train_source_lm.main()
    return load_arpa(folder / "lm.arpa.gz", symbols)


@pytest.fixture
def detector(language_model) -> SentenceBreakDetector:
    return SentenceBreakDetector(language_model)


@pytest.fixture(scope="module")
def speak(symbols):
    """Words with their frames; ``|`` adds a pause of the given number of frames."""
    numbers = {symbol: number for number, symbol in enumerate(symbols)}

    def say(text: str, pause_frames: int = 0, start: int = 3) -> list[SourceWord]:
        words, frame = [], start
        for token in text.split():
            if token == "|":
                frame += pause_frames
                continue
            end = frame + WORD_FRAMES
            read = tuple(numbers[piece] for piece in pieces_of(token))
            words.append(SourceWord(token, frame * FRAME_S, end * FRAME_S, symbols=read))
            frame = end + GAP_FRAMES
        return words

    return say


def test_break_is_found_at_a_pause_between_sentences(detector, speak):
    words = speak(f"{ONE} | {OTHER}", pause_frames=10)
    last, first = words[3].frames(FRAME_MS)[1], words[4].frames(FRAME_MS)[0]
    assert first - last - 1 == 12
    assert detector.find(words, detector.init_state())[0] == [(last + first + 1) // 2]


@pytest.mark.parametrize("text", [ONE, OTHER, f"le | dîner est prêt {OTHER}", "le dîner | est prêt"])
def test_no_break_inside_a_sentence_or_without_a_pause(detector, speak, text):
    assert detector.find(speak(text, pause_frames=10), detector.init_state())[0] == []


def test_breaks_do_not_depend_on_chunk_boundaries(detector, speak):
    words = speak(f"{ONE} | {OTHER} | {ONE} | {OTHER}", pause_frames=15)
    whole, _ = detector.find(words, detector.init_state())
    assert len(whole) == 3
    state, found = detector.init_state(), []
    for word in words:
        for piece in ([word], []):
            breaks, state = detector.find(piece, state)
            found += breaks
    assert found == whole
    _, alone = detector.find(words[:4], detector.init_state())
    assert state.context != alone.context
    _, again = detector.find(speak(OTHER), detector.init_state())
    assert state.context == again.context, "what came before the break isn't forgotten"


def test_break_needs_enough_evidence_of_pause_and_text(detector, speak):
    """A break is found exactly at the frame where the sum of both kinds reaches the threshold."""
    words = speak(f"{ONE} | {OTHER}", pause_frames=20)
    lm, context, nats = detector.language_model, detector.language_model.start, 0.0
    for symbol in [symbol for word in words[:4] for symbol in word.symbols]:
        context = lm.after(context, symbol)
    nats = lm.score(context, lm.end)
    fresh = lm.start
    for symbol in words[4].symbols:
        nats += lm.score(fresh, symbol) - lm.score(context, symbol)
        fresh, context = lm.after(fresh, symbol), lm.after(context, symbol)
    needed = math.ceil((LEAST_NATS - nats) / NATS_PER_S / FRAME_S) - GAP_FRAMES
    assert 0 < needed < 20, "the example shows nothing"
    assert detector.find(speak(f"{ONE} | {OTHER}", pause_frames=needed), detector.init_state())[0]
    assert not detector.find(speak(f"{ONE} | {OTHER}", pause_frames=needed - 1), detector.init_state())[0]
    detector.least_nats = math.inf
    assert not detector.find(speak(f"{ONE} | {OTHER}", pause_frames=1000), detector.init_state())[0]


def test_continuation_of_a_word_starts_no_sentence(detector, speak):
    words = speak(f"{ONE} | {OTHER}", pause_frames=10)
    rest = SourceWord(words[4].text, words[4].start_s, words[4].end_s, joined=True, symbols=words[4].symbols)
    assert detector.find([*words[:4], rest, *words[5:]], detector.init_state())[0] == []
