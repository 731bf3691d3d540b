"""Whisper's weights, from the formats that others store them in, in the streaming encoder."""

import struct

import numpy as np
import pytest
import safetensors.torch
import torch

from echostream.checkpoints.errors import CheckpointError
from echostream.checkpoints.whisper_files import read_whisper, whisper_encoder
from echostream.evaluation.asr import find_model
from echostream.models import EchoStreamSpeechEncoder, architecture_config

DIM, FFN, LAYERS = 32, 64, 4


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
    for i in range(LAYERS):
        for name, shape in {
            "attn_ln": (DIM,),
            "attn.query": (DIM, DIM),
            "attn.key": (DIM, DIM),
            "attn.value": (DIM, DIM),
            "attn.out": (DIM, DIM),
            "mlp_ln": (DIM,),
            "mlp.0": (FFN, DIM),
            "mlp.2": (DIM, FFN),
        }.items():
            weights[f"encoder.blocks.{i}.{name}.weight"] = numbers(*shape)
            if name != "attn.key":
                weights[f"encoder.blocks.{i}.{name}.bias"] = numbers(shape[0])
    return weights


TRANSFORMERS = {
    "encoder.blocks": "model.encoder.layers",
    "attn_ln": "self_attn_layer_norm",
    "attn.query": "self_attn.q_proj",
    "attn.key": "self_attn.k_proj",
    "attn.value": "self_attn.v_proj",
    "attn.out": "self_attn.out_proj",
    "mlp_ln": "final_layer_norm",
    "mlp.0": "fc1",
    "mlp.2": "fc2",
    "encoder.ln_post": "model.encoder.layer_norm",
    "encoder.conv": "model.encoder.conv",
}
CTRANSLATE2 = {
    "encoder.blocks.": "encoder/layer_",
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
}


def renamed(name: str, names: dict[str, str]) -> str:
    for old, new in names.items():
        name = name.replace(old, new)
    return name


def write_ctranslate2(path, weights: dict[str, torch.Tensor]) -> None:
    joined = dict(weights)
    for i in range(LAYERS):
        for kind in ("weight", "bias"):
            parts = []
            for part in ("query", "key", "value"):
                tensor = joined.pop(f"encoder.blocks.{i}.attn.{part}.{kind}", None)
                parts.append(torch.zeros(DIM) if tensor is None else tensor)
            joined[f"encoder.blocks.{i}.attn.joined.{kind}"] = torch.cat(parts)

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
