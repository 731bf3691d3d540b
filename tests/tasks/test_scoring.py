"""Validation scores are those of the whole set, independent of batches and ranks."""

from types import SimpleNamespace

import pytest
import sacrebleu
import torch
from fairseq.data import Dictionary
from fairseq.logging import metrics

from echostream.decoding import offline
from echostream.decoding.repetition import repeating
from echostream.decoding.target_tokens import END, forbidden_tokens
from echostream.models import EchoStreamModel, architecture_config
from echostream.tasks import scoring
from echostream.text import edit_distance

WORDS = ["▁the", "▁cat", "▁sat", "▁on", "▁a", "▁mat", "▁dog", "s"]


@pytest.fixture
def dictionary() -> Dictionary:
    result = Dictionary()
    for word in WORDS:
        result.add_symbol(word)
    return result


def one_hot(rows: list[list[int]], classes: int) -> torch.Tensor:
    """Logits whose argmax is ``rows``."""
    return torch.nn.functional.one_hot(torch.tensor(rows), classes).float()


def batch(dictionary: Dictionary, pairs: list[tuple[str, str]]) -> tuple[dict, dict]:
    """Model output and sample for pairs of (text of the CTC paths, reference)."""
    size = len(dictionary)
    frames, said = 20, []
    for hypothesis, _ in pairs:
        row: list[int] = []
        for piece in hypothesis.split():
            row += [dictionary.index(piece), dictionary.index(piece), 0]  # held for two frames, then blank
        said.append(row + [0] * (frames - len(row)))
    lengths = torch.tensor([len(r.split()) for _, r in pairs])
    text = torch.full((len(pairs), int(lengths.max()) + 1), dictionary.pad())
    for b, (_, reference) in enumerate(pairs):
        pieces = [dictionary.index(piece) for piece in reference.split()] + [dictionary.eos()]
        text[b, : len(pieces)] = torch.tensor(pieces)
    sample = {
        "source_text": text,
        "source_text_lengths": lengths,
        "target_text": text,
        "target_text_lengths": lengths + 1,
        "units": torch.tensor([[3, 5, 5]] * len(pairs)),
        "unit_lengths": torch.tensor([3] * len(pairs)),
    }
    output = {
        "asr_logits": one_hot(said, size),
        "st_logits": one_hot(said, size),
        "frame_lengths": torch.full((len(pairs),), frames),
        "mt_logits": one_hot(text.tolist(), size),
        "unit_logits": one_hot([[4, 0, 6, 6]] * len(pairs), 10),  # one of two 5s is lost
        "unit_lengths": torch.full((len(pairs),), 4),
    }
    return output, sample


PAIRS = [
    ("▁the ▁cat ▁sat ▁on ▁a ▁mat", "▁the ▁cat ▁sat ▁on ▁the ▁mat"),
    ("▁the ▁dog s", "▁the ▁dog s"),
    ("▁a ▁dog ▁sat", "▁a ▁cat ▁sat ▁on"),
]


def logged(dictionary: Dictionary, *cuts: list[tuple[str, str]]) -> dict[str, float]:
    logs = []
    for pairs in cuts:
        output, sample = batch(dictionary, pairs)
        counts = scoring.count(output, sample, dictionary, dictionary, model=None)
        counts |= {"loss": 2.0 * len(pairs), "sample_size": len(pairs)}
        logs.append({scoring.key("320ms", name): value for name, value in counts.items()})
    with metrics.aggregate(new_root=True) as meters:
        for log in logs:
            scoring.log_scores([log], "320ms")
    return meters.get_smoothed_values()


def test_scores_do_not_depend_on_batches(dictionary):
    whole = logged(dictionary, PAIRS)
    assert logged(dictionary, PAIRS[:1], PAIRS[1:]) == pytest.approx(whole)
    hypotheses = ["the cat sat on a mat", "the dogs", "a dog sat"]
    references = ["the cat sat on the mat", "the dogs", "a cat sat on"]
    assert whole["asr_wer_320ms"] == pytest.approx(100 * 3 / 12, abs=0.01)
    assert whole["st_precision_320ms"] == pytest.approx(100 * 9 / 11, abs=0.01)
    assert whole["st_recall_320ms"] == pytest.approx(100 * 9 / 12, abs=0.01)
    assert whole["st_bleu_320ms"] == pytest.approx(sacrebleu.corpus_bleu(hypotheses, [references]).score, abs=0.01)
    assert whole["mt_accuracy_320ms"] == 100
    assert whole["unit_error_320ms"] == pytest.approx(100 / 3, abs=0.01)
    assert whole["loss_320ms"] == 2


def test_nothing_is_logged_for_training_outputs():
    with metrics.aggregate(new_root=True) as meters:
        scoring.log_scores([{"loss": 1.0, "sample_size": 2}], "full")
    assert not meters.get_smoothed_values()


def test_subwords_are_joined_to_words(dictionary):
    tokens = [dictionary.index(p) for p in ["▁the", "▁dog", "s"]] + [dictionary.eos(), dictionary.pad()]
    assert scoring.detokenise(tokens, dictionary) == "the dogs"
    assert scoring.detokenise([], dictionary) == ""


@pytest.mark.parametrize(
    ("hypothesis", "reference", "distance"),
    [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("aaa", "aa", 1), ("abcd", "badc", 3)],
)
def test_edit_distance(hypothesis, reference, distance):
    assert edit_distance(hypothesis, reference) == edit_distance(reference, hypothesis) == distance


def test_greedy_translation_equals_that_of_the_full_decoder(dictionary):
    """Compare decoding step by step with a state to decoding whole prefixes, in a batch of unequal lengths."""
    torch.manual_seed(3)
    model = EchoStreamModel(architecture_config("echostream_tiny"), len(dictionary), len(dictionary), 10).eval()
    features, lengths = torch.randn(2, 60, 80), torch.tensor([60, 35])
    with torch.no_grad():
        encoded = model.encode(features, lengths)
        forbidden = forbidden_tokens(len(dictionary), torch.device("cpu"))
        starts_word = [symbol.startswith("▁") for symbol in dictionary.symbols]
        for b, (hypothesis,) in enumerate(
            offline.translate(model, encoded, dictionary.symbols, dictionary.symbols, limits=[6, 6])
        ):
            tokens = list(hypothesis.tokens)
            assert len(tokens) == 6 or tokens[-1] == END
            memory = encoded["encoder_out"][b : b + 1, : encoded["frame_lengths"][b]]
            _, logits, _ = model.mt_decoder(torch.tensor([[END, *tokens[:-1]]]), memory)
            for place, token in enumerate(tokens):
                scores = logits[0, place] + forbidden
                scores[list(repeating(tokens[:place], starts_word))] = float("-inf")
                assert int(scores.argmax()) == token


def test_mt_bleu_is_counted_on_request(dictionary):
    model = EchoStreamModel(architecture_config("echostream_tiny"), len(dictionary), len(dictionary), 10).eval()
    output, sample = batch(dictionary, PAIRS)
    output["encoder_out"] = torch.randn(3, 20, model.cfg.encoder_dim)
    counts = scoring.count(output, sample, dictionary, dictionary, model, mt_bleu=True)
    assert counts["mt_bleu_ref"] == 12
    assert SimpleNamespace(**counts).mt_bleu_sys >= 0
