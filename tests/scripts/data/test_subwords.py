"""Subword models: their ids are those of fairseq's dictionary, and they can be taken from another folder."""

import pytest
from fairseq.data import Dictionary

from scripts.data.subwords import borrow_subwords, train_subwords

LINES = ["the cat sat on the mat", "the dog sat on the log", "a cat and a dog"]


def test_ids_are_those_of_the_dictionary(tmp_path):
    model = train_subwords(LINES, tmp_path, 40)
    symbols = Dictionary.load(str(tmp_path / "dict.txt"))
    assert [symbols[i] for i in range(len(symbols))] == [model.id_to_piece(i) for i in range(model.get_piece_size())]
    assert [model.decode(model.encode(line)) for line in LINES] == LINES


def test_borrowed_models_are_the_same(tmp_path):
    model = train_subwords(LINES, tmp_path / "a", 40)
    assert borrow_subwords(tmp_path / "a", tmp_path / "b").encode(LINES) == model.encode(LINES)
    with pytest.raises(SystemExit, match="give the folder of a data set or of a model"):
        borrow_subwords(tmp_path / "none", tmp_path / "c")
