"""The model that ships, exported as int8: a minute of speech as in torch, and the program of onnx.md as pasted."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch
from shipped_model import MODEL, is_alike, samples, short_samples

pytest.importorskip("onnxscript")
from guide_program import guide_program, run_program
from onnx_stream import compare

from echostream.checkpoints.model_files import load_model
from echostream.checkpoints.model_folder import ModelSettings
from echostream.checkpoints.vocoder_files import load_vocoder
from echostream.constants import SAMPLE_RATE
from echostream.decoding.offline import translate
from echostream.modules.ctc import greedy_collapse
from echostream.text import pieces_to_text

AHEAD = ModelSettings.of(MODEL).right_context_frames  # which the files keep
SILENCE_S = 2  # that the program of the guide appends
pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def loaded():
    return load_model(MODEL / "model.safetensors")


def test_weights_take_a_byte_each(exported, loaded):
    model, vocoder = (
        sum(value.numel() for value in module.parameters())
        for module in (loaded.model, load_vocoder(MODEL / "vocoder"))
    )
    tied = loaded.model.mt_decoder.embedding.weight.numel()  # is there a second time, the other way round
    whole = 3 * loaded.model.encoder.join.weight.numel()  # of four bytes each: rounding would spoil it
    assert (exported / "weights.bin").stat().st_size < 1.15 * (model + tied) + 4 * vocoder + whole
    assert all(file.stat().st_size < 3e6 for file in exported.glob("*.onnx"))


def test_a_minute_of_speech_is_as_in_torch(exported, loaded):
    speech = np.concatenate([sample.wave for sample in samples()])
    minute = np.tile(speech, -(-61 * SAMPLE_RATE // len(speech)))[: 61 * SAMPLE_RATE]
    counts = compare(exported, loaded.model, load_vocoder(MODEL / "vocoder"), minute, AHEAD)
    assert counts["frames"] > 180 and counts["samples"] > 20


def test_the_program_of_the_guide_translates_as_pasted(exported, loaded, tmp_path):
    (sample, *_) = short_samples(4, least_words=4)
    soundfile.write(tmp_path / "talk.wav", sample.wave, SAMPLE_RATE, subtype="PCM_16")
    printed = run_program(guide_program(), exported, tmp_path)
    heard, said = (" ".join(texts) for texts in zip(*(line.split(" -> ") for line in printed), strict=True))
    wave, _ = soundfile.read(tmp_path / "talk.wav", dtype="float32")
    silence = np.zeros(SILENCE_S * SAMPLE_RATE, dtype=np.float32)
    features, _ = loaded.model.fbank(torch.from_numpy(np.concatenate([wave, silence])))
    lengths = torch.tensor([len(features)])
    segment = 320 // loaded.model.frame_ms
    encoded = loaded.model.encode(features[None], lengths, segment=segment, right_context=AHEAD)
    (read,) = greedy_collapse(encoded["asr_logits"].argmax(dim=-1), encoded["frame_lengths"])
    assert heard.split() == pieces_to_text([loaded.source_symbols[symbol] for symbol in read]).split()
    # The program translates what came until a second of silence had passed; here the decoder sees all of the silence.
    ((best, *_),) = translate(loaded.model, encoded, loaded.source_symbols, loaded.target_symbols)
    assert is_alike(said, pieces_to_text([loaded.target_symbols[token] for token in best.tokens[:-1]]))
