"""Recordings whose right answer is nothing: empty texts and no units, where the data says that there may be some."""

import math

import pytest
from test_training import train


def empty(corpus, names: list[str]) -> None:
    def without_units(text: str) -> str:
        rows = [line.split("\t") for line in text.splitlines()]
        return "".join("\t".join([*row[:3], "", "0"] if row[0] in names else row) + "\n" for row in rows)

    def without_text(text: str) -> str:
        rows = [line.split("\t") for line in text.splitlines()]
        return "".join("\t".join([row[0], "" if row[0] in names else row[1]]) + "\n" for row in rows)

    corpus.edit("train.tsv", without_units)
    for side in ("source", "target"):
        corpus.edit(f"{side}/train.tsv", without_text)


def test_they_train_beside_others_and_alone(corpus, tmp_path):
    corpus.edit("config_gcmvn.yaml", lambda text: text + "allow_empty_targets: true\n")
    empty(corpus, ["train_0", "train_3", "train_4"])
    losses, _, _ = train(corpus.folder, tmp_path / "run", 12, "--batch-size", "1")  # some batches hold nothing else
    assert all(math.isfinite(loss) for loss in losses)
    together, _, _ = train(corpus.folder, tmp_path / "other", 8, "--batch-size", "6")
    assert together[-1] < together[0]


def test_they_are_refused_unless_the_data_says_so(corpus, tmp_path):
    empty(corpus, ["train_3"])
    with pytest.raises(SystemExit, match=r"train.tsv: line 5: tgt_n_frames is '0'"):
        train(corpus.folder, tmp_path / "run", 1)
    corpus.edit("config_gcmvn.yaml", lambda text: text + "allow_empty_targets: perhaps\n")
    with pytest.raises(SystemExit, match="allow_empty_targets is 'perhaps', neither true nor false"):
        train(corpus.folder, tmp_path / "run", 1)
