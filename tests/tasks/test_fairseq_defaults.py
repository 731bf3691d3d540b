"""Training as fairseq does it by default: its distributed wrapper, older checkpoints, half precision, lost steps."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

import pytest
import torch
from test_training import PLAIN, train
from torch import nn

from echostream.checkpoints.model_files import load_model
from echostream.models import ARCHITECTURES, EchoStreamConfig, EchoStreamModel
from echostream.modules.transformer import CrossAttention
from echostream.tasks.older_checkpoints import current_checkpoint

KEY_BIAS = "mt_decoder.stack.layers.0.cross_attention.key.bias"
SMALL = dict.fromkeys(("encoder_dim", "mt_dim", "unit_dim"), 32)
SMALL |= dict.fromkeys(("subsampler_hidden_dim", "encoder_ffn_dim", "mt_ffn_dim", "unit_ffn_dim"), 16)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize(("tokens", "frames"), [(2, 30), (12, 40)])  # either order of cross-attention
def test_every_parameter_gets_a_gradient(arch, tokens, frames):
    """Layers, switches and defaults of each architecture, in narrow layers."""
    model = EchoStreamModel(EchoStreamConfig(**ARCHITECTURES[arch] | SMALL), 12, 12, 10)
    target = torch.randint(4, 12, (2, tokens))
    torch.set_num_threads(1)
    for segment in (1, 0):
        model.zero_grad()
        output = model(
            torch.randn(2, frames, 80),
            torch.tensor([frames, frames - 9]),
            target,
            target,
            torch.arange(tokens).expand(2, -1),
            segment,
        )
        sum(output[name].square().sum() for name in ("asr_logits", "st_logits", "mt_logits", "unit_logits")).backward()
        trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert {name for name, _ in model.named_parameters()} - trained.keys() <= {"mt_decoder.languages"}
        without = [name for name, parameter in trained.items() if parameter.grad is None]
        # An optimizer moves a parameter whose gradient is rounding as far as any other.
        without += [name for name, parameter in trained.items() if parameter.grad.abs().max() < 1e-7]
        assert not without


def _rank(rank: int, port: int, folder: str, save_dir: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"tcp://localhost:{port}", world_size=2, rank=rank)
    extra = ["--batch-size", "3", *PLAIN, "--distributed-world-size", "2", "--distributed-rank", str(rank)]
    for updates in (2, 1):  # the second run goes on from the checkpoint, which one process reads and sends to the other
        train(Path(folder), Path(save_dir) / "default", updates, *extra)
        torch.distributed.barrier()
    train(Path(folder), Path(save_dir) / "legacy", 3, *extra, "--ddp-backend", "legacy_ddp")
    torch.distributed.destroy_process_group()


def test_two_ranks_are_one_with_twice_the_batch(corpus, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_rank, (port, str(corpus.folder), str(tmp_path)), nprocs=2)
    _, expected, _ = train(corpus.folder, tmp_path / "one", 3, "--batch-size", "6", *PLAIN)
    for backend in ("default", "legacy"):
        weights = torch.load(tmp_path / backend / "checkpoint_last.pt", weights_only=True)["model"]
        for name, value in expected.items():
            torch.testing.assert_close(
                weights[name], value, atol=1e-5, rtol=1e-4, msg=lambda m, n=f"{backend}: {name}": f"{n}: {m}"
            )


def test_a_bias_of_the_keys_has_no_effect():
    attention = CrossAttention(32, 16, 4, dropout=0.0).eval()
    biased = CrossAttention(32, 16, 4, dropout=0.0).eval()
    biased.key = nn.Linear(16, 32)
    biased.load_state_dict({**attention.state_dict(), "key.bias": torch.randn(32)})
    x, memory = torch.randn(2, 20, 32), torch.randn(2, 50, 16)
    for n in (20, 1):
        mask = torch.rand(2, n, 50) > 0.5
        torch.testing.assert_close(attention(x[:, :n], memory, mask), biased(x[:, :n], memory, mask))


def with_key_bias(state: dict, names: list[str]) -> dict:
    """A checkpoint as it was before the bias of the keys was dropped; ``names``: the parameters, in order."""
    weight = KEY_BIAS.replace("bias", "weight")
    model = {}
    for name, value in state["model"].items():
        model[name] = value
        if name == weight:
            model[KEY_BIAS] = torch.randn(value.size(0))
    at = names.index(weight) + 1
    old = state["last_optimizer_state"]
    entries = {number + (number >= at): entry for number, entry in old["state"].items()}
    entries[at] = {"step": 4, "exp_avg": torch.ones_like(model[KEY_BIAS]), "exp_avg_sq": torch.ones(32)}
    group = {**old["param_groups"][0], "params": list(range(len(names) + 1))}
    return {**state, "model": model, "last_optimizer_state": {"state": entries, "param_groups": [group]}}


def test_a_run_of_an_earlier_version_goes_on(corpus, tmp_path):
    options = ["--batch-size", "2"]
    whole, expected, _ = train(corpus.folder, tmp_path / "whole", 5, *options)
    _, _, trainer = train(corpus.folder, tmp_path / "parts", 3, *options)
    path = tmp_path / "parts" / "checkpoint_last.pt"
    names = [name for name, _ in trainer.model.named_parameters()]
    torch.save(with_key_bias(torch.load(path, weights_only=True), names), path)
    assert KEY_BIAS not in load_model(path).model.state_dict()
    second, weights, _ = train(corpus.folder, tmp_path / "parts", 2, *options)
    assert second == whole[3:]
    assert all(torch.equal(weights[name], value) for name, value in expected.items())


def test_flat_optimizer_states_of_earlier_versions():
    """As half precision on a GPU has them, followed by a parameter of the criterion."""
    weights = {"fbank.cmvn_mean": torch.ones(80), "a": torch.ones(2, 3), KEY_BIAS: torch.ones(4), "b": torch.ones(5)}
    flat = torch.cat([torch.full((6,), 1.0), torch.full((4,), 2.0), torch.full((5,), 3.0), torch.full((7,), 4.0)])
    optimizer = {"state": {0: {"step": 9, "exp_avg": flat}}, "param_groups": [{"params": [0]}], "loss_scale": 8}
    state = current_checkpoint({"model": weights, "last_optimizer_state": optimizer})
    assert list(state["model"]) == ["fbank.cmvn_mean", "a", "b"]
    assert state["last_optimizer_state"]["state"][0]["exp_avg"].tolist() == [1.0] * 6 + [3.0] * 5 + [4.0] * 7
    assert state["last_optimizer_state"]["state"][0]["step"] == 9 and state["last_optimizer_state"]["loss_scale"] == 8
    assert current_checkpoint(state) is state


def test_fp16_on_a_cpu_is_refused_in_one_line(corpus, tmp_path):
    with pytest.raises(SystemExit, match=r"^echostream: --fp16 needs a GPU; on a CPU train with --bf16, --amp or"):
        train(corpus.folder, tmp_path, 1, "--fp16")


def test_sentence_avg_divides_by_utterances(corpus, tmp_path):
    options = ["--batch-size", "3", *PLAIN]
    (by_units, *_), (by_utterances, *_) = (
        train(corpus.folder, tmp_path / str(len(extra)), 1, *options, *extra) for extra in ([], ["--sentence-avg"])
    )
    units = [len(line.split("\t")[3].split()) for line in (corpus.folder / "train.tsv").read_text().splitlines()[1:]]
    assert 3 * min(units) <= by_utterances[0] / by_units[0] * 3 <= 3 * max(units)
    assert by_utterances[0] > 1.5 * by_units[0]


def test_a_step_that_is_not_finite_names_its_utterances(corpus, tmp_path, caplog):
    _, _, trainer = train(corpus.folder, tmp_path, 1, "--batch-size", "2")
    dataset = trainer.task.dataset("train")
    batch = dataset.collater([dataset[1], dataset[4]])
    batch["net_input"]["src_tokens"][0] = float("nan")
    with caplog.at_level(logging.ERROR), pytest.raises(FloatingPointError):
        trainer.train_step([batch])
    errors = [record.getMessage() for record in caplog.records if record.name == "echostream.tasks.fairseq_faults"]
    assert errors == ["update 2: gradients are Nan/Inf; the utterances of this process were train_1, train_4"]
