"""Products in a lower precision: the same states, nearly the same frames, and nothing else rounded."""

import numpy as np
import pytest
import torch
from torch import nn

from echostream.constants import PRECISIONS
from echostream.export.states import tensors_of
from echostream.modules.precision import (
    RoundedLinear,
    computes_fast,
    full_precision_weight,
    precision_named,
    round_linear_layers,
)
from echostream.modules.transformer import CrossAttention
from echostream.streaming import StreamingTranslator
from tests.shipped_model import MODEL, short_samples, word_error_rate


def heard_and_said(translator, sample):
    translation = translator.translate(sample.wave)
    return " ".join(word.text for word in translation.source_words), translation.text


def test_linear_layers_alone_are_rounded_and_states_are_as_in_full_precision():
    whole = StreamingTranslator.random("echostream_mini", policy="fixed-rate")
    rounded = StreamingTranslator.random("echostream_mini", precision="bfloat16", policy="fixed-rate")
    kinds = {type(module) for module in rounded.model.modules() if any(True for _ in module.parameters(recurse=False))}
    assert RoundedLinear in kinds and nn.LayerNorm in kinds
    for part in (rounded.model, rounded.vocoder):
        for module in part.modules():
            for weight in module.parameters(recurse=False):
                assert weight.dtype == (torch.bfloat16 if isinstance(module, RoundedLinear) else torch.float32)
        assert full_precision_weight(part).dtype == torch.float32
    cross = [module for module in rounded.model.modules() if isinstance(module, CrossAttention)]
    assert cross and all(part.key.weight.dtype == torch.float32 for part in cross)
    speech = np.random.default_rng(0).normal(0, 0.1, 48_000).astype(np.float32)
    states = []
    for translator in (whole, rounded):
        states.append(translator.init_state())
        translator.step(speech, states[-1])
    shapes = [[(leaf.dtype, leaf.shape) for leaf in tensors_of(state.encoder, "encoder").values()] for state in states]
    assert shapes[0] == shapes[1] and {dtype for dtype, _ in shapes[0]} <= {torch.float32, torch.int64}


def test_the_shipped_model_hears_and_says_nearly_the_same():
    samples = short_samples(9, least_words=4)
    assert len(samples) > 1
    answers = []
    for precision in ("float32", "bfloat16"):
        translator = StreamingTranslator.from_checkpoint(MODEL, precision=precision)
        answers.append([heard_and_said(translator, sample) for sample in samples])
    for kind in (0, 1):
        whole, rounded = ([answer[kind] for answer in one] for one in answers)
        assert "".join(whole)
        assert word_error_rate(rounded, whole) < 0.25


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_gpu_gives_the_words_of_a_processor(precision):
    sample = short_samples(4, least_words=3)[0]
    here = heard_and_said(StreamingTranslator.from_checkpoint(MODEL), sample)
    there = heard_and_said(StreamingTranslator.from_checkpoint(MODEL, device="cuda", precision=precision), sample)
    assert all(word_error_rate([b], [a]) < 0.25 for a, b in zip(here, there, strict=True))


def test_full_precision_changes_nothing_and_other_names_are_refused():
    layer = nn.Sequential(nn.Linear(4, 4))
    assert round_linear_layers(layer, precision_named("float32")) == 0 and type(layer[0]) is nn.Linear
    assert round_linear_layers(layer, torch.bfloat16) == 1 and full_precision_weight(layer) is None
    assert computes_fast(torch.float32, "cpu") and computes_fast(torch.bfloat16, "cuda")
    with pytest.raises(ValueError, match="precision 'int4' is none of float32, bfloat16, float16"):
        StreamingTranslator.from_checkpoint(MODEL, precision="int4")


def test_a_processor_without_the_instructions_is_named(monkeypatch, caplog):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False)
    StreamingTranslator.from_checkpoint(MODEL, precision="bfloat16")
    assert "no instructions for bfloat16: float32 will be faster" in caplog.text


def test_a_model_that_somebody_rounded_otherwise_is_refused():
    translator = StreamingTranslator.random("echostream_mini", policy="fixed-rate")
    translator.model.half()
    with pytest.raises(ValueError, match=r"the model's weights are float16, not float32: call model.float\(\), and"):
        translator.step(np.zeros(16_000, np.float32), translator.init_state())
