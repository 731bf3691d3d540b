"""Multi-task criterion: each loss equals a direct computation, and the total is their weighted sum."""

import math
from types import SimpleNamespace

import pytest
import torch
from fairseq.data import Dictionary
from fairseq.logging import metrics

from echostream.criterions import EchoStreamMultiTaskCriterion, EchoStreamMultiTaskCriterionConfig
from echostream.criterions.losses import cross_entropy_sum, ctc_infeasible, ctc_sum, symmetric_kl_sum
from echostream.criterions.targets import UNKNOWN_PHONE
from echostream.decoding.policy import Budget, FixedRatePolicy, WaitKPolicy
from echostream.models.config import architecture_config
from echostream.models.echostream_model import EchoStreamModel

PAD, EOS = 1, 2
BATCH, FRAMES, TOKENS, PER_TOKEN, UNITS = 3, 12, 5, 4, 7


def dictionary(pieces: str) -> Dictionary:
    result = Dictionary()
    for piece in pieces.split():
        result.add_symbol(piece)
    return result


def make_task(**texts):
    return SimpleNamespace(
        source_dictionary=dictionary("▁a b ▁c d"),
        target_text_dictionary=dictionary("▁x y ▁z w"),
        target_dictionary=None,
        texts={name: SimpleNamespace(**entry) for name, entry in texts.items()},
        frame_ms=40,
    )


def make_criterion(task=None, **options) -> EchoStreamMultiTaskCriterion:
    return EchoStreamMultiTaskCriterion(EchoStreamMultiTaskCriterionConfig(**options), task or make_task())


class RecordingModel(torch.nn.Module):
    """Model that returns fixed logits and records its arguments."""

    def __init__(self, seed: int = 0):
        super().__init__()
        make = torch.Generator().manual_seed(seed)
        self.output = {
            "asr_logits": torch.randn(BATCH, FRAMES, 8, generator=make),
            "st_logits": torch.randn(BATCH, FRAMES, 8, generator=make),
            "mt_logits": torch.randn(BATCH, TOKENS, 8, generator=make),
            "unit_logits": torch.randn(BATCH, TOKENS * PER_TOKEN, UNITS + 1, generator=make),
            "frame_lengths": torch.tensor([12, 9, 7]),
            "unit_lengths": torch.tensor([20, 16, 12]),
        }
        for value in self.output.values():
            if value.is_floating_point():
                value.requires_grad_()
        self.calls = []

    def forward(self, src_tokens, src_lengths, prev_text_tokens, target_text_tokens, word_ids, segment, align):
        repeat = len(src_tokens) // BATCH
        output = {name: torch.cat([value] * repeat) for name, value in self.output.items()}
        visible = align(output) if align is not None else None
        self.calls.append({"segment": segment, "visible": visible, "batch": len(src_tokens)})
        return output


@pytest.fixture
def sample() -> dict:
    return {
        "net_input": {
            "src_tokens": torch.zeros(BATCH, 48, 80),
            "src_lengths": torch.tensor([48, 36, 28]),
            "prev_text_tokens": torch.zeros(BATCH, TOKENS, dtype=torch.long),
        },
        "source_text": torch.tensor([[4, 5, 6, 7], [4, 4, 6, PAD], [6, 7, PAD, PAD]]),
        "source_text_lengths": torch.tensor([4, 3, 2]),
        "target_text": torch.tensor([[4, 5, 6, 7, EOS], [6, 6, 4, EOS, PAD], [4, 5, EOS, PAD, PAD]]),
        "target_text_lengths": torch.tensor([5, 4, 3]),
        "word_ids": torch.tensor([[0, 0, 1, 1, 2], [0, 1, 2, 3, 4], [0, 0, 1, 2, 2]]),
        "units": torch.tensor([[0, 1, 2, 6, 5], [3, 3, 4, 0, 0], [0, 2, 0, 0, 0]]),
        "unit_lengths": torch.tensor([5, 3, 2]),
        "ntokens": 10,
        "nsentences": 3,
        "segment": 4,
    }


def direct_ctc(logits, lengths, targets, target_lengths) -> float:
    """CTC loss computed with torch for one utterance at a time."""
    total = 0.0
    for b in range(BATCH):
        log_probs = logits[b, : lengths[b]].double().log_softmax(-1)[:, None]
        target = targets[b : b + 1, : target_lengths[b]]
        total += float(
            torch.nn.functional.ctc_loss(
                log_probs, target, lengths[b : b + 1], target_lengths[b : b + 1], reduction="sum"
            )
        )
    return total


def test_losses_match_a_direct_computation(sample):
    model = RecordingModel()
    loss, size, log = make_criterion(label_smoothing=0.1)(model, sample)
    out = model.output
    asr = direct_ctc(out["asr_logits"], out["frame_lengths"], sample["source_text"], sample["source_text_lengths"])
    st = direct_ctc(out["st_logits"], out["frame_lengths"], sample["target_text"], sample["target_text_lengths"] - 1)
    unit = direct_ctc(out["unit_logits"], out["unit_lengths"], sample["units"] + 1, sample["unit_lengths"])
    mt = float(
        torch.nn.functional.cross_entropy(
            out["mt_logits"].double().transpose(1, 2),
            sample["target_text"],
            ignore_index=PAD,
            reduction="sum",
            label_smoothing=0.1,
        )
    )
    for name, value in {"asr": asr, "st": st, "mt": mt, "unit": unit}.items():
        assert float(log[f"{name}_loss"]) == pytest.approx(value, rel=1e-5), name
    assert float(loss) == pytest.approx(4 * asr + 4 * st + 8 * mt + unit, rel=1e-5)
    assert size == log["sample_size"] == 10
    assert (log["asr_tokens"], log["st_tokens"], log["mt_tokens"], log["unit_tokens"]) == (9, 9, 12, 10)


def test_phone_loss_counts_known_frames_only(sample):
    task = make_task()
    task.phone_inventory, task.model_cfg = ["SIL", "a", "b"], SimpleNamespace(encoder_dim=6)
    criterion = make_criterion(task, phone_weight=2.0)
    model = RecordingModel()
    frames = model.output["encoder_out"] = torch.randn(BATCH, FRAMES, 6)
    phones = torch.randint(0, 3, (BATCH, FRAMES))
    phones[0, 3:] = phones[2] = UNKNOWN_PHONE
    loss, _, log = criterion(model, {**sample, "phones": phones})
    log_probs = criterion.phone_head(frames).double().log_softmax(-1)
    known = [(b, t) for b in range(BATCH) for t in range(FRAMES) if phones[b, t] >= 0]
    direct = -sum(float(log_probs[b, t, phones[b, t]]) for b, t in known)
    assert float(log["phone_loss"]) == pytest.approx(direct, rel=1e-5)
    assert int(log["phone_frames"]) == len(known) == 15
    assert int(log["phone_correct"]) == sum(int(log_probs[b, t].argmax() == phones[b, t]) for b, t in known)
    without, _, plain = make_criterion()(model, sample)
    assert float(loss - without) == pytest.approx(2 * direct, rel=1e-5)
    assert "phone_loss" not in plain


def test_model_is_called_once_with_segment_and_alignment(sample):
    model = RecordingModel()
    make_criterion()(model, sample)
    make_criterion(mt_alignment="none")(model, sample)
    policy, none = model.calls
    assert policy["segment"] == none["segment"] == 4
    assert none["visible"] is None
    visible, lengths = policy["visible"], model.output["frame_lengths"][:, None]
    assert visible.shape == sample["target_text"].shape
    assert ((visible >= 1) & (visible <= lengths)).all()
    for b, n in enumerate(sample["target_text_lengths"].tolist()):
        assert (visible[b, 1:n] >= visible[b, : n - 1]).all()


def test_padding_does_not_change_loss_and_gradients(sample):
    """Loss and gradients must not depend on the values in the padding of tokens and frames."""
    results = []
    for filler in (0.0, 7.0):
        model = RecordingModel()
        with torch.no_grad():
            for b, n in enumerate(model.output["frame_lengths"]):
                model.output["asr_logits"][b, n:] = filler
                model.output["st_logits"][b, n:] = filler
            for b, n in enumerate(sample["target_text_lengths"]):
                model.output["mt_logits"][b, n:] = filler
        loss, _, _ = make_criterion()(model, sample)
        loss.backward()
        results.append((loss.detach(), model.output["asr_logits"].grad, model.output["mt_logits"].grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)
    assert not results[0][2][2, 3:].any()


def test_infeasible_utterances_are_excluded_and_counted():
    torch.manual_seed(0)
    logits = torch.randn(3, 4, 6, requires_grad=True)
    targets = torch.tensor([[1, 2, 3, 4], [1, 1, 1, 0], [2, 2, 0, 0]])
    lengths = torch.tensor([4, 3, 2])
    frames = torch.tensor([3, 4, 3])  # one frame too few, two too few because of repeats, just enough
    assert ctc_infeasible(targets, lengths, frames).tolist() == [True, True, False]
    loss, infinite = ctc_sum(logits, frames, targets, lengths)
    assert infinite.tolist() == [True, True, False]
    assert torch.isfinite(loss)
    loss.backward()
    assert torch.isfinite(logits.grad).all()
    assert not logits.grad[:2].any()
    assert logits.grad[2].any()


def test_infinite_losses_are_logged(sample):
    sample["source_text_lengths"] = torch.tensor([4, 3, 2])
    model = RecordingModel()
    model.output["frame_lengths"] = torch.tensor([3, 9, 7])
    _, _, log = make_criterion()(model, sample)
    with metrics.aggregate(new_root=True) as logged:
        EchoStreamMultiTaskCriterion.reduce_metrics([log, log])
    values = logged.get_smoothed_values()
    assert values["asr_inf"] == 2
    assert values["st_inf"] == 2
    assert values["unit_inf"] == 0


@pytest.mark.parametrize("rdrop", [0.0, 1.0])
def test_impossible_utterances_do_not_count_in_what_the_loss_is_divided_by(sample, caplog, rdrop):
    """They count with what they do have; that they don't with the rest is said once."""
    sample["ids"] = ["first", "second", "third"]
    model = RecordingModel()
    model.output["frame_lengths"] = torch.tensor([3, 9, 7])  # 4 symbols each of ASR and ST
    model.output["unit_lengths"] = torch.tensor([20, 3, 12])  # 3 units, of which two are the same
    criterion = make_criterion(rdrop_alpha=rdrop)
    for _ in range(2):
        _, size, log = criterion(model, sample)
    assert (log["asr_tokens"], log["st_tokens"], log["mt_tokens"], log["unit_tokens"]) == (5, 5, 12, 7)
    assert size == log["sample_size"] == 7 and log["ntokens"] == 10
    criterion.sentence_avg = True
    assert criterion(model, sample)[1] == 2
    assert [record.getMessage() for record in caplog.records] == [
        "more symbols than frames, left out of the asr loss: first",
        "more symbols than frames, left out of the st loss: first",
        "more symbols than frames, left out of the unit loss: second",
    ]


def test_meters_are_nats_per_token(sample):
    _, _, log = make_criterion()(RecordingModel(), sample)
    _, _, other = make_criterion()(RecordingModel(seed=1), sample)
    with metrics.aggregate(new_root=True) as logged:
        EchoStreamMultiTaskCriterion.reduce_metrics([log, other])
    values = logged.get_smoothed_values()
    for part, tokens in {"asr": 9, "st": 9, "mt": 12, "unit": 10}.items():
        mean = float(log[f"{part}_loss"] + other[f"{part}_loss"]) / (2 * tokens)
        assert values[part] == pytest.approx(mean, abs=1e-3)
    assert values["loss"] == pytest.approx(float(log["loss"] + other["loss"]) / 20, abs=1e-3)
    nll = float(log["mt_nll"] + other["mt_nll"]) / 24
    assert values["ppl"] == pytest.approx(math.exp(nll), rel=1e-3)


def test_loss_is_computed_in_full_precision(sample):
    model = RecordingModel()
    with torch.no_grad():
        rounded = {n: v.bfloat16() if v.is_floating_point() else v for n, v in model.output.items()}
    expected = RecordingModel()
    expected.output = {n: v.float() if v.is_floating_point() else v for n, v in rounded.items()}
    model.output = rounded
    torch.testing.assert_close(make_criterion()(model, sample)[0], make_criterion()(expected, sample)[0])


def test_rdrop_without_dropout_does_not_change_the_loss(sample):
    plain, _, _ = make_criterion()(RecordingModel(), sample)
    model = RecordingModel()
    criterion = make_criterion(rdrop_alpha=5.0)
    loss, size, _ = criterion(model, sample)
    torch.testing.assert_close(loss, plain)
    assert size == 10
    assert model.calls[-1]["batch"] == 2 * BATCH
    criterion.eval()
    criterion(model, sample)
    assert model.calls[-1]["batch"] == BATCH


class TwoPassModel(RecordingModel):
    """Model that returns other logits for the second half of a repeated batch, as a second dropout mask would."""

    def forward(self, src_tokens, **others):
        output = super().forward(src_tokens, **others)
        for name in ("asr_logits", "st_logits", "mt_logits", "unit_logits"):
            one, other = output[name].chunk(2)
            output[name] = torch.cat([one, 0.5 * other])
        return output


def test_rdrop_matches_a_direct_computation(sample):
    """Every loss is the mean of two passes; the divergence per token is added to that of the text decoder."""
    model, alpha = TwoPassModel(), 3.0
    loss, _, log = make_criterion(rdrop_alpha=alpha, label_smoothing=0.0)(model, sample)
    passes = []
    for scale in (1.0, 0.5):
        one = RecordingModel()
        with torch.no_grad():
            for name in ("asr_logits", "st_logits", "mt_logits", "unit_logits"):
                one.output[name] *= scale
        # The visible frames depend on the logits, but the output of this model does not depend on the visible frames.
        passes.append(make_criterion(label_smoothing=0.0)(one, sample)[2])
    divergence = 0.0
    for b, n in enumerate(sample["target_text_lengths"].tolist()):
        for token in range(n):
            p = model.output["mt_logits"][b, token].double().softmax(-1)
            q = (0.5 * model.output["mt_logits"][b, token]).double().softmax(-1)
            divergence += float((p * (p / q).log()).sum() + (q * (q / p).log()).sum()) / 2
    assert divergence > 0.1
    assert float(log["mt_kl"]) == pytest.approx(divergence, rel=1e-5)
    for part in ("asr", "st", "unit"):
        assert float(log[f"{part}_loss"]) == pytest.approx(
            float(passes[0][f"{part}_loss"] + passes[1][f"{part}_loss"]) / 2, rel=1e-5
        )
    mean = float(passes[0]["mt_loss"] + passes[1]["mt_loss"]) / 2
    assert float(log["mt_loss"]) == pytest.approx(mean + alpha * divergence, rel=1e-5)
    weighted = sum(w * float(log[f"{p}_loss"]) for p, w in {"asr": 4.0, "st": 4.0, "mt": 8.0, "unit": 1.0}.items())
    assert float(loss) == pytest.approx(weighted, rel=1e-5)
    with metrics.aggregate(new_root=True) as logged:
        EchoStreamMultiTaskCriterion.reduce_metrics([log])
    assert logged.get_smoothed_values()["mt_kl"] == pytest.approx(divergence / 12, abs=1e-3)


def test_symmetric_divergence():
    torch.manual_seed(0)
    logits, targets = torch.randn(4, 3, 5), torch.tensor([[4, 3, PAD], [4, 4, 4]])
    p, q = logits.log_softmax(-1).chunk(2)
    kl = torch.nn.functional.kl_div
    both = kl(p, q, reduction="none", log_target=True) + kl(q, p, reduction="none", log_target=True)
    expected = both[targets != PAD].sum() / 2
    torch.testing.assert_close(symmetric_kl_sum(logits, targets, PAD), expected)


def test_cross_entropy_without_smoothing_is_the_likelihood():
    logits, targets = torch.randn(2, 3, 5), torch.tensor([[4, 3, PAD], [4, 4, 4]])
    loss, nll = cross_entropy_sum(logits, targets, PAD, 0.0)
    assert loss is nll
    expected = torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, ignore_index=PAD, reduction="sum")
    torch.testing.assert_close(nll, expected)


def test_weights_come_from_options_then_yaml_then_defaults():
    task = make_task(
        source_unigram={"loss_weight": 2.0, "label_smoothing": None, "rdrop_alpha": None},
        ctc_target_unigram={"loss_weight": None, "label_smoothing": None, "rdrop_alpha": None},
        target_unigram={"loss_weight": 6.0, "label_smoothing": 0.2, "rdrop_alpha": 0.5},
    )
    criterion = make_criterion(task, mt_weight=3.0)
    assert criterion.weights == {"asr": 2.0, "st": 4.0, "mt": 3.0, "unit": 1.0}
    assert criterion.label_smoothing == 0.2
    assert criterion.rdrop_alpha == 0.5
    assert make_criterion().weights == {"asr": 4.0, "st": 4.0, "mt": 8.0, "unit": 1.0}
    assert make_criterion(task, label_smoothing=0.0).label_smoothing == 0.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"asr_weight": -1.0}, "--asr-weight is -1"),
        ({"label_smoothing": 1.0}, "--label-smoothing is 1"),
        ({"rdrop_alpha": -0.5}, "--rdrop-alpha is -0.5"),
        ({"stride_n": 0}, "stride_n must be at least 1"),
        ({"lag_k": -1}, "lag_k at least 0"),
    ],
)
def test_errors_name_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        make_criterion(**options)


def after_half(evidence, state, *, frames=6):
    """A policy of one's own: everything, once enough has been heard, whatever the CTC heads have read."""
    return (Budget() if evidence.frames >= frames else None), state


OWN = f"{__name__}:after_half"


def test_training_simulates_whichever_policy_is_asked_for(sample):
    sample["segment"] = 1
    model = RecordingModel()
    make_criterion(policy=OWN, policy_options="frames=4")(model, sample)
    assert model.calls[0]["visible"].tolist() == [[4, 4, 4, 4, 12], [4, 4, 4, 9, 9], [4, 4, 7, 7, 7]]
    assert make_criterion(policy="wait-k", lag_k=2).policy == WaitKPolicy(2)
    assert make_criterion(policy="fixed-rate", policy_options=" token_frames=12").policy == FixedRatePolicy(12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": OWN, "lag_k": 2}, "has no option lag_k: it takes frames"),
        ({"policy": OWN, "policy_options": "words=2"}, "has no option words: it takes frames"),
        ({"policy": OWN, "policy_options": "words"}, "--policy-options: 'words' is not of the form NAME=VALUE"),
        ({"policy": "wait-k", "stride_n": 2}, "the policy 'wait-k' has no option stride_n"),
        ({"policy": "alignatt"}, "--policy alignatt looks at the decoder.*: choose --mt-alignment none"),
        ({"policy": "nowhere_at_all:x"}, "there is no module 'nowhere_at_all'"),
    ],
)
def test_options_that_the_policy_does_not_have_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        make_criterion(**options)


def test_a_checkpoint_names_no_code():
    """fairseq-validate builds the criterion of the options in the file."""
    task = make_task()
    task.from_checkpoint = True
    with pytest.raises(ValueError, match=r"code that a file names is not run: .*--model-overrides"):
        make_criterion(task, policy=OWN)
    assert make_criterion(task, policy="wait-k").policy == WaitKPolicy()


def real_model(seed: int = 0) -> EchoStreamModel:
    torch.manual_seed(seed)
    cfg = architecture_config("echostream_tiny")
    cfg.dropout = cfg.encoder_layer_drop = 0.0
    return EchoStreamModel(cfg, 8, 8, UNITS).train()


@pytest.mark.parametrize(
    ("weights", "idle"),
    [
        ({"st_weight": 0, "mt_weight": 0, "unit_weight": 0}, {"st_head", "mt_decoder", "unit_decoder"}),
        ({"unit_weight": 0}, {"unit_decoder"}),
        ({"asr_weight": 0, "mt_weight": 0, "unit_weight": 0}, {"asr_head", "mt_decoder", "unit_decoder"}),
        ({"st_weight": 0}, set()),  # the policy that is simulated reads the head all the same
    ],
)
def test_what_has_no_weight_is_not_computed_and_changes_nothing(sample, weights, idle):
    sample["net_input"]["src_tokens"] = torch.randn(BATCH, 48, 80)
    model = real_model()
    called = set()
    for name in ("asr_head", "st_head", "mt_decoder", "unit_decoder"):
        getattr(model, name).register_forward_hook(lambda *_, name=name: called.add(name))
    loss, size, log = make_criterion(**weights)(model.train(), sample)
    loss.backward()
    assert called == {"asr_head", "st_head", "mt_decoder", "unit_decoder"} - idle
    whole = real_model().eval()  # where everything is computed
    expected, same_size, _ = make_criterion(**weights).eval()(whole, sample)
    expected.backward()
    assert size == same_size and float(loss) == pytest.approx(float(expected), rel=1e-5)
    for (name, one), (_, other) in zip(model.named_parameters(), whole.named_parameters(), strict=True):
        if one.grad is None:
            assert other.grad is None or not other.grad.any(), name
        else:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-4)
    metrics.reset()
    with metrics.aggregate() as meters:
        EchoStreamMultiTaskCriterion.reduce_metrics([log])
    logged = meters.get_smoothed_values()
    left_out = {name.removesuffix("_weight") for name in weights}
    assert left_out.isdisjoint(logged) or weights == {"st_weight": 0}
