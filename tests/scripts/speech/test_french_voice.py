"""The engines of the French voice: a quantised model turned back into floats, and both reading the same sentence."""

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from scripts.data.fbank_archive import log_mel
from scripts.speech import french_voice
from scripts.speech.audio import read_speech, write_speech
from scripts.speech.french_phones import duration_engine, phones_of
from scripts.speech.onnx_floats import to_floats
from scripts.speech.voice_variation import Manner

TABLE = Path(__file__).resolve().parents[3] / "scripts/recipes/quickstart/voices/ff_siwis.npy"
needs_voice = pytest.mark.skipif(
    any(find_spec(package) is None for package in (*french_voice.PACKAGES, *french_voice.ENGINES["openvino"])),
    reason="needs pip install -e '.[data]'",
)


def outputs(model: bytes, inputs: dict[str, np.ndarray]) -> np.ndarray:
    onnxruntime = pytest.importorskip("onnxruntime")
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, inputs)[0]


def small_model(seed: int) -> bytes:
    """Convolution with and without bias, recurrent layer both ways, matrix product: `x (1, 6, T)` -> `y (T, 1, 5)`."""
    onnx = pytest.importorskip("onnx")
    generator, helper = np.random.default_rng(seed), onnx.helper
    shapes = {"conv_w": (8, 6, 3), "conv_b": (8,), "bare_w": (8, 8, 1), "w": (2, 16, 8), "r": (2, 16, 4), "b": (2, 32)}
    weights = {name: generator.normal(size=shape).astype(np.float32) / 2 for name, shape in shapes.items()}
    weights |= {"product": generator.normal(size=(8, 5)).astype(np.float32), "shape": np.array([0, 0, -1])}
    nodes = [
        helper.make_node("Conv", ["x", "conv_w", "conv_b"], ["a"], name="conv", pads=[1, 1]),
        helper.make_node("LeakyRelu", ["a"], ["a1"], name="relu"),
        helper.make_node("Conv", ["a1", "bare_w"], ["c"], name="bare"),
        helper.make_node("Transpose", ["c"], ["t"], name="transpose", perm=[2, 0, 1]),
        helper.make_node("LSTM", ["t", "w", "r", "b"], ["l"], name="lstm", hidden_size=4, direction="bidirectional"),
        helper.make_node("Transpose", ["l"], ["l1"], name="transpose2", perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["l1", "shape"], ["l2"], name="reshape"),
        helper.make_node("MatMul", ["l2", "product"], ["y"], name="product"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 6, "T"])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["T", 1, 5])],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def stretched(features: np.ndarray) -> np.ndarray:
    """Log-mel features `(frames, 80)` brought to 100 frames."""
    frames = np.linspace(0, len(features) - 1, 100)
    return np.stack([np.interp(frames, np.arange(len(features)), column) for column in features.T])


def test_floats_give_what_8_bits_gave(tmp_path):
    onnx, quantization = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime.quantization")
    original = small_model(0)
    (tmp_path / "model.onnx").write_bytes(original)
    quantization.quantize_dynamic(
        tmp_path / "model.onnx",
        tmp_path / "quantised.onnx",
        op_types_to_quantize=["Conv", "MatMul", "LSTM"],
        weight_type=quantization.QuantType.QUInt8,
    )
    quantised = (tmp_path / "quantised.onnx").read_bytes()
    kinds = [node.op_type for node in onnx.load_model_from_string(quantised).graph.node]
    assert kinds.count("ConvInteger") == 2 and "MatMulInteger" in kinds and "DynamicQuantizeLSTM" in kinds

    floats = to_floats(quantised)
    left = {node.op_type for node in onnx.load_model_from_string(floats).graph.node}
    assert {"Conv", "MatMul", "LSTM"} <= left and not any("Integer" in kind or "Quantize" in kind for kind in left)
    inputs = {"x": np.random.default_rng(1).normal(size=(1, 6, 30)).astype(np.float32)}
    expected, found = outputs(quantised, inputs), outputs(floats, inputs)
    scale = np.abs(expected).max()
    assert found.shape == expected.shape == (30, 1, 5)
    # 8 bits of the inputs of four layers are lost in one and not in the other: some half per cent each.
    assert np.abs(found - expected).max() < 0.03 * scale
    # The weights are the quantised ones, not the original's.
    assert np.abs(found - outputs(original, inputs)).max() > 1e-4 * scale


@needs_voice
@pytest.mark.integration
def test_engines_say_the_same(tmp_path, monkeypatch, capsys):
    (tmp_path / "texts.tsv").write_text("id\tfr\na\tOù est la gare ?\n", encoding="utf-8")
    spoken = {}
    for engine in ("onnxruntime", "openvino"):
        where = ("--texts", tmp_path / "texts.tsv", "--voice-table", TABLE, "--out", tmp_path / "fr")
        monkeypatch.setattr(sys, "argv", ["french_voice.py", *map(str, where), "--engine", engine])
        french_voice.main()
        assert "fr: 1 spoken" in capsys.readouterr().out  # with another engine it is another recording
        spoken[engine] = read_speech(tmp_path / "fr/a.wav")
    one, other = (log_mel(samples) for samples in spoken.values())
    assert 70 < len(one) < 200 and len(other) == pytest.approx(len(one), rel=0.1)
    # Stretched to the same length; another sentence in this voice has a correlation of 0.66 with it, these two of 0.93.
    assert np.corrcoef(stretched(one).ravel(), stretched(other).ravel())[0, 1] > 0.85


def test_sounds_are_placed_in_the_recording():
    """Stress goes with the sound after it, a tilde with the one before; the first sound comes after the margin."""
    symbols = "ˈab̃ c."
    times = np.array([0.5, 0.52, 0.56, 0.6, 0.62, 0.64, 0.7, 0.8])
    expected = ["SIL"] * 5 + ["a"] * 3 + ["b\u0303"] * 3 + ["SIL"] + ["c"] * 3 + ["SIL"] * 3
    assert phones_of(symbols, times, 0.37) == expected


@needs_voice
def test_durations_add_up_to_the_recording(tmp_path):
    text, manner = "Ces six saucissons sont trop chauds.", Manner(speed=1.1, semitones=1.5)
    write_speech(tmp_path / "a.wav", french_voice.FrenchVoice(TABLE)(text, manner), manner.playback_rate(24000))
    speech = read_speech(tmp_path / "a.wav")
    voice = french_voice.FrenchVoice(TABLE, engine=duration_engine())
    ends = voice(text, manner).cumsum() * 600 / manner.playback_rate(24000)
    labels = phones_of(voice.symbols(text), ends[:-1], len(speech) / 16000)
    spoken = [index for index, label in enumerate(labels) if label != "SIL"]
    assert spoken[0] == 5 and len(labels) - 1 - spoken[-1] <= 10
    # hissing crosses zero far more often than anything else: the phones are within 60 ms of where they are heard
    pieces = np.signbit(speech[: 320 * len(labels)]).reshape(-1, 320)
    hissing = (pieces[:, 1:] != pieces[:, :-1]).sum(1)[5:-5]
    hiss = np.array([label in ("s", "ʃ") for label in labels][5:-5])
    best = max(range(-20, 21), key=lambda shift: np.roll(hiss, shift) @ hissing)
    assert -3 <= best <= 3


def test_espeak_sounds_in_kokoro_alphabet():
    assert french_voice.to_kokoro("t^ʃˈɛk (en)wˈɪnd(fr) bɔ̃ʒ-ˈuʁ") == "ʧˈɛk wˈɪnd bɔ̃ʒˈuʁ"


def test_shipped_voice_table():
    table = french_voice.load_voice_table(TABLE)
    assert table.shape == (510, 256) and np.isfinite(table).all() and table.std() > 0


def test_missing_voice_table_is_named_with_a_remedy(tmp_path):
    with pytest.raises(SystemExit, match="--voice-table"):
        french_voice.load_voice_table(tmp_path / "none.npy")
