"""The streamed translation of validation equals that of the streaming translator."""

import numpy as np
import pytest
import torch
from fairseq.data import Dictionary

from echostream.decoding.policy import UNLIMITED, build_policy
from echostream.modules.ctc import BLANK
from echostream.streaming import StreamingTranslator
from echostream.tasks.streamed_translation import translate_as_streamed


def dictionary(symbols: list[str]) -> Dictionary:
    result = Dictionary()
    for symbol in symbols[result.nspecial :]:
        result.add_symbol(symbol)
    return result


def utterance(seconds: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    pitch = np.repeat(rng.uniform(0.02, 1.5, round(10 * seconds)), 1600)
    return (0.2 * np.sin(np.cumsum(pitch)) + 0.05 * rng.standard_normal(pitch.size)).astype(np.float32)


@pytest.mark.parametrize("segment", [1, 8])
@torch.inference_mode()
def test_batch_translation_equals_streaming_translation(segment):
    torch.set_num_threads(1)
    translator = StreamingTranslator.random(arch="echostream_tiny", seed=2)
    translator.task, translator.segment_ms = "s2tt", 40 * segment
    translator.policy = build_policy("alignment")
    translator.recomposer.end_silence_ms = translator.writer.overdue_tokens = 10**6  # one sentence
    model, random = translator.model, torch.Generator().manual_seed(0)
    norm = model.mt_decoder.stack.norm
    norm.weight.copy_(torch.randn(norm.weight.shape, generator=random))  # otherwise it repeats its last token for ever
    waves = [utterance(1.5, 0), utterance(0.9, 1)]
    features = [model.fbank(torch.from_numpy(wave))[0] for wave in waves]
    lengths = torch.tensor([len(f) for f in features])
    batch = torch.nn.utils.rnn.pad_sequence(features, batch_first=True)
    encoded = model.encode(batch, lengths)
    for head, name in ((model.asr_head, "asr_logits"), (model.st_head, "st_logits")):
        logits = encoded[name][0]  # the output of untrained heads hardly changes; these logits have symbols and blanks
        head.output.bias.sub_(logits.mean(0))
        head.output.bias[BLANK] += 2.5 * logits.std(0).mean()
    encoded = model.encode(batch, lengths, segment)
    source, target = dictionary(translator.detector.symbols), dictionary(translator.writer.symbols)
    calls: list[int] = []  # rows of each pass of the decoder
    hook = model.mt_decoder.register_forward_hook(lambda _, arguments, __: calls.append(len(arguments[0])))
    translated = translate_as_streamed(model, encoded, segment, source, target, translator.policy)
    passes, longest = len(calls), 0
    for row in range(2):
        calls.clear()
        alone = {name: value[row : row + 1] for name, value in encoded.items()}
        assert (
            translate_as_streamed(model, alone, segment, source, target, translator.policy) == translated[row : row + 1]
        )
        longest = max(longest, len(calls))
    assert passes == longest  # as many as for the longest of them
    hook.remove()
    offline = translate_as_streamed(model, encoded, 0, source, target, lambda *_: (UNLIMITED, None))
    expected = []
    for wave in waves:
        state = translator.init_state()
        words = translator.step(wave, state, is_last=True).words
        expected.append("".join(word.text if word.joined else f" {word.text}" for word in words).strip())
    assert translated == expected
    assert all(translated)
    assert translated != offline  # fewer visible frames give another translation
