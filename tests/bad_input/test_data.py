"""Manifests with an invalid row at any place, and the other files of a data folder."""

from __future__ import annotations

import numpy as np
import pytest
import sentencepiece
from cases import CONFIGS, LINES, ROWS

from echostream.tasks import EchoStreamTask, EchoStreamTaskConfig


def load(corpus) -> None:
    cfg = {"data": str(corpus.folder), "seed": 1, "train_subset": "train", "num_units": 20}
    EchoStreamTask.setup_task(EchoStreamTaskConfig(**cfg)).load_dataset("train")


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("name", ROWS)
def test_error_names_row_and_line(name, line, corpus):
    column, value, message = ROWS[name]
    lines = (corpus.folder / "train.tsv").read_text(encoding="utf-8").split("\n")
    if name == "id used twice" and line == 2:
        # The first use is valid; the message must name the second one.
        value, line = lines[1].split("\t")[0], 3
    fields = lines[line - 1].split("\t")
    fields[column] = value
    lines[line - 1] = "\t".join(fields)
    (corpus.folder / "train.tsv").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        load(corpus)
    said = str(ended.value)
    assert said.startswith(f"echostream: {corpus.folder}/train.tsv: line {line}: ")
    assert message in said and "\n" not in said


@pytest.mark.parametrize("name", CONFIGS)
def test_error_names_config_and_remedy(name, corpus):
    file, old, new, message = CONFIGS[name]
    np.savez(corpus.folder / "narrow.npz", mean=np.zeros(40), std=np.ones(40))
    (corpus.folder / "cut.npz").write_bytes((corpus.folder / "gcmvn.npz").read_bytes()[:300])
    if "other.model" in new:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["кот и пёс", "дом у моря"] * 9),
            model_prefix=str(corpus.folder / "other"),
            vocab_size=16,
            minloglevel=2,
        )
    if name == "dictionary of another text":
        corpus.edit(file, lambda text: text.replace(old, new))
    else:
        corpus.replace(file, old, new)
    with pytest.raises(SystemExit) as ended:
        load(corpus)
    said = str(ended.value)
    assert said.startswith("echostream: ") and message in said and "\n" not in said
