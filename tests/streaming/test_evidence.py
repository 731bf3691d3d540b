"""The greedy path of the ST CTC is returned as text: it is the evidence of the policy, used for scores."""

import numpy as np
import pytest
import torch

from echostream.modules.ctc import greedy_collapse
from echostream.streaming import StreamingTranslator
from echostream.text import pieces_to_text


@pytest.fixture(scope="module")
def translator() -> StreamingTranslator:
    return StreamingTranslator.random(arch="echostream_tiny", seed=0, policy="fixed-rate", segment_ms=160)


@pytest.mark.parametrize("task", ["s2st", "s2tt"])
def test_evidence_is_the_greedy_path_of_the_st_ctc_for_any_pushes(translator, task):
    translator.task = task
    samples = (np.random.default_rng(0).standard_normal(20000) * 0.1).astype(np.float32)
    state, said = translator.init_state(), ""
    for start in range(0, len(samples), 1234):
        end = start + 1234
        said += translator.step(samples[start:end], state, is_last=end >= len(samples)).evidence
    with torch.inference_mode():
        features, _ = translator.model.fbank(torch.from_numpy(samples), translator.model.fbank.init_state())
        encoded = translator.model.encode(features[None], torch.tensor([len(features)]), segment=4)
        (path,) = greedy_collapse(encoded["st_logits"].argmax(-1), encoded["frame_lengths"])
    assert said == pieces_to_text([translator.writer.symbols[symbol] for symbol in path])
    assert said.strip()


def test_asr_task_has_no_evidence(translator):
    translator.task = "asr"
    assert translator.step(np.ones(16000, np.float32), translator.init_state(), is_last=True).evidence == ""
