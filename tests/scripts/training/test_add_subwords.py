"""More of Whisper's subwords for a trained model: it can write them, and nothing else changes."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from checkpoints.test_whisper_files import SPECIALS, TOKENS, openai_weights
from model_files import save_model

from echostream.checkpoints.initialisation import EMBEDDING, read_source
from echostream.checkpoints.model_files import load_model, read_model, save_released
from echostream.streaming import StreamingTranslator
from echostream.text import WORD_MARK
from scripts.training import add_subwords


@pytest.fixture(scope="module")
def translator():
    return StreamingTranslator.random("echostream_tiny", seed=3)


@pytest.fixture
def files(translator, tmp_path):
    """A trained checkpoint, and a Whisper of its size."""
    save_model(translator, tmp_path)
    weights, dim = openai_weights(), translator.model.cfg.mt_dim
    weights["decoder.token_embedding.weight"] = torch.randn(len(TOKENS), dim)
    torch.save({"model_state_dict": weights}, tmp_path / "base.pt")
    table = {"model": {"vocab": {token: TOKENS[token] for token in TOKENS if token not in SPECIALS}}}
    table["added_tokens"] = [{"content": token, "id": TOKENS[token]} for token in SPECIALS]
    (tmp_path / "tokenizer.json").write_text(json.dumps(table), encoding="utf-8")
    return tmp_path


def run(monkeypatch, capsys, *options: object) -> str:
    monkeypatch.setattr(sys, "argv", ["add_subwords.py", *map(str, options)])
    add_subwords.main()
    return capsys.readouterr().out


@torch.no_grad()
def test_the_text_decoder_can_write_them_and_nothing_else_changes(translator, files, tmp_path, monkeypatch, capsys):
    output = tmp_path / "more.pt"
    options = [files / "checkpoint.pt", "--whisper", files / "base.pt", "--count", 2, "--output", output]
    assert "2 further subwords" in run(monkeypatch, capsys, *options)
    before, after = load_model(files / "checkpoint.pt"), load_model(output)
    known = len(before.target_symbols)
    new = [symbol for symbol in ("▁the", "▁caf", "s", "t") if symbol not in before.target_symbols][:2]
    assert after.target_symbols == [*before.target_symbols, *new]
    features, lengths = torch.randn(1, 120, 80), torch.tensor([120])
    one, other = (model.model.encode(features, lengths, segment=4) for model in (before, after))
    assert all(torch.equal(one[name], other[name]) for name in one), "encoder and CTC heads are as they were"
    memory, tokens = torch.randn(1, 9, before.model.cfg.encoder_dim), torch.tensor([[2, 5, 6]])
    (hidden, scores, _), (hidden_after, scores_after, _) = (m.model.mt_decoder(tokens, memory) for m in (before, after))
    torch.testing.assert_close(hidden_after, hidden)
    torch.testing.assert_close(scores_after[..., :known], scores)
    rows = torch.load(files / "base.pt")["model_state_dict"]["decoder.token_embedding.weight"]
    expected = rows[[TOKENS[symbol.replace("▁", "\u0120")] for symbol in new]]
    torch.testing.assert_close(scores_after[..., known:], hidden @ expected.T)


def test_a_release_keeps_them_and_plays(files, tmp_path, monkeypatch, capsys):
    output = tmp_path / "more.pt"
    run(monkeypatch, capsys, files / "checkpoint.pt", "--whisper", files / "base.pt", "--count", 2, "--output", output)
    save_released(read_model(output), tmp_path, "0", packed=True)
    model = load_model(tmp_path / "model.safetensors")
    assert len(model.target_symbols) == model.model.mt_decoder.embedding.num_embeddings
    player = StreamingTranslator(model.model, model.source_symbols, model.target_symbols, task="s2tt")
    state = player.init_state()
    player.step(torch.randn(16_000).mul(0.1).numpy(), state, is_last=True)


def test_words_are_spoken_as_if_written_in_the_subwords_of_the_training(files, tmp_path, monkeypatch, capsys):
    output = tmp_path / "more.pt"
    run(monkeypatch, capsys, files / "checkpoint.pt", "--whisper", files / "base.pt", "--count", 2, "--output", output)
    model = load_model(output)
    writer = StreamingTranslator(model.model, model.source_symbols, model.target_symbols, task="s2tt").writer
    known = [number for number, symbol in enumerate(writer.spoken_symbols) if symbol.startswith(WORD_MARK)][3:5]
    new = len(writer.spoken_symbols)
    rest = next(symbol for symbol in writer.spoken_symbols[4:] if not symbol.startswith(WORD_MARK))
    writer.symbols[new] = writer.symbols[known[0]] + rest
    letters = writer.splitter.split(writer.symbols[new].removeprefix(WORD_MARK))
    assert all(number < new for number in letters)
    state = writer.init_state()
    nothing = writer.model.mt_decoder.embedding.weight.new_zeros(1, 1, writer.model.cfg.encoder_dim)
    state = replace(state, span=replace(state.span, frames=nothing), num_frames=1)
    (first, second), _ = writer.write_given([[known[1]], [new]], state)
    (same, expected), _ = writer.write_given([[known[1]], letters], state)
    assert (first.units, second.units) == (same.units, expected.units) and second.text == expected.text
    monkeypatch.setattr(writer, "spoken_symbols", writer.symbols)
    (_, otherwise), _ = writer.write_given([[known[1]], [new]], state)
    assert otherwise.units != expected.units, "read as it is, it sounds otherwise"


def test_a_training_starts_from_such_a_release_without_them(translator, files, tmp_path, monkeypatch, capsys):
    output = tmp_path / "more.pt"
    run(monkeypatch, capsys, files / "checkpoint.pt", "--whisper", files / "base.pt", "--count", 2, "--output", output)
    save_released(read_model(output), tmp_path, "0")
    source = read_source(tmp_path / "model.safetensors")
    assert source.task_state["target_symbols"] == list(translator.writer.symbols)
    assert source.tensors[EMBEDDING].equal(translator.model.mt_decoder.embedding.weight)


def test_what_does_not_fit_is_one_line(files, tmp_path, monkeypatch, capsys):
    output = tmp_path / "more.pt"
    options = ["--whisper", files / "base.pt", "--output", output]
    with pytest.raises(SystemExit, match=r"base\.pt has \d further subwords, not 500"):
        run(monkeypatch, capsys, files / "checkpoint.pt", *options, "--count", 500)
    assert not output.exists()
    run(monkeypatch, capsys, files / "checkpoint.pt", *options, "--count", 1)
    with pytest.raises(SystemExit, match=r"more\.pt: it has 1 further subwords already"):
        run(monkeypatch, capsys, output, *options, "--count", 1)
    torch.save({"model_state_dict": openai_weights()}, files / "base.pt")
    with pytest.raises(SystemExit, match="its text decoder has the size"):
        run(monkeypatch, capsys, files / "checkpoint.pt", *options, "--count", 1)
    with pytest.raises(SystemExit):
        run(monkeypatch, capsys, files / "checkpoint.pt", *options, "--count", 0)
    assert "--count is 0" in capsys.readouterr().err
