"""Prefix beam search with an n-gram model: exact in small cases, independent of chunks, bounded in long streams."""

import copy
import gzip
import itertools
import math
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from model_files import save_model

from echostream.checkpoints.arpa_files import NGramError, load_arpa
from echostream.checkpoints.errors import CheckpointError
from echostream.decoding.prefix_beam_search import OPEN_MS, SourceTranscriber
from echostream.modules.ctc import greedy_collapse
from echostream.streaming import StreamingTranslator

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "training/train_source_lm.py"
SPECIALS = ["<s>", "<pad>", "</s>", "<unk>"]
SYMBOLS = [*SPECIALS, "▁a", "b", "▁c", "d"]
SENTENCES = ["▁a b ▁c", "▁a b ▁c d", "▁c d ▁a", "▁a", "▁c d d ▁a b"]


def train(
    folder: Path, sentences: list[str], vocabulary: list[str], order: int = 3, name: str = "lm.arpa", min_count: int = 1
) -> Path:
    """An ARPA file written by the training script."""
    rows = [f"{number}\t{sentence}\n" for number, sentence in enumerate(sentences)]
    (folder / "train.tsv").write_text("id\ttgt_text\n" + "".join(rows), encoding="utf-8")
    (folder / "dict.txt").write_text("".join(f"{symbol} 1\n" for symbol in vocabulary), encoding="utf-8")
    files = {"--texts": "train.tsv", "--dictionary": "dict.txt", "--output": name}
    command = [sys.executable, str(SCRIPT), "--order", str(order), "--min-count", str(min_count)]
    for option, file in files.items():
        command += [option, str(folder / file)]
    subprocess.run(command, check=True, capture_output=True)
    return folder / name


@pytest.fixture(scope="module")
def arpa(tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("lm"), SENTENCES, SYMBOLS[4:])


@pytest.fixture(scope="module")
def lm(arpa):
    return load_arpa(arpa, SYMBOLS)


def after(lm, *symbols):
    """Context after the first symbols of a sentence."""
    context = lm.start
    for symbol in symbols:
        context = lm.after(context, symbol)
    return context


def test_probabilities_after_any_context_sum_to_one(lm):
    for length in range(4):
        for symbols in itertools.product(range(4, 8), repeat=length):
            context = after(lm, *symbols)
            total = sum(math.exp(lm.score(context, symbol)) for symbol in (2, 3, *range(4, 8)))
            assert total == pytest.approx(1, abs=2e-3)  # four digits of log10


def test_what_is_left_out_goes_to_shorter_ngrams(tmp_path, lm):
    text = train(tmp_path, SENTENCES, SYMBOLS[4:], min_count=2).read_text(encoding="utf-8")
    assert "ngram 3=3\n" in text  # <s> ▁a b, ▁a b ▁c and <s> ▁c d come twice, ten others once
    cut = load_arpa(tmp_path / "lm.arpa", SYMBOLS)
    test_probabilities_after_any_context_sum_to_one(cut)
    often, rare = (4, 5), (6, 7)
    context = after(cut, *often)
    assert cut.score(context, 6) == pytest.approx(lm.score(after(lm, *often), 6), abs=1e-3)
    assert cut.score(after(cut, *rare), 4) != pytest.approx(lm.score(after(lm, *rare), 4), abs=1e-2)


def test_probabilities_follow_witten_bell_smoothing(lm):
    # Three of five sentences start with ▁a and two with ▁c; the vocabulary has 6 words.
    first = {4: 3, 6: 2}
    unigrams = {4: 5, 5: 3, 6: 4, 7: 4, 2: 5}
    total = sum(unigrams.values())

    def unigram(symbol):
        return (unigrams.get(symbol, 0) + 5 / 6) / (total + 5)

    for symbol in (2, 4, 5, 6, 7):
        expected = (first.get(symbol, 0) + 2 * unigram(symbol)) / (5 + 2)
        assert lm.score(lm.start, symbol) == pytest.approx(math.log(expected), abs=1e-3)
    assert lm.score((), 3) == pytest.approx(math.log(5 / 6 / (total + 5)), abs=1e-3)


def best_by_enumeration(log_probs, lm, weight, bonus):
    """Probability of every hypothesis, summed over all its paths."""
    sums: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(log_probs.size(1)), repeat=log_probs.size(0)):
        text = tuple(greedy_collapse(torch.tensor([path]), torch.tensor([len(path)]))[0])
        probability = math.exp(sum(log_probs[frame, label].item() for frame, label in enumerate(path)))
        sums[text] = sums.get(text, 0.0) + probability

    def score(text):
        prior, context = 0.0, lm.start
        for symbol in text:
            prior += weight * lm.score(context, symbol) + bonus
            context = lm.after(context, symbol)
        return math.log(sums[text]) + prior + weight * lm.score(context, lm.end)

    return max(sums, key=score)


@pytest.mark.parametrize(("weight", "bonus"), [(0.0, 0.0), (0.8, 2.0), (1.5, 0.5)])
def test_wide_beam_finds_the_best_hypothesis(lm, weight, bonus):
    reader = SourceTranscriber(SYMBOLS, lm, weight, bonus, beam=10_000)
    readings = set()
    for seed in range(12):
        logits = 2 * torch.randn(5, 8, generator=torch.Generator().manual_seed(seed))
        logits[:, 1:4] = -math.inf  # special symbols, which a CTC is never trained to emit
        log_probs = logits.log_softmax(-1)
        words, _ = reader.step(log_probs, reader.init_state(), is_last=True)
        text = "".join(word.text if word.joined else f" {word.text}" for word in words)
        best = best_by_enumeration(log_probs[:, [0, 4, 5, 6, 7]], Shifted(lm), weight, bonus)
        expected = "".join(SYMBOLS[symbol + 3] for symbol in best).replace("▁", " ")
        assert text.strip() == expected.strip()
        readings.add(text)
    assert len(readings) > 3


class Shifted:
    """The language model for classes without the special symbols."""

    def __init__(self, lm):
        self.lm, self.start, self.end = lm, lm.start, -1

    def score(self, context, symbol):
        return self.lm.score(context, self.lm.end if symbol == self.end else symbol + 3)

    def after(self, context, symbol):
        return self.lm.after(context, symbol + 3)


def speech(seed: int, frames: int) -> torch.Tensor:
    """Log-probabilities like those of a CTC head: peaks between blanks, some of them ambiguous, and pauses."""
    draw = random.Random(seed)
    logits = torch.full((frames, len(SYMBOLS)), -4.0)
    logits[:, 0] = 3
    place = 0
    while place < frames:
        logits[place, 0] = draw.uniform(-3, 2)
        for symbol in draw.sample(range(4, 8), 2):
            logits[place, symbol] = draw.uniform(0, 4)
        place += draw.choice([2, 3, 3, 4, 5, 15, 40])
    return logits.log_softmax(-1)


def test_hypothesis_does_not_depend_on_chunk_boundaries(lm):
    for seed in range(10):
        reader, log_probs = SourceTranscriber(SYMBOLS, lm), speech(seed, 300)
        whole, _ = reader.step(log_probs, reader.init_state(), is_last=True)
        assert len(whole) > 12 and any(word.joined for word in whole)
        draw, state, words, place = random.Random(seed), reader.init_state(), [], 0
        while place < 300:
            size = draw.randint(0, 20)
            before = copy.deepcopy(state)
            found, following = reader.step(log_probs[place : place + size], state, is_last=place + size >= 300)
            assert state == before, "the caller's state has changed"
            words, state = words + found, following
            place += size
            if draw.random() < 0.2:
                state = copy.deepcopy(state)
        assert words == whole
        times = [time for word in whole for time in (word.start_s, word.end_s)]
        assert times == sorted(times) and times[-1] <= 12


def test_language_model_resolves_acoustic_ambiguity(lm):
    # After "▁a" the acoustic scores slightly prefer the wrong one of "d" and "b".
    log_probs = torch.full((6, 8), -20.0)
    log_probs[:, 0] = -0.01
    log_probs[1, :] = -20.0
    log_probs[1, 4] = 0.0
    log_probs[3, [0, 5, 7]] = torch.tensor([-20.0, math.log(0.45), math.log(0.55)])
    for weight, expected in ((0.0, "ad"), (0.8, "ab")):
        reader = SourceTranscriber(SYMBOLS, lm, weight)
        assert [word.text for word in reader.step(log_probs, reader.init_state(), is_last=True)[0]] == [expected]


def test_words_are_final_soon_and_the_state_stays_small(lm):
    reader, log_probs = SourceTranscriber(SYMBOLS, lm), speech(3, 500)
    state, late_s = reader.init_state(), []
    for start in range(0, 4000, 500):
        for frame in range(500):
            words, state = reader.step(log_probs[frame : frame + 1], state)
            for word in words:
                late_s.append((start + frame + 1) * 0.04 - word.end_s)
        assert len(state.hypotheses) <= 16
        assert max(len(hypothesis.symbols) for hypothesis in state.hypotheses) < 65
        assert abs(state.hypotheses[0].score) < 100
    assert min(late_s) >= 0 and max(late_s) <= 1.5 * OPEN_MS / 1000 and np.median(late_s) < 1


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda text: "", "no ARPA language model, or cut short"),
        (lambda text: text[: len(text) // 2].rsplit("\n", 1)[0], "cut short"),
        (lambda text: text.replace("▁a", "▁e"), "has the word '▁e', which the source dictionary lacks"),
        (lambda text: text.replace("\n-0", "\nzero", 1), "no ARPA language model, or damaged, at 'zero"),
    ],
)
def test_errors_name_files_that_do_not_fit(arpa, tmp_path, spoil, message):
    text = arpa.read_text(encoding="utf-8")
    assert spoil(text) != text
    (tmp_path / "lm.arpa").write_text(spoil(text), encoding="utf-8")
    with pytest.raises(NGramError, match=message):
        load_arpa(tmp_path / "lm.arpa", SYMBOLS)
    with pytest.raises(NGramError, match=r"no language model at .*nowhere: scripts/training/train_source_lm.py"):
        load_arpa(tmp_path / "nowhere", SYMBOLS)


def test_gzipped_files_are_read_and_damaged_ones_named(arpa, tmp_path):
    packed = train(tmp_path, SENTENCES, SYMBOLS[4:], name="lm.arpa.gz")
    assert gzip.decompress(packed.read_bytes()) == arpa.read_bytes()
    first = packed.read_bytes()
    assert train(tmp_path, SENTENCES, SYMBOLS[4:], name="lm.arpa.gz").read_bytes() == first
    packed.write_bytes(first[:-20])
    with pytest.raises(NGramError, match="damaged"):
        load_arpa(packed, SYMBOLS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model folder with a language model of the source subwords."""
    path = tmp_path_factory.mktemp("model")
    translator = StreamingTranslator.random("echostream_tiny")
    symbols, draw = translator.detector.symbols[4:], random.Random(0)
    train(path, [" ".join(draw.choices(symbols, k=8)) for _ in range(200)], symbols)
    return save_model(translator, path, "source_lm: lm.arpa\nlm_weight: 0.5\nsegment_ms: 160\n")


def test_language_model_changes_recognition_but_not_translation(folder, tmp_path):
    translator = StreamingTranslator.from_checkpoint(folder)
    assert translator.transcriber is not None and translator.transcriber.weight == 0.5
    alone = tmp_path / "checkpoint.pt"  # beside the model.yaml that names it, it would have its language model
    alone.write_bytes((folder / "checkpoint.pt").read_bytes())
    plain = StreamingTranslator.from_checkpoint(alone, folder / "voice", segment_ms=160)
    sound = np.random.default_rng(0).normal(0, 0.1, 48_000).astype(np.float32)
    outputs = []
    for each in (translator, plain):
        outputs.append(each.step(sound, each.init_state(), is_last=True))
    assert outputs[0].source_text != outputs[1].source_text and outputs[0].source_words
    np.testing.assert_array_equal(outputs[0].samples, outputs[1].samples)
    assert outputs[0].words == outputs[1].words
    # The result depends neither on pushes nor on batching, and the ASR task recognises the same words.
    state, words = translator.init_state(), []
    for start in range(0, 48_000, 700):
        words += translator.step(sound[start : start + 700], state, start + 700 >= 48_000).source_words
    assert words == outputs[0].source_words
    batch = [sound, sound[:30_000], sound[:100]]
    together = translator.step_batch(batch, [translator.init_state() for _ in batch], [True] * 3)
    for alone, output in zip(batch, together, strict=True):
        assert output.source_words == translator.step(alone, translator.init_state(), is_last=True).source_words
    heard = translator.view(task="asr")
    assert heard.step(sound, heard.init_state(), is_last=True).source_words == outputs[0].source_words


def test_language_model_of_another_model_is_rejected_in_one_line(folder, arpa, tmp_path):
    with pytest.raises(NGramError, match="which the source dictionary lacks"):
        StreamingTranslator.from_checkpoint(folder, source_lm=arpa)
    settings = (folder / "model.yaml").read_text(encoding="utf-8")
    for name in ("checkpoint.pt", "lm.arpa"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "model.yaml").write_text(settings.replace("0.5", "much"), encoding="utf-8")
    with pytest.raises(CheckpointError, match="lm_weight must be a number, not 'much'"):
        StreamingTranslator.from_checkpoint(tmp_path)


def test_word_that_was_less_likely_than_silence_does_not_wait_for_minutes(lm):
    """After a minute of blanks, a word that goes well with an unlikely one from before must not bring it back."""
    reader = SourceTranscriber(SYMBOLS, lm)
    frames = torch.full((1_500, len(SYMBOLS)), -12.0)
    frames[:, 0] = 0.0  # blank
    after = SYMBOLS.index("▁a")
    frames[11, after] = -3.0  # heard, but not likely
    state, words = reader.init_state(), []
    for piece in frames.log_softmax(dim=-1).split(40):
        found, state = reader.step(piece, state)
        words += found
        assert len(state.hypotheses) >= 1
    assert not words and all(not one.symbols for one in state.hypotheses)
    loud = torch.full((30, len(SYMBOLS)), -12.0)
    loud[:, 0], loud[5, 0], loud[5, after] = 0.0, -12.0, 0.0
    found, _ = reader.step(loud.log_softmax(dim=-1), state, is_last=True)
    assert [word.text for word in found] == ["a"] and found[0].start_s > 60
