"""SpecAugment, dropout and layer drop are active in training only."""

from __future__ import annotations

import torch

from echostream.models import EchoStreamConfig, EchoStreamModel
from echostream.tasks import EchoStreamTask, EchoStreamTaskConfig

SIZES = {
    "subsampler_hidden_dim": 32, "encoder_dim": 32, "encoder_layers": 3, "encoder_ffn_dim": 32, "st_layers": 1,
    "mt_dim": 32, "mt_layers": 1, "mt_ffn_dim": 32, "unit_dim": 32, "unit_layers": 1, "unit_ffn_dim": 32,
}  # fmt: skip


def outputs(model: EchoStreamModel, seed: int) -> dict[str, torch.Tensor]:
    make = torch.Generator().manual_seed(0)
    features, tokens = torch.randn(2, 40, 80, generator=make), torch.randint(4, 12, (2, 5), generator=make)
    torch.manual_seed(seed)
    return model(features, torch.tensor([40, 32]), tokens, tokens, torch.arange(5).expand(2, -1), segment=2)


def differing(model: EchoStreamModel) -> set[str]:
    """Names of the outputs that depend on the state of the random generator."""
    one, other = outputs(model, 1), outputs(model, 2)
    return {name for name, value in one.items() if value.is_floating_point() and not torch.equal(value, other[name])}


def make_model(**options) -> EchoStreamModel:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return EchoStreamModel(EchoStreamConfig(**SIZES, **options), 12, 12, 8)


def test_dropout_is_active_in_training_only():
    model = make_model(dropout=0.2)
    everything = {"encoder_out", "asr_logits", "st_logits", "mt_logits", "unit_logits"}
    assert differing(model.train()) == everything
    assert differing(model.eval()) == set()
    assert differing(make_model(dropout=0.0).train()) == set()


def test_each_part_has_dropout():
    """With one part in training mode, its output is random, and outputs that don't depend on it are not."""
    expected = {
        "encoder": {"encoder_out", "asr_logits", "st_logits", "mt_logits", "unit_logits"},
        "st_head": {"st_logits"},
        "mt_decoder": {"mt_logits", "unit_logits"},
        "unit_decoder": {"unit_logits"},
    }
    for part, random in expected.items():
        model = make_model(dropout=0.2).eval()
        getattr(model, part).train()
        assert differing(model) == random, part


def test_layer_drop_skips_whole_layers_in_training_only():
    model = make_model(dropout=0.0, encoder_layer_drop=0.5).train()
    layers = model.encoder.emformer.layers
    skipped = []
    for seed in range(16):
        model.zero_grad(set_to_none=True)
        outputs(model, seed)["asr_logits"].sum().backward()
        idle = [layer.ffn_in.weight.grad is None for layer in layers]
        for layer, is_idle in zip(layers, idle, strict=True):
            assert all((p.grad is None) == is_idle for p in layer.parameters())
        skipped += idle
    assert 0.2 < sum(skipped) / len(skipped) < 0.8
    assert differing(model.eval()) == set()


def test_specaugment_is_active_in_training_only(corpus):
    """Training features change from epoch to epoch; validation features are not augmented."""
    for split in ("train", "dev"):  # the same utterances in both
        for name in (f"{split}.tsv", f"source/{split}.tsv", f"target/{split}.tsv"):
            (corpus.folder / name).write_text((corpus.folder / name.replace("train", "dev")).read_text())
    task = EchoStreamTask.setup_task(
        EchoStreamTaskConfig(data=str(corpus.folder), num_units=20, seed=1, train_subset="train")
    )
    epochs = {}
    for split in ("train", "dev"):
        task.load_dataset(split)
        epochs[split] = []
        for epoch in (1, 2):
            task.dataset(split).set_epoch(epoch)
            epochs[split].append(task.dataset(split)[0].features)
    assert torch.equal(*epochs["dev"])
    assert not torch.equal(*epochs["train"])
    for masked in epochs["train"]:
        kept = masked == epochs["dev"][0]
        assert not kept.all()
        assert kept.any()
        assert (~kept).all(dim=1).any() or (~kept).all(dim=0).any()  # whole frames or whole mel bins
