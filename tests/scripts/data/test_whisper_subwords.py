"""Whisper's subwords as a SentencePiece model: the same pieces, cut down to what a text uses."""

import json

import pytest

from scripts.data.whisper_subwords import prune_whisper_subwords

LINES = ["the cat sat on the mat.", "the cats sat.", "A hat, a cat!", "Un café."] * 20
# In the order in which they are merged, as byte-level tokens.
MERGES = ["Ġ t", "h e", "Ġt he", "a t", "Ġ c", "Ġc at", "Ġ s", "Ġs at", "Ġcat s", "Ã ©", "Ġm at"]


@pytest.fixture
def tokenizer(tmp_path):
    tokens = [*map(chr, range(33, 127)), "Ġ", "Ã", "©", *(merge.replace(" ", "") for merge in MERGES), "Ġin Ġfull"]
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"model": {"vocab": {t: n for n, t in enumerate(tokens)}, "merges": MERGES}}))
    return path


def test_pieces_are_those_that_byte_pair_encoding_gives(tokenizer, tmp_path):
    model = prune_whisper_subwords(LINES, tokenizer, tmp_path / "all", 200)
    assert model.encode("the cats sat.", out_type=str) == ["▁the", "▁cats", "▁sat", "."]
    assert model.encode("A hat, café", out_type=str) == ["▁", "A", "▁", "h", "at", ",", "▁c", "a", "f", "é"]
    assert model.decode(model.encode("A hat, the café!")) == "A hat, the café!"


def test_rare_pieces_are_written_in_those_they_were_merged_from(tokenizer, tmp_path):
    few = prune_whisper_subwords(LINES, tokenizer, tmp_path / "few", 4 + 18 + 2)
    names = (tmp_path / "few" / "dict.txt").read_text().splitlines()
    assert {"▁the 1", "▁cat 1"} < set(names)
    assert "▁cats 1" not in names
    assert few.encode("the cats", out_type=str) == ["▁the", "▁cat", "s"]
    # Numbers are those of fairseq's dictionary, behind its four symbols; every character of the text is known.
    assert [f"{few.id_to_piece(n)} 1" for n in range(4, 4 + len(names))] == names
    assert few.unk_id() not in [n for line in LINES for n in few.encode(line)]
    assert max(n for line in LINES for n in few.encode(line)) < 4 + len(names)
