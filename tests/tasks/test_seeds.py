"""Reproducible training: weights, dropout, masks, batches and segment sizes are determined by ``--seed``."""

import torch
from test_training import train


def test_equal_seeds_give_equal_weights_and_other_seeds_do_not(corpus, tmp_path):
    options = ["--batch-size", "2", "--dropout", "0.3"]
    losses, weights, _ = train(corpus.folder, tmp_path / "one", 4, *options, "--seed", "7")
    torch.rand(10)  # earlier draws in this process must not matter
    same_losses, same, _ = train(corpus.folder, tmp_path / "two", 4, *options, "--seed", "7")
    assert losses == same_losses
    assert all(torch.equal(weights[name], value) for name, value in same.items())
    other_losses, other, _ = train(corpus.folder, tmp_path / "three", 4, *options, "--seed", "8")
    assert losses != other_losses and not all(torch.equal(weights[name], value) for name, value in other.items())
