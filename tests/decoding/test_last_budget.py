"""The end of a sentence: what is written must not outrun what the ST CTC lets expect."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from echostream.decoding.policy import (
    LAST_TOKENS_EACH,
    LAST_TOKENS_SPARE,
    UNLIMITED,
    Evidence,
    build_policy,
    last_budget,
)
from echostream.decoding.target_tokens import END
from echostream.streaming import StreamingTranslator

SPEECH = (0.1 * np.random.default_rng(1).standard_normal(64_000)).astype(np.float32)


def deaf_translator(**options) -> StreamingTranslator:
    """Random weights: the ASR CTC reads something in noise, the ST CTC nothing."""
    translator = StreamingTranslator.random("echostream_tiny", seed=3, task="s2tt", **options)
    with torch.no_grad():
        translator.model.st_head.output.bias[0] += 1e3
        translator.model.asr_head.output.bias[0] -= 1e3
    translator.writer.forbidden[END] = float("-inf")  # and the decoder never ends a sentence of its own accord
    return translator


def subwords(translator: StreamingTranslator) -> int:
    return sum(word.text.count("w") for word in translator.step(SPEECH, translator.init_state(), is_last=True).words)


@pytest.mark.parametrize("beam", [1, 3])
def test_without_evidence_only_a_few_tokens_are_written(beam):
    translator = deaf_translator(beam=beam, segment_ms=320)
    assert subwords(translator) <= LAST_TOKENS_SPARE
    # A policy that doesn't go by evidence writes on.
    assert subwords(translator.view(policy="wait-k")) > 2 * LAST_TOKENS_SPARE


def test_a_sentence_is_written_whole_where_the_st_ctc_cannot_tell_its_words():
    translator = deaf_translator(segment_ms=320)
    classes = translator.model.st_head.output.bias.numel()
    with torch.no_grad():  # in each frame 0.7 for the blank and 0.3 for all others together: nothing is read
        translator.model.st_head.output.weight.zero_()
        translator.model.st_head.output.bias.copy_(torch.full((classes,), 0.3 / (classes - 1)).log())
        translator.model.st_head.output.bias[0] = np.log(0.7)
        # With tied embeddings an untrained decoder repeats its last token; this change gives it varied output.
        norm = translator.model.mt_decoder.stack.norm
        norm.weight.copy_(torch.randn(norm.weight.shape, generator=torch.Generator().manual_seed(0)))
    assert 30 <= subwords(translator) <= int(LAST_TOKENS_EACH * 30) + LAST_TOKENS_SPARE


def test_policies_say_what_may_be_written_last():
    evidence = Evidence(frames=100, source_words=5, source_tokens=9, target_tokens=7)
    for name in ("alignment", "token-alignment"):
        policy = build_policy(name)
        assert last_budget(policy, evidence).tokens == int(LAST_TOKENS_EACH * 7) + LAST_TOKENS_SPARE
        more = replace(evidence, expected_tokens=20)
        assert last_budget(policy, more).tokens == int(LAST_TOKENS_EACH * 20) + LAST_TOKENS_SPARE
    for name in ("stride", "wait-k", "fixed-rate"):
        assert last_budget(build_policy(name), evidence) == UNLIMITED
