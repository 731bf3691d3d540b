"""What training computes for a hypothesis is what the runtime computed when it made it.

The runtime translates a recording segment by segment. Its own hypothesis is then taken as a training target: the
model's forward over the whole utterance, with the mask of the frames that were there, must predict the same tokens
from the same states, and the same units; and the mask that training derives from the policy must be that mask.
"""

import numpy as np
import pytest
import torch
from torch import nn

from echostream.decoding.policy import UNLIMITED, visible_frames_from_policy
from echostream.decoding.repetition import heard_repetition, repeating
from echostream.models import EchoStreamModel
from echostream.modules.ctc import BLANK, greedy_collapse
from echostream.streaming import StreamingTranslator
from echostream.streaming.word_level_translator import END


def make_translator(seed: int, wave: np.ndarray) -> StreamingTranslator:
    translator = StreamingTranslator.random(arch="echostream_tiny", seed=seed)
    model, generator = translator.model, torch.Generator().manual_seed(seed)
    # With tied embeddings an untrained decoder repeats its last token for ever; this change gives it varied output.
    norm = model.mt_decoder.stack.norm
    norm.weight.copy_(torch.randn(norm.weight.shape, generator=generator))
    # The output of untrained heads is nearly the same for every frame; centring and blanks make it similar to speech.
    features, _ = model.fbank(torch.from_numpy(wave))
    encoded = model.encode(features[None], torch.tensor([features.size(0)]))
    for head, name in ((model.asr_head, "asr_logits"), (model.st_head, "st_logits")):
        logits = encoded[name][0]
        head.output.bias.sub_(logits.mean(dim=0))
        head.output.bias[BLANK] += 2.5 * logits.std(dim=0).mean()
    return translator


def with_places(model: EchoStreamModel, places: int, seed: int) -> None:
    """Give the text decoder places of a sentence, with silence behind them."""
    decoder, generator = model.mt_decoder, torch.Generator().manual_seed(seed)
    if places:
        shape = places, model.cfg.encoder_dim
        decoder.places, decoder.silence = (nn.Parameter(torch.randn(shape, generator=generator)) for _ in range(2))
    model.cfg.mt_places = places


def syllables(seconds: float, seed: int) -> np.ndarray:
    """Bursts of coloured noise, which change about as often as speech."""
    rng = np.random.default_rng(seed)
    bursts = []
    while sum(burst.size for burst in bursts) < 16_000 * seconds:
        size = int(rng.integers(1_000, 4_000))
        tone = np.sin(np.arange(size) * rng.uniform(0.02, 1.5))
        bursts.append(rng.uniform(0, 0.3) * tone + rng.uniform(0, 0.1) * rng.standard_normal(size))
    return np.concatenate(bursts).astype(np.float32)


def record(translator: StreamingTranslator, wave: np.ndarray):
    """Words, units, and for each word the number of frames, and what was heard again, when it was committed."""
    written, units, there, heard = [], [], [], []
    writer = translator.writer
    name = "_extend" if writer.beam == 1 else "_extend_by_beam"
    extend, speak = getattr(writer, name), writer._speak

    def recording_extend(*args):
        words, following = yield from extend(*args)
        written.extend(words)
        there.extend([args[1].num_frames] * len(words))
        heard.extend([heard_repetition(args[1].heard_words)] * len(words))
        return words, following

    def recording_speak(*args):
        spoken, following = yield from speak(*args)
        units.extend(unit for word in spoken for unit in word)
        return spoken, following

    setattr(writer, name, recording_extend)
    writer._speak = recording_speak
    state = translator.init_state()
    for start in range(0, wave.size, 640):
        translator.step(wave[start : start + 640], state, is_last=start + 640 >= wave.size)
    return written, units, there, heard


@pytest.mark.parametrize(
    ("segment", "beam", "normalise_text", "places"),
    [(1, 1, False, 0), (4, 1, True, 0), (8, 1, False, 0), (4, 3, True, 0), (4, 1, False, 120), (4, 3, True, 60)],
)
@pytest.mark.parametrize("seed", [1, 2, 3])
@torch.inference_mode()
def test_forward_gives_the_states_of_streaming(segment, beam, normalise_text, places, seed, monkeypatch):
    # In training, too, a sentence is written to its end, however little of it was read.
    monkeypatch.setattr("echostream.streaming.word_level_translator.last_budget", lambda *_: UNLIMITED)
    wave = syllables(4.0, seed)
    translator = make_translator(seed, wave)
    translator.segment_ms, translator.writer.beam = segment * 40, beam
    translator.model.cfg.unit_normalise_text = normalise_text
    with_places(translator.model, places, seed)
    translator.recomposer.end_silence_ms = translator.writer.overdue_tokens = 10**6  # one sentence, as in training
    written, units, there, heard = record(translator, wave)
    words = [word.tokens for word in written]
    assert len(set(there)) >= 3, "the policy should have let words be written bit by bit"

    model = translator.model
    features, _ = model.fbank(torch.from_numpy(wave))
    target = torch.tensor([[token for word in words for token in word]])
    word_ids = torch.tensor([[index for index, word in enumerate(words) for _ in word]])
    encoded = model.encode(features[None], torch.tensor([features.size(0)]), segment)
    visible = torch.tensor(there)[word_ids]
    from_policy = visible_frames_from_policy(
        encoded["asr_logits"].argmax(-1),
        encoded["st_logits"].argmax(-1),
        encoded["frame_lengths"],
        segment,
        torch.tensor([target.size(1)]),
        word_ids,
        torch.tensor(translator.detector.starts_word),
        translator.policy,
    )
    # A word may be written later than the policy allowed it, if the decoder then still expected a longer word.
    assert (from_policy <= visible).all()
    assert (from_policy == visible).float().mean() > 0.7
    previous = torch.cat([torch.tensor([[END]]), target[:, :-1]], dim=1)
    memory, mask = model.mt_decoder.attended(encoded["encoder_out"], encoded["frame_lengths"], visible)
    hidden, logits, _ = model.mt_decoder(previous, memory, mask)
    states = torch.cat([word.text_states for word in written], dim=1)
    torch.testing.assert_close(model.text_states(hidden, target), states, rtol=1e-5, atol=1e-5)
    log_probs = torch.tensor([log_prob for word in written for log_prob in word.log_probs])
    expected = logits.log_softmax(-1)[0].gather(1, target[0, :, None])[:, 0]
    torch.testing.assert_close(log_probs, expected, rtol=1e-5, atol=1e-5)
    scores = (logits + translator.writer.forbidden)[0]
    history = previous[0].tolist()
    for place, row in enumerate(scores):
        again = heard[word_ids[0, place]]
        row[list(repeating(history[: place + 1], translator.writer.starts_word, again))] = float("-inf")
    assert beam > 1 or scores.argmax(-1).tolist() == target[0].tolist()
    decoded = model.decode(encoded, previous, target, word_ids, visible)
    (spoken,) = greedy_collapse(decoded["unit_logits"].argmax(-1), decoded["unit_lengths"])
    assert [symbol - 1 for symbol in spoken] == units


@pytest.mark.parametrize("policy", ["alignment", "stride", "wait-k", "fixed-rate"])
@torch.inference_mode()
def test_beam_of_one_equals_greedy_search(policy):
    wave = syllables(3.0, 1)
    outputs = []
    for by_beam in (False, True):
        translator = make_translator(1, wave)
        translator.segment_ms, translator.task = 160, "s2tt"
        translator.set_policy(policy)
        if by_beam:
            translator.writer._extend = translator.writer._extend_by_beam
        state = translator.init_state()
        outs = [translator.step(piece, state) for piece in np.array_split(wave, 20)]
        outs.append(translator.step(wave[:0], state, is_last=True))
        outputs.append([word for out in outs for word in out.words])
    assert outputs[0] == outputs[1] and len(outputs[0]) > 3


def test_beam_search_finds_better_hypotheses_than_greedy_search():
    wave = syllables(2.0, 2)
    likelihoods = {}
    for beam in (1, 8):
        translator = make_translator(2, wave)
        translator.segment_ms, translator.writer.beam = 0, beam
        translator.model.mt_decoder.stack.norm.weight.mul_(0.3)  # flatter probabilities
        written, *_ = record(translator, wave)
        target = torch.tensor([[token for word in written for token in word.tokens]])
        model = translator.model
        features, _ = model.fbank(torch.from_numpy(wave))
        encoded = model.encode(features[None], torch.tensor([features.size(0)]))
        previous = torch.cat([torch.tensor([[END]]), target[:, :-1]], dim=1)
        _, logits, _ = model.mt_decoder(previous, encoded["encoder_out"])
        scores = (logits + translator.writer.forbidden).log_softmax(-1)
        likelihoods[beam] = scores[0].gather(1, target[0, :, None]).mean().item()
    assert likelihoods[8] >= likelihoods[1]


def test_the_unit_decoder_can_see_the_subwords_beside_large_states():
    """Whisper's states are 40 times as large as its embeddings; what is spoken must not drown in them."""
    model = StreamingTranslator.random(arch="echostream_tiny").model
    model.cfg.unit_normalise_text = True
    hidden = torch.randn(1, 6, model.cfg.mt_dim, generator=torch.Generator().manual_seed(0))
    tokens, others = torch.arange(4, 10)[None], torch.arange(10, 16)[None]
    states = model.text_states(hidden, tokens)
    torch.testing.assert_close(model.text_states(200 * hidden + 3, tokens), states, rtol=1e-5, atol=1e-5)
    # Two unrelated vectors of one norm differ by the root of two norms.
    difference = (model.text_states(hidden, others) - states).norm(dim=-1)
    assert (difference > model.cfg.mt_dim**0.5).all()
