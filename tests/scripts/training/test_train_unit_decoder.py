"""The unit decoder is trained alone: it learns, nothing else changes, and the checkpoint stays one."""

from __future__ import annotations

import sys

import pytest
import torch
from fairseq import checkpoint_utils
from tasks.conftest import corpus  # noqa: F401  # a fixture
from tasks.test_training import train

from echostream.checkpoints.model_files import load_model
from scripts.training import train_unit_decoder
from scripts.training.train_unit_decoder import load_task, loss_of, text_states


@pytest.fixture
def checkpoint(corpus, tmp_path):  # noqa: F811
    train(corpus.folder, tmp_path / "run", 1, "--batch-size", "3")
    return tmp_path / "run" / "checkpoint_last.pt"


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*options: object) -> str:
        monkeypatch.setattr(sys, "argv", ["train_unit_decoder.py", *map(str, options)])
        train_unit_decoder.main()
        return capsys.readouterr().out

    return call


def test_only_the_unit_decoder_learns(corpus, checkpoint, tmp_path, run):  # noqa: F811
    output = tmp_path / "units.pt"
    options = ["--checkpoint", checkpoint, "--data", corpus.folder, "--output", output, "--threads", "1"]
    assert "6 utterances" in run(*options, "--minutes", "0.05", "--lr", "0.02")
    model, task = load_task(checkpoint, corpus.folder)
    utterances = text_states(model, task, 0, 10_000)
    before, units = loss_of(model, utterances)
    assert units == sum(len(row) for _, _, row in utterances) > 0
    (trained,), _, _ = checkpoint_utils.load_model_ensemble_and_task([str(output)], {"data": str(corpus.folder)})
    after, _ = loss_of(trained.eval(), utterances)
    assert float(after) < 0.9 * float(before)
    first, second = (load_model(path).model.state_dict() for path in (checkpoint, output))
    changed = {name.split(".")[0] for name in first if not torch.equal(first[name], second[name])}
    assert changed == {"unit_decoder"}
    assert "last_optimizer_state" not in torch.load(output, weights_only=True)
    again = tmp_path / "again.pt"
    options[options.index(output)] = again
    run(*options, "--minutes", "0.001", "--lr", "1e-9", "--start-from", output)
    for name, value in load_model(again).model.unit_decoder.state_dict().items():
        torch.testing.assert_close(value, trained.unit_decoder.state_dict()[name], rtol=0, atol=1e-5)


def test_states_are_those_of_training(corpus, checkpoint):  # noqa: F811
    """Whatever batch an utterance is in, and as many tokens and units as it has."""
    model, task = load_task(checkpoint, corpus.folder)
    alone, together = (text_states(model, task, 0, size) for size in (1, 10_000))
    assert [len(row[0]) for row in alone] == [len(row[1]) for row in alone]
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one[0], other[0], rtol=0, atol=2e-3)  # half precision
        assert torch.equal(one[1], other[1]) and torch.equal(one[2], other[2])
    loss, _ = loss_of(model, together)
    assert sum(float(loss_of(model, [row])[0]) for row in alone) == pytest.approx(float(loss), rel=1e-3)
    assert len(text_states(model, task, 2, 10_000)) == 2


def test_sentences_are_read_alone_as_well_if_not_all_are_heard(corpus, checkpoint):  # noqa: F811
    model, task = load_task(checkpoint, corpus.folder)
    data = task.dataset("train")
    heard = text_states(model, task, 0, 10_000)
    some = text_states(model, task, 0, 10_000, heard=2)
    sentences = {data.target_texts[index].tobytes() for index in range(len(data)) if len(data.utterances[index].units)}
    assert len(some) == 2 + len(sentences)
    for states, _, _ in some[:2]:
        assert any(torch.allclose(states, other, atol=2e-3) for other, _, _ in heard if other.shape == states.shape)
    # Read alone, a sentence has the states that a text to be spoken has: over one frame of zeros.
    for index in range(len(data)):
        target = data[index].target_text[None]
        hidden, _, _ = model.mt_decoder(target.roll(1, 1), torch.zeros(1, 1, model.cfg.encoder_dim))
        expected = model.text_states(hidden, target)[0].half()
        close = [
            torch.allclose(states, expected, atol=2e-3) for states, _, _ in some[2:] if len(states) == len(expected)
        ]
        assert any(close)


def test_what_can_not_be_trained_is_named(corpus, checkpoint, tmp_path, run):  # noqa: F811
    options = ["--output", tmp_path / "units.pt", "--minutes", "0.01"]
    with pytest.raises(SystemExit, match=r"error: .*nowhere"):
        run("--checkpoint", tmp_path / "nowhere.pt", "--data", corpus.folder, *options)
    with pytest.raises(SystemExit, match=r"echostream: .*elsewhere: no such data folder"):
        run("--checkpoint", checkpoint, "--data", tmp_path / "elsewhere", *options)
    other = tmp_path / "other.pt"
    state = torch.load(checkpoint, weights_only=True)
    del state["model"]["unit_decoder.slot"]
    torch.save(state, other)
    with pytest.raises(SystemExit, match=r"error: .*other.pt has no unit decoder of the sizes"):
        run("--checkpoint", checkpoint, "--data", corpus.folder, *options, "--start-from", other)
    assert not (tmp_path / "units.pt").exists()
