"""Training with fairseq's trainer: a run resumes exactly, and several ranks equal one large batch."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from fairseq import checkpoint_utils, options, tasks
from fairseq.data import iterators
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.logging import metrics
from fairseq.trainer import Trainer

from echostream.checkpoints.model_files import load_model

ARCH = ["--arch", "echostream_tiny", "--encoder-layers", "1", "--encoder-dim", "32", "--encoder-ffn-dim", "32"]
ARCH += ["--subsampler-hidden-dim", "32", "--mt-layers", "1", "--unit-layers", "1", "--mt-dim", "32"]
ARCH += ["--unit-dim", "32", "--unit-ffn-dim", "32", "--mt-ffn-dim", "32"]


def train(folder: Path, save_dir: Path, updates: int, *extra: str) -> tuple[list[float], dict, Trainer]:
    """Train ``updates`` more updates, save, and return the loss of each, the weights and the trainer."""
    torch.set_num_threads(1)
    metrics.reset()
    argv = [str(folder), "--task", "echostream", "--criterion", "echostream_multitask", *ARCH, "--cpu"]
    argv += ["--optimizer", "adam", "--lr", "1e-3", "--num-workers", "0", "--num-units", "20"]
    argv += ["--required-batch-size-multiple", "1", "--save-dir", str(save_dir), "--valid-subset", "dev", *extra]
    parser = options.get_training_parser()
    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, argv))
    torch.manual_seed(cfg.common.seed)
    task = tasks.setup_task(cfg.task)
    model, criterion = task.build_model(cfg.model), task.build_criterion(cfg.criterion)
    trainer = Trainer(cfg, task, model, criterion)
    _, epochs = checkpoint_utils.load_checkpoint(cfg.checkpoint, trainer)
    losses = []
    while len(losses) < updates:
        batches = iterators.GroupedIterator(epochs.next_epoch_itr(), cfg.optimization.update_freq[0])
        for samples in batches:
            losses.append(trainer.train_step(samples)["loss"])
            if len(losses) == updates:
                break
        if len(losses) == updates:
            checkpoint_utils.save_checkpoint(cfg.checkpoint, trainer, epochs, None)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    return losses, weights, trainer


def test_resumed_run_equals_an_uninterrupted_one(corpus, tmp_path):
    """Batches, masks, dropout, segment sizes and weights must not change if a run is interrupted within an epoch."""
    options = ["--batch-size", "2"]  # three updates per epoch
    whole, expected, _ = train(corpus.folder, tmp_path / "whole", 7, *options)
    first, _, _ = train(corpus.folder, tmp_path / "parts", 4, *options)
    second, weights, trainer = train(corpus.folder, tmp_path / "parts", 3, *options)
    assert first + second == whole
    assert trainer.get_num_updates() == 7
    for name, value in expected.items():
        assert torch.equal(weights[name], value), name


def test_autocast_rounds_products_and_nothing_else(corpus, tmp_path):
    runs = {}
    for precision in ("float32", "bfloat16"):
        options = ["--batch-size", "3", "--dropout", "0", "--autocast", precision]
        losses, weights, trainer = train(corpus.folder, tmp_path / precision, 4, *options)
        assert all(value.dtype == torch.float32 for value in weights.values() if value.is_floating_point())
        moments = trainer.optimizer.state_dict()["state"].values()
        assert all(one["exp_avg"].dtype == torch.float32 for one in moments)
        runs[precision] = losses
    assert runs["bfloat16"] == pytest.approx(runs["float32"], rel=0.02)
    assert runs["bfloat16"] != runs["float32"]


def test_checkpoint_is_safe_and_complete(corpus, tmp_path):
    train(corpus.folder, tmp_path / "run", 1, "--batch-size", "3")
    path = tmp_path / "run" / "checkpoint_last.pt"
    state = torch.load(path, weights_only=True)
    assert state["task_state"]["num_units"] == 20
    assert state["task_state"]["source_symbols"][:4] == ["<s>", "<pad>", "</s>", "<unk>"]
    corpus.folder.rename(tmp_path / "elsewhere")  # the checkpoint must load without the data
    (model,), _, task = checkpoint_utils.load_model_ensemble_and_task([str(path)])
    assert task.num_units == 20
    assert model.fbank.cmvn_mean[0] == 10


def test_validation_reports_each_segment_size(corpus, tmp_path):
    _, _, trainer = train(corpus.folder, tmp_path / "run", 1, "--batch-size", "3", "--eval-mt-bleu")
    trainer.task.load_dataset("dev")
    results = []
    for _ in range(2):  # validation must not be random
        with metrics.aggregate(new_root=True) as logged:
            for sample in trainer.get_valid_iterator("dev").next_epoch_itr(shuffle=False):
                trainer.valid_step(sample)
        values = logged.get_smoothed_values()
        results.append({k: v for k, v in values.items() if not k.startswith(("wp", "up"))})
    assert results[0] == results[1]
    for size in ("40ms", "320ms", "full"):
        for name in ("loss", "asr_wer", "st_recall", "st_bleu", "mt_accuracy", "mt_bleu", "unit_error"):
            assert f"{name}_{size}" in results[0]
    assert {"mt_streamed_bleu_40ms", "mt_streamed_bleu_320ms"} <= results[0].keys()
    assert "mt_streamed_bleu_full" not in results[0]
    sizes = [results[0][f"loss_{size}"] for size in ("40ms", "320ms", "full")]
    assert results[0]["loss"] == pytest.approx(sum(sizes) / 3, abs=2e-3)


@pytest.mark.parametrize("precision", ["--bf16", "--fp16", "--amp", "--memory-efficient-bf16"])
def test_half_precision_trains(corpus, tmp_path, precision):
    """Losses are close to those in full precision, and the normalisation in the checkpoint is not rounded."""
    np.savez(corpus.folder / "gcmvn.npz", mean=np.full(80, 10.1, "float32"), std=np.full(80, 2.3, "float32"))
    # Flat gradients need a GPU; everything else of --fp16 also runs on a CPU.
    flags = [precision, *(["--fp16-no-flatten-grads"] if precision == "--fp16" else [])]
    exact, _, _ = train(corpus.folder, tmp_path / "exact", 3, "--batch-size", "3", "--dropout", "0")
    losses, weights, trainer = train(corpus.folder, tmp_path / "half", 3, "--batch-size", "3", "--dropout", "0", *flags)
    assert losses == pytest.approx(exact, rel=0.03)
    assert trainer.get_num_updates() == 3
    kind = next(trainer.model.parameters()).dtype
    assert kind == {"--bf16": torch.bfloat16, "--fp16": torch.float16}.get(
        precision.replace("memory-efficient-", ""), torch.float32
    )
    assert weights["fbank.cmvn_mean"].dtype == torch.float32
    model = load_model(tmp_path / "half" / "checkpoint_last.pt").model
    assert torch.equal(model.fbank.cmvn_mean, torch.full((80,), 10.1))
    assert torch.equal(model.fbank.cmvn_std, torch.full((80,), 2.3))


def test_initial_weights_are_not_used_when_resuming(corpus, tmp_path, caplog):
    """A new run starts from the encoder of another run; a resumed run continues from its own checkpoint."""
    _, first, _ = train(corpus.folder, tmp_path / "first", 2, "--batch-size", "3")
    source = tmp_path / "first" / "checkpoint_last.pt"
    options = ["--batch-size", "3", "--init-encoder-from", str(source), "--lr", "1e-30", "--seed", "7"]
    with caplog.at_level(logging.INFO, logger="echostream.tasks.initial_weights"):
        _, second, _ = train(corpus.folder, tmp_path / "second", 1, *options, "--mt-dim", "48")
    for name, value in second.items():
        if name.startswith("encoder."):
            torch.testing.assert_close(value, first[name])
    assert second["mt_decoder.embedding.weight"].size(1) == 48
    assert f"{source}: " in caplog.text
    assert "left over: mt_decoder.embedding.weight (1): not asked for" in caplog.text
    assert "parameters of the model come from no file" in caplog.text
    source.unlink()  # no longer needed
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="echostream.tasks.initial_weights"):
        train(corpus.folder, tmp_path / "second", 1, *options, "--mt-dim", "48")
    assert "going on from" in caplog.text
    with pytest.raises(SystemExit, match=r"first/checkpoint_last\.pt: no such checkpoint"):
        train(corpus.folder, tmp_path / "third", 1, *options)


def test_inconsistent_sizes_end_with_a_message(corpus, tmp_path):
    with pytest.raises(SystemExit, match="encoder dim 32 must be a multiple of twice the 5 heads"):
        train(corpus.folder, tmp_path, 1, "--batch-size", "3", "--encoder-heads", "5")


# Dropout is off because it differs between ranks; Adam amplifies rounding errors where a gradient is nearly zero.
PLAIN = ["--dropout", "0", "--optimizer", "sgd", "--lr", "0.01", "--momentum", "0"]
