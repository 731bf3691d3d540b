"""Whisper's weights, from the formats that others store them in, in the streaming encoder."""

import re
import struct

import numpy as np
import pytest
import safetensors.torch
import torch

from echostream.checkpoints.errors import CheckpointError
from echostream.checkpoints.whisper_files import read_whisper, read_whisper_tokens
from echostream.checkpoints.whisper_names import byte_characters, further_subwords, whisper_decoder, whisper_encoder
from echostream.evaluation.asr import find_model
from echostream.models import EchoStreamSpeechEncoder, architecture_config
from echostream.models.mt_decoder import TransformerMTDecoder

DIM, FFN, LAYERS = 32, 64, 4
WORDS = ["\u0120the", "\u0120caf", "\u00c3", "\u00a9", "\u00c3\u00a9", "s", "t"]  # bytes as Whisper writes them
SPECIALS = ["<|endoftext|>", "<|startoftranscript|>", "<|fr|>", "<|haw|>", "<|translate|>", "<|notimestamps|>"]
TOKENS = {token: number for number, token in enumerate([*WORDS, *SPECIALS])}
ATTENTION = {"query": (DIM, DIM), "key": (DIM, DIM), "value": (DIM, DIM), "out": (DIM, DIM)}


def openai_weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def numbers(*shape: int) -> torch.Tensor:
        return (torch.randn(*shape, generator=generator) * 0.1).half().float()

    weights = {
        "encoder.conv1.weight": numbers(DIM, 80, 3),
        "encoder.conv1.bias": numbers(DIM),
        "encoder.conv2.weight": numbers(DIM, DIM, 3),
        "encoder.conv2.bias": numbers(DIM),
        "encoder.ln_post.weight": numbers(DIM),
        "encoder.ln_post.bias": numbers(DIM),
    }
    weights |= {
        "decoder.token_embedding.weight": numbers(len(TOKENS), DIM),
        "decoder.positional_embedding": numbers(448, DIM),
        "decoder.ln.weight": numbers(DIM),
        "decoder.ln.bias": numbers(DIM),
    }
    parts = {"attn_ln": (DIM,), "mlp_ln": (DIM,), "mlp.0": (FFN, DIM), "mlp.2": (DIM, FFN)}
    parts |= {f"attn.{name}": shape for name, shape in ATTENTION.items()}
    cross = {"cross_attn_ln": (DIM,)} | {f"cross_attn.{name}": shape for name, shape in ATTENTION.items()}
    for stack, of in (("encoder", parts), ("decoder", parts | cross)):
        for i in range(LAYERS):
            for name, shape in of.items():
                weights[f"{stack}.blocks.{i}.{name}.weight"] = numbers(*shape)
                if not name.endswith("attn.key"):
                    weights[f"{stack}.blocks.{i}.{name}.bias"] = numbers(shape[0])
    return weights


TRANSFORMERS = {
    "encoder.blocks": "model.encoder.layers",
    "decoder.blocks": "model.decoder.layers",
    ".cross_attn_ln": ".encoder_attn_layer_norm",
    ".attn_ln": ".self_attn_layer_norm",
    ".cross_attn.": ".encoder_attn.",
    ".attn.": ".self_attn.",
    "_attn.query": "_attn.q_proj",
    "_attn.key": "_attn.k_proj",
    "_attn.value": "_attn.v_proj",
    "_attn.out": "_attn.out_proj",
    "mlp_ln": "final_layer_norm",
    "mlp.0": "fc1",
    "mlp.2": "fc2",
    "encoder.ln_post": "model.encoder.layer_norm",
    "encoder.conv": "model.encoder.conv",
    "decoder.token_embedding": "model.decoder.embed_tokens",
    "decoder.positional_embedding": "model.decoder.embed_positions.weight",
    "decoder.ln": "model.decoder.layer_norm",
}
CTRANSLATE2 = {
    "encoder.blocks.": "encoder/layer_",
    "decoder.blocks.": "decoder/layer_",
    ".cross_attn_ln.weight": "/attention/layer_norm/gamma",
    ".cross_attn_ln.bias": "/attention/layer_norm/beta",
    ".cross_attn.query.": "/attention/linear_0/",
    ".cross_attn.joined.": "/attention/linear_1/",
    ".cross_attn.out.": "/attention/linear_2/",
    ".attn_ln.weight": "/self_attention/layer_norm/gamma",
    ".attn_ln.bias": "/self_attention/layer_norm/beta",
    ".attn.joined.": "/self_attention/linear_0/",
    ".attn.out.": "/self_attention/linear_1/",
    ".mlp_ln.weight": "/ffn/layer_norm/gamma",
    ".mlp_ln.bias": "/ffn/layer_norm/beta",
    ".mlp.0.": "/ffn/linear_0/",
    ".mlp.2.": "/ffn/linear_1/",
    "encoder.ln_post.weight": "encoder/layer_norm/gamma",
    "encoder.ln_post.bias": "encoder/layer_norm/beta",
    "encoder.conv1.": "encoder/conv1/",
    "encoder.conv2.": "encoder/conv2/",
    "decoder.token_embedding.": "decoder/embeddings/",
    "decoder.positional_embedding": "decoder/position_encodings/encodings",
    "decoder.ln.weight": "decoder/layer_norm/gamma",
    "decoder.ln.bias": "decoder/layer_norm/beta",
}


def renamed(name: str, names: dict[str, str]) -> str:
    for old, new in names.items():
        name = name.replace(old, new)
    return name


def write_ctranslate2(path, weights: dict[str, torch.Tensor]) -> None:
    joined = dict(weights)
    stacks = (
        ("encoder", "attn", ("query", "key", "value")),
        ("decoder", "attn", ("query", "key", "value")),
        ("decoder", "cross_attn", ("key", "value")),
    )
    for stack, attention, names in stacks:
        for i in range(LAYERS):
            for kind in ("weight", "bias"):
                parts = []
                for part in names:
                    tensor = joined.pop(f"{stack}.blocks.{i}.{attention}.{part}.{kind}", None)
                    parts.append(torch.zeros(DIM) if tensor is None else tensor)
                joined[f"{stack}.blocks.{i}.{attention}.joined.{kind}"] = torch.cat(parts)

    def text(value: str) -> bytes:
        data = value.encode() + b"\0"
        return struct.pack("<H", len(data)) + data

    with path.open("wb") as file:
        file.write(struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, len(joined)))
        for name, tensor in joined.items():
            data = tensor.numpy().astype(np.float16).tobytes()
            file.write(text(renamed(name, CTRANSLATE2)) + struct.pack("<B", tensor.dim()))
            file.write(struct.pack("<" + "I" * tensor.dim(), *tensor.shape))
            file.write(struct.pack("<BI", 4, len(data)) + data)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, weights = tmp_path_factory.mktemp("whisper"), openai_weights()
    torch.save({"dims": {"n_mels": 80}, "model_state_dict": weights}, folder / "base.pt")
    safetensors.torch.save_file(
        {renamed(name, TRANSFORMERS): tensor for name, tensor in weights.items()}, folder / "model.safetensors"
    )
    write_ctranslate2(folder / "model.bin", weights)
    return folder


def small_encoder(layers: int = LAYERS) -> EchoStreamSpeechEncoder:
    cfg = architecture_config("echostream_whisper_base")
    cfg.encoder_dim, cfg.encoder_layers, cfg.encoder_heads, cfg.encoder_ffn_dim = DIM, layers, 2, FFN
    return EchoStreamSpeechEncoder(cfg).eval()


@pytest.mark.parametrize("name", ["base.pt", "model.safetensors", "model.bin", "."])
@torch.no_grad()
def test_three_formats_fill_the_encoder_alike(files, name):
    encoder, reference = small_encoder(), small_encoder()
    encoder.load_state_dict(whisper_encoder(read_whisper(files / name), LAYERS))
    reference.load_state_dict(whisper_encoder(openai_weights(), LAYERS))
    x = torch.randn(1, 60, 80)
    torch.testing.assert_close(encoder(x)[0], reference(x)[0])


def small_decoder(symbols: list[str], prompt_tokens: int = 3) -> TransformerMTDecoder:
    return TransformerMTDecoder(
        len(symbols), 1, DIM, DIM, LAYERS, 2, FFN, 64, 500, 0.0, "gelu", True, False, prompt_tokens, languages=2
    ).eval()


SYMBOLS = ["<s>", "<pad>", "</s>", "<unk>", "\u2581the", "\u00e9", "st"]


@pytest.mark.parametrize("name", ["base.pt", "model.safetensors", "model.bin"])
@torch.no_grad()
def test_three_formats_fill_the_text_decoder_alike(files, name):
    decoder, reference = small_decoder(SYMBOLS), small_decoder(SYMBOLS)
    found, absent = whisper_decoder(read_whisper(files / name), TOKENS, SYMBOLS, 2)
    decoder.load_state_dict(found)
    reference.load_state_dict(whisper_decoder(openai_weights(), TOKENS, SYMBOLS, 2)[0])
    tokens, memory = torch.tensor([[2, 4, 5, 6]]), torch.randn(1, 30, DIM)
    for ours, expected in zip(decoder(tokens, memory)[:2], reference(tokens, memory)[:2], strict=True):
        torch.testing.assert_close(ours, expected)
    assert absent == ["st"]


def test_subwords_take_their_embeddings_and_unknown_ones_the_mean_of_their_bytes():
    weights = openai_weights()
    embedding = weights["decoder.token_embedding.weight"]
    rows = whisper_decoder(weights, TOKENS, SYMBOLS, 2)[0]["embedding.weight"]
    assert rows[4].equal(embedding[TOKENS["\u0120the"]])
    assert rows[5].equal(embedding[TOKENS["\u00c3\u00a9"]])
    torch.testing.assert_close(rows[6], embedding[[TOKENS["s"], TOKENS["t"]]].mean(0))
    assert rows[2].equal(embedding[TOKENS["<|endoftext|>"]])
    assert not rows[[0, 1, 3]].any()
    assert byte_characters("\u2581caf\u00e9") == "\u0120caf\u00c3\u00a9"


def test_further_subwords_are_those_of_ascii_that_are_not_known_in_whispers_order():
    weights = openai_weights()
    names = [token for token in TOKENS if re.fullmatch("\u0120?[!-~]+", token) and not token.startswith("<|")]
    symbols, rows = further_subwords(weights, TOKENS, SYMBOLS, len(names) - 1)
    expected = [token for token in names if token != "\u0120the"]
    assert symbols == [token.replace("\u0120", "\u2581") for token in expected] and len(symbols) > 2
    assert rows.equal(weights["decoder.token_embedding.weight"][[TOKENS[token] for token in expected]])
    assert further_subwords(weights, TOKENS, SYMBOLS, 1)[0] == symbols[:1]
    with pytest.raises(ValueError, match=f"the file has {len(names) - 1} further subwords, not 1000"):
        further_subwords(weights, TOKENS, SYMBOLS, 1000)
    with pytest.raises(CheckpointError, match="not those of its 3 embeddings"):
        further_subwords({**weights, "decoder.token_embedding.weight": torch.zeros(3, DIM)}, TOKENS, SYMBOLS, 1)


@pytest.mark.parametrize(("language", "first"), [("fr", "<|fr|>"), ("haw", "<|haw|>")])
def test_the_languages_are_those_of_the_tokens_the_source_first(language, first):
    weights = openai_weights()
    embedding = weights["decoder.token_embedding.weight"]
    other = ({"<|fr|>", "<|haw|>"} - {first}).pop()
    rows = whisper_decoder(weights, TOKENS, SYMBOLS, 2, language=language)[0]["languages"]
    assert rows.equal(embedding[[TOKENS[first], TOKENS[other]]])


def test_languages_without_a_prompt_to_ask_for_them_are_refused():
    with pytest.raises(ValueError, match="mt_prompt_tokens"):
        small_decoder(SYMBOLS, prompt_tokens=0)
    decoder = TransformerMTDecoder(len(SYMBOLS), 1, DIM, DIM, 1, 2, FFN, 64, 500)
    with pytest.raises(ValueError, match="mt_languages is 0"):
        decoder.language(torch.zeros(1, 3, DIM))


@torch.no_grad()
def test_the_first_input_is_the_last_of_the_prompt():
    weights = openai_weights()
    decoder = small_decoder(SYMBOLS)
    decoder.load_state_dict(whisper_decoder(weights, TOKENS, SYMBOLS, 2)[0])
    start = decoder._input(torch.tensor([[2]]), decoder.init_state())[0, 0]
    embedding, positions = weights["decoder.token_embedding.weight"], weights["decoder.positional_embedding"]
    torch.testing.assert_close(start, embedding[TOKENS["<|notimestamps|>"]] + positions[3])
    assert int(decoder.init_state().position) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"language": "zz"}, "don't know 'zz'"),
        ({"tokens": {**TOKENS, "more": len(TOKENS)}}, "are not those of its 13 embeddings"),
        ({"layers": 5}, "has 4 decoder layers, the model 5"),
        ({"weights": {}}, "no weights of Whisper's decoder"),
    ],
)
def test_a_decoder_that_cannot_be_filled_is_one_clear_message(change, message):
    arguments = {"weights": openai_weights(), "tokens": TOKENS, "symbols": SYMBOLS, "end": 2} | change
    with pytest.raises(CheckpointError, match=message):
        whisper_decoder(**arguments)


@pytest.mark.parametrize("text", [None, "{", "[]", '{"model": {"vocab": {"a": "b"}}, "added_tokens": []}'])
def test_tokens_that_cannot_be_read_are_one_clear_message(tmp_path, text):
    if text is not None:
        (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        read_whisper_tokens(tmp_path / "model.bin")


def test_fewer_layers_are_evenly_spaced_and_end_with_the_last():
    weights = openai_weights()
    half = whisper_encoder(weights, 2)
    for ours, theirs in ((0, 1), (1, 3)):
        kept = half[f"emformer.layers.{ours}.ffn_in.weight"]
        assert kept.equal(weights[f"encoder.blocks.{theirs}.mlp.0.weight"])
    small_encoder(2).load_state_dict(half)


def test_more_layers_than_there_are_is_one_clear_message():
    with pytest.raises(CheckpointError, match="has 4 encoder layers, the model 6"):
        whisper_encoder(openai_weights(), 6)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is no Whisper model of CTranslate2, or cut short"),
        (struct.pack("<I", 99), "format 99"),
        (struct.pack("<IH", 6, 60_000), "a name of 60000 bytes"),
        (struct.pack("<IHII", 6, 0, 3, 4_000_000_000), "4000000000 variables"),
        (
            struct.pack("<IHIIH", 6, 0, 3, 1, 2) + b"w\0" + struct.pack("<BIBI", 1, 10**9, 4, 2 * 10**9),
            "w of type 4 with 2000000000 bytes",
        ),
    ],
)
def test_a_damaged_file_is_one_clear_message_and_takes_no_memory(tmp_path, data, message):
    path = tmp_path / "model.bin"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=message):
        read_whisper(path)


def test_a_file_cut_short_anywhere_is_refused(files, tmp_path):
    data = (files / "model.bin").read_bytes()
    path = tmp_path / "model.bin"
    for size in range(0, len(data) - 1, len(data) // 40):
        path.write_bytes(data[:size])
        with pytest.raises(CheckpointError):
            read_whisper(path)


def test_another_model_is_refused(tmp_path):
    torch.save({"model_state_dict": {"layer.weight": torch.zeros(2)}}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="no weights of Whisper's encoder"):
        whisper_encoder(read_whisper(tmp_path / "other.pt"), 2, "other.pt")
    with pytest.raises(CheckpointError, match="cannot read"):
        read_whisper(tmp_path / "missing.pt")


@torch.no_grad()
def test_whisper_base_gives_what_ctranslate2_gives():
    whisper = pytest.importorskip("faster_whisper")
    path = find_model("base")
    weights = read_whisper(path)
    encoder = EchoStreamSpeechEncoder(architecture_config("echostream_whisper_base")).eval()
    encoder.load_state_dict(whisper_encoder(weights, 6))
    assert encoder.positions is not None
    # The file holds the table of positions rounded to half precision; the encoder computes it.
    table = weights["encoder/position_encodings/encodings"]
    torch.testing.assert_close(encoder.positions.table, table, rtol=0, atol=5e-4)
    encoder.positions.table.copy_(table)
    wave = np.random.default_rng(0).normal(size=16_000 * 3).astype(np.float32) * 0.1
    model = whisper.WhisperModel(str(path), device="cpu", compute_type="float32", cpu_threads=2)
    mel = model.feature_extractor(wave)[:, :3000]
    expected = torch.from_numpy(np.asarray(model.encode(np.ascontiguousarray(mel))))
    ours, _, _ = encoder(torch.from_numpy(mel.T.copy())[None])
    assert (ours - expected).abs().max() < 1e-4 * expected.abs().max()

    # The text decoder, with all tokens and the prompt as it is: the log-probabilities of whatever is written.
    tokens = read_whisper_tokens(path)
    prompt = [tokens[token] for token in ("<|startoftranscript|>", "<|fr|>", "<|translate|>", "<|notimestamps|>")]
    result = model.model.generate(
        ctranslate2_storage(expected), [prompt], beam_size=1, max_length=12, suppress_tokens=[], suppress_blank=False,
        return_logits_vocab=True,
    )[0]  # fmt: skip
    decoder = TransformerMTDecoder(51865, 1, 512, 512, 6, 8, 2048, 448, 1500, 0.0, "gelu", True, False).eval()
    filled = whisper_decoder(weights, tokens, ["<s>", "<pad>", "</s>"], 2)[0]
    filled["embedding.weight"] = weights["decoder/embeddings/weight"]
    filled["positions.weight"] = weights["decoder/position_encodings/encodings"]
    beside = ("prompt", "languages")
    decoder.load_state_dict({name: value for name, value in filled.items() if not name.startswith(beside)})
    written = result.sequences_ids[0]
    _, logits, _ = decoder(torch.tensor([[*prompt, *written[:-1]]]), expected)
    scores = logits[0, len(prompt) - 1 :].log_softmax(dim=-1)
    theirs = torch.stack([torch.from_numpy(np.asarray(step).reshape(-1)) for step in result.logits[0]])
    assert (scores - theirs[: len(scores)].log_softmax(dim=-1)).abs().max() < 1e-3
    assert scores.argmax(dim=-1).tolist() == written

    # The language, which it tells without any of that prompt but the first.
    ours = TransformerMTDecoder(
        3, 1, 512, 512, 6, 8, 2048, 448, 1500, 0.0, "gelu", True, False, prompt_tokens=3, languages=99
    )
    ours.load_state_dict(whisper_decoder(weights, tokens, ["<s>", "<pad>", "</s>"], 2)[0])
    told = dict(model.model.detect_language(ctranslate2_storage(expected))[0])
    assert len(told) == 99
    assert float(ours.eval().language(expected)) == pytest.approx(np.log(told["<|fr|>"]), abs=1e-3)


def ctranslate2_storage(frames: torch.Tensor):
    import ctranslate2

    return ctranslate2.StorageView.from_array(frames.numpy())
