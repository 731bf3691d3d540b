"""An exported model gives in onnxruntime what it gives in torch, over a minute of stream, of whatever it is made."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tiny_translator import MODEL, NUM_UNITS, VOCABULARY, VOCODERS, fill, make_model, make_vocoder

pytest.importorskip("onnxscript")
from onnx_stream import EVERY, compare

from echostream.constants import SAMPLE_RATE
from echostream.export.folder import Export, write_export
from echostream.models import EchoStreamConfig, EchoStreamModel
from echostream.vocoders.registry import build_vocoder

SYMBOLS = [f"▁{number}" for number in range(VOCABULARY)]
WHISPER = {
    "front_end": "whisper",
    "encoder_stack": 2,
    "encoder_positions": "cyclic",
    "encoder_norm": "final",
    "encoder_activation": "gelu",
    "encoder_conv_kernel": 0,
    "memory_slots": 0,
    "right_context_frames": 4,
    "asr_layers": 1,
    "st_layers": 0,
    "mt_positions": "learned",
    "mt_prompt_tokens": 3,
    "mt_places": 30,
    "mt_languages": 3,
    "mt_scale_embedding": False,
    "unit_text_layers": 1,
    "unit_normalise_text": True,
}


def minute() -> np.ndarray:
    """Noise whose loudness comes and goes: float32 ``(n,)``, 60 s and the look-ahead of a step."""
    time = np.arange(62 * SAMPLE_RATE) / SAMPLE_RATE
    noise = np.random.default_rng(0).normal(0, 0.1, len(time))
    return (noise * (0.05 + np.sin(2 * np.pi * time / 3) ** 2)).astype(np.float32)


def whisper_model() -> EchoStreamModel:
    model = EchoStreamModel(EchoStreamConfig(**MODEL | WHISPER), VOCABULARY, VOCABULARY, NUM_UNITS)
    fill(model, {"embedding": 0.5, "": 1.7})
    return model.eval().requires_grad_(False)


def careful_vocoder():
    """A vocoder that looks ahead for durations and carries their rounding, as the one that ships."""
    durations = VOCODERS["istft"]["dur_predictor_params"] | {"var_pred_lookahead": 2, "var_pred_carry": True}
    vocoder = build_vocoder(VOCODERS["istft"] | {"dur_predictor_params": durations})
    fill(vocoder, {"": 1.0})
    return vocoder.eval().requires_grad_(False)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("model", "vocoder", "segment_ms"),
    [
        pytest.param(make_model, lambda: make_vocoder("istft"), 40, id="fbank-memory-convolution"),
        pytest.param(whisper_model, careful_vocoder, 320, id="whisper-prompt-stack"),
    ],
)
def test_files_give_what_torch_gives_over_a_minute(model, vocoder, segment_ms, tmp_path):
    model, vocoder = model(), vocoder()
    export = Export(model, SYMBOLS, SYMBOLS, vocoder, segment_ms, languages=("fr", "en"))
    said: list[str] = []
    (tmp_path / "runtime.wasm").touch()
    write_export(export, tmp_path / "files", said.append, [tmp_path / "runtime.wasm"])
    for name in ("index.html", "page/app.js", "page/onnxruntime-web/runtime.wasm"):
        assert (tmp_path / "files" / name).is_file()
    assert len(said) == len(list((tmp_path / "files").glob("*.onnx"))) - 1  # `start` is no part of the model
    about = json.loads((tmp_path / "files/echostream.json").read_text(encoding="utf-8"))
    assert about["target_symbols"] == SYMBOLS and about["source_lang"] == "fr"
    counts = compare(tmp_path / "files", model, vocoder, minute())
    steps = 60_000 // segment_ms
    assert counts["frames"] >= steps and counts["samples"] == counts["unit_logits"] >= steps // EVERY
    with pytest.raises(ValueError, match="not an empty folder"):
        write_export(export, tmp_path / "files", said.append)


def test_look_ahead_may_be_another_than_the_trained_one():
    model = make_model()
    trained = model.cfg.right_context_frames
    first = [
        Export(model, SYMBOLS, SYMBOLS, None, 320, right_context_frames=ahead).encoder().first_samples
        for ahead in (None, trained, trained + 3)
    ]
    assert first[1:] == [first[0], first[0] + 3 * model.frame_ms * 16]


@pytest.mark.parametrize(
    ("segment_ms", "message"), [(0, "at least one frame"), (60, "segment_ms must be a multiple of 40 ms")]
)
def test_segments_that_cannot_be_exported_are_refused(segment_ms, message, tmp_path):
    export = Export(make_model(), SYMBOLS, SYMBOLS, None, segment_ms)
    with pytest.raises(ValueError, match=message):
        write_export(export, tmp_path / "files", print)
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_of_an_export_that_is_stopped(tmp_path):
    def stop(line: str) -> None:
        assert len(list(tmp_path.iterdir())) == 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_export(Export(make_model(), SYMBOLS, SYMBOLS, None, 320), tmp_path / "files", stop)
    assert not list(tmp_path.iterdir())


def test_without_a_vocoder_that_can_be_exported_the_files_end_with_units():
    export = Export(make_model(), SYMBOLS, SYMBOLS, make_vocoder("code_hifigan"), 320)
    encoder = export.encoder()
    assert not export.speaks and "vocoder" not in export.about(encoder)
    assert [part.name for part in export.parts(encoder)][-1] == "unit_decoder"
