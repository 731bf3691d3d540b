"""The streaming translator on a random model: independence of pushes, bounded state, complete output."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_translator import MODEL

from echostream.decoding.policy import FixedRatePolicy, StridePolicy
from echostream.decoding.word_boundary import WordBoundaryDetector
from echostream.models import EchoStreamConfig, EchoStreamModel
from echostream.modules.ctc import BLANK
from echostream.streaming import StreamingTranslator
from echostream.streaming.recogniser import Recogniser
from echostream.streaming.source_span import SourceSpan
from echostream.streaming.word_level_translator import LEAD_FRAMES

POLICIES = ["alignment", "stride", "wait-k", "alignatt", "fixed-rate"]


@pytest.fixture(scope="module")
def translator() -> StreamingTranslator:
    return StreamingTranslator.random(arch="echostream_tiny", seed=0)


@pytest.fixture(autouse=True)
def _defaults(translator):
    translator.segment_ms, translator.right_context_frames, translator.task = 160, 1, "s2st"
    translator.set_policy("fixed-rate")


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(int(16_000 * seconds)) * 0.1).astype(np.float32)


def translate(translator, wave, cuts=(), state=None):
    """All output for ``wave`` pushed in pieces, and the final state."""
    state = state or translator.init_state()
    pieces = np.split(wave, sorted(cuts))
    outs = [translator.step(piece, state, index == len(pieces) - 1) for index, piece in enumerate(pieces)]
    return merge(outs), state


def merge(outs):
    return (
        np.concatenate([out.samples for out in outs]),
        [word for out in outs for word in out.words],
        [word for out in outs for word in out.source_words],
    )


def assert_same(left, right, exact=True):
    assert left[2] == right[2]
    assert left[1] == right[1]
    if exact:
        np.testing.assert_array_equal(left[0], right[0])
    else:
        np.testing.assert_allclose(left[0], right[0], atol=1e-5)


@pytest.mark.parametrize("segment_ms", [40, 160, 320, 0])
def test_output_does_not_depend_on_pushes(translator, segment_ms):
    translator.segment_ms = segment_ms
    wave = noise(1.93)
    whole, _ = translate(translator, wave)
    assert whole[0].size and whole[2]
    assert whole[1] or not segment_ms  # offline, the random model has no output
    rng = np.random.default_rng(segment_ms)
    for cuts in (
        rng.integers(0, wave.size, 5),
        range(640, wave.size, 640),
        [wave.size],
        [*range(1, 12), *range(16_000, 16_012)],
    ):
        assert_same(translate(translator, wave, cuts)[0], whole)


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_streams_and_places_its_words(translator, policy):
    translator.set_policy(policy)
    wave = noise(2.5)
    (samples, words, source_words), _ = translate(translator, wave, range(2_560, wave.size, 2_560))
    assert source_words
    times = [word.source_time_s for word in words]
    assert times == sorted(times) and all(time <= 2.5 + 0.04 for time in times)
    edges = [edge for word in words for edge in (word.start_s, word.end_s)]
    assert edges == sorted(edges)
    assert not edges or edges[-1] <= samples.size / 16_000 + 1e-6


def test_layers_of_both_ctc_heads_stream():
    """Logits of a stream, a segment at a time and beside another stream, are those of the whole."""
    torch.manual_seed(0)
    cfg = EchoStreamConfig(**MODEL | {"asr_layers": 2, "st_layers": 1})
    model = EchoStreamModel(cfg, 60, 60, 30).eval()
    recogniser = Recogniser(model.asr_head, model.st_head, ["w"] * 60, WordBoundaryDetector(["w"] * 60, 40))
    frames = torch.randn(2, 40, cfg.encoder_dim)
    whole = [head(frames)[0] for head in (model.asr_head, model.st_head)]
    read: list[list[torch.Tensor]] = [[], []]
    for head, logits in zip((model.asr_head, model.st_head), read, strict=True):
        head.register_forward_hook(lambda _, __, output, logits=logits: logits.append(output[0]))
    states = [recogniser.init_state(), recogniser.init_state()]
    with torch.inference_mode():
        for start in range(0, 40, 5):
            states = [copy.deepcopy(state) for _, state in recogniser.step(frames[:, start : start + 5], states)]
    for logits, expected in zip(read, whole, strict=True):
        torch.testing.assert_close(torch.cat(logits, dim=1), expected, rtol=0, atol=1e-5)


def test_batched_streams_equal_streams_alone(translator):
    waves = [noise(seconds, seed) for seed, seconds in enumerate((1.5, 0.9, 2.1))]
    alone = [translate(translator, wave)[0] for wave in waves]
    starts, states, outs = (0, 4, 7), {}, {0: [], 1: [], 2: []}
    for tick in range(40):
        live = []
        for index, begin in enumerate(starts):
            if tick == begin:
                states[index] = translator.init_state()
            if index in states and not states[index].finished and tick >= begin:
                live.append(index)
        pushes = [waves[i][(tick - starts[i]) * 2_000 : (tick - starts[i] + 1) * 2_000] for i in live]
        last = [(tick - starts[i] + 1) * 2_000 >= waves[i].size for i in live]
        for index, out in zip(live, translator.step_batch(pushes, [states[i] for i in live], last), strict=True):
            outs[index].append(out)
    for index, expected in enumerate(alone):
        assert_same(merge(outs[index]), expected, exact=False)


def test_copied_state_continues_identically(translator):
    wave = noise(2.0)
    state = translator.init_state()
    translator.step(wave[:15_001], state)
    fork = copy.deepcopy(state)
    assert fork.nbytes == state.nbytes
    translate(translator, noise(1.0, 5), state=fork)
    fork = copy.deepcopy(state)
    assert_same(
        translate(translator, wave[15_001:], state=state)[0], translate(translator, wave[15_001:], state=fork)[0]
    )


@pytest.mark.parametrize("task", ["s2st", "s2tt", "asr"])
def test_state_does_not_grow_with_the_stream(translator, task):
    translator.task, translator.segment_ms = task, 320
    state, sizes = translator.init_state(), []
    for second in range(40):
        translator.step(noise(1.28, second), state)
        sizes.append(state.nbytes)
    # The window of frames for cross-attention is full after 512 frames; everything else has a fixed size.
    assert max(sizes[20:]) - min(sizes[20:]) <= 0.02 * sizes[20]


def test_text_tasks_have_the_words_of_the_speech_task(translator):
    wave = noise(2.0)
    (_, words, source), _ = translate(translator, wave)
    translator.task = "s2tt"
    (samples, text_words, text_source), _ = translate(translator, wave)
    assert samples.size == 0
    assert [word.text for word in text_words] == [word.text for word in words]
    assert text_source == source
    translator.task = "asr"
    (samples, no_words, asr_source), _ = translate(translator, wave)
    assert samples.size == 0 and not no_words and asr_source == source


@pytest.mark.parametrize("num_samples", [0, 1, 100, 399, 400, 1_000])
def test_short_input_ends_cleanly(translator, num_samples):
    _, state = translate(translator, noise(1.0)[:num_samples])
    assert state.finished and state.waiting_samples == 0


def test_text_is_the_joined_words(translator):
    state = translator.init_state()
    out = translator.step(noise(2.0), state, is_last=True)
    assert out.text.split() and out.text.startswith(" ") != out.words[0].joined
    assert out.text.replace(" ", "") == "".join(word.text for word in out.words)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((2, 100), dtype=np.float32), "one channel"),
        (np.array([0.0, np.nan], dtype=np.float32), "NaN"),
        (np.array([np.inf], dtype=np.float32), "NaN or infinity"),
        (np.zeros(10, dtype=np.int16), "floating point"),
    ],
)
def test_invalid_samples_are_rejected_and_do_not_change_the_state(translator, samples, message):
    state = translator.init_state()
    with pytest.raises(ValueError, match=message):
        translator.step(samples, state)
    assert state.waiting_samples == 0 and not state.finished


def test_ended_stream_rejects_samples(translator):
    _, state = translate(translator, noise(0.5))
    with pytest.raises(ValueError, match="has ended"):
        translator.step(noise(0.1), state)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("segment_ms", 50, "multiple of 40"),
        ("segment_ms", -40, "multiple of 40"),
        ("right_context_frames", -1, "negative"),
        ("task", "tts", "unknown task"),
    ],
)
def test_invalid_translator_options_are_rejected(translator, name, value, message):
    with pytest.raises(ValueError, match=message):
        setattr(translator, name, value)


def test_random_weights_are_seeded_without_the_global_generator():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first = StreamingTranslator.random(arch="echostream_tiny", seed=7)
    assert torch.equal(torch.rand(1), expected)
    second = StreamingTranslator.random(arch="echostream_tiny", seed=7)
    for left, right in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(left, right)


def test_stream_of_more_than_a_thousand_words(translator):
    """StreamSpeech fails with an IndexError after about 100 target subwords."""
    translator.segment_ms, translator.task = 640, "s2tt"
    translator.set_policy(FixedRatePolicy(token_frames=1))
    state, words, sizes = translator.init_state(), 0, []
    piece = noise(1.28)
    while words <= 1_000:
        words += len(translator.step(piece, state).words)
        sizes.append(state.nbytes)
    assert state.translation.sentence.tokens > 1_000
    assert sizes[-1] == sizes[len(sizes) // 2]
    translator.step(piece[:0], state, is_last=True)


def test_pause_ends_the_sentence_and_trims_its_state(translator):
    state = translator.init_state()
    before = translator.step(noise(2.5), state)
    assert before.words and state.translation.sentence.source_words
    bias = translator.model.asr_head.output.bias
    with torch.no_grad():
        bias[BLANK] += 1e3  # the ASR CTC emits blanks, as in silence
        outs = [translator.step(noise(0.16, seed), state) for seed in range(8)]
        bias[BLANK] -= 1e3
    assert state.translation.sentence.num_frames < 16, "a new sentence should have begun"
    assert not state.finished
    after = translator.step(noise(1.28, 3), state)
    edges = [edge for out in (before, *outs, after) for word in out.words for edge in (word.start_s, word.end_s)]
    assert after.words and edges == sorted(edges)
    spoken = sum(out.samples.size for out in (before, *outs, after))
    assert edges[-1] <= (spoken + translator.output_sample_rate) / translator.output_sample_rate


def test_a_sentence_that_was_read_but_not_written_begins_at_the_longest_pause(translator, monkeypatch):
    writer = translator.writer
    words, read = [(0, 4), (6, 9), (22, 25), (27, 33)], [5, 8, 24, 26, 28, 30, 32, 33, 35, 36]
    span = SourceSpan(torch.zeros(1, 40, translator.model.cfg.encoder_dim), 40, words, [2, 7, 23, 28], read)
    sentence = replace(writer.add_evidence(span, writer.init_state()), tokens=2)
    before, following = writer.split_overdue(sentence)
    assert following is not None and following.first_frame == before.span.end == (9 + 22 + 1) // 2
    assert (
        (before.source_words, before.target_tokens) == (following.source_words, following.target_tokens - 6) == (2, 2)
    )
    assert writer.split_overdue(replace(sentence, tokens=5))[1] is None, "the ST CTC may be a little ahead"
    monkeypatch.setattr(writer, "overdue_tokens", math.inf)
    assert writer.split_overdue(sentence)[1] is None


def test_places_of_a_sentence_are_counted_from_shortly_before_its_first_evidence(translator, monkeypatch):
    """However long nobody spoke before it: Whisper's decoder knows 30 s."""
    monkeypatch.setattr(translator.model.mt_decoder, "window_frames", 64)
    writer = translator.writer
    number = torch.arange(500.0).view(1, 500, 1).expand(-1, -1, translator.model.cfg.encoder_dim)
    sentence, heard = writer.init_state(), []
    for start, end, tokens in ((0, 300, []), (300, 340, [320]), (340, 380, [345]), (380, 420, [])):
        span = SourceSpan(number[:, start:end], end, [], tokens, [token + 4 for token in tokens])
        sentence = writer.add_evidence(span, sentence)
        frames, first = sentence.attended()
        heard.append((int(frames[0, 0, 0]), int(frames[0, -1, 0]) + 1, first))
    assert LEAD_FRAMES == 25
    assert heard == [(236, 300, 236), (295, 340, 0), (316, 380, 21), (356, 420, 61)]


def test_state_of_another_task_or_twice_in_a_batch_is_rejected_unchanged(translator):
    state, other = translator.init_state(), translator.init_state()
    with pytest.raises(ValueError, match="the same state was given twice"):
        translator.step_batch([noise(0.5)] * 3, [state, other, state], [False] * 3)
    with pytest.raises(ValueError, match="started for the task s2st and can't be stepped for asr"):
        translator.view(task="asr").step(noise(0.5), state)
    assert state.waiting_samples == other.waiting_samples == 0


def test_failed_step_changes_no_state_and_can_be_repeated(translator, monkeypatch):
    """If the vocoder, the last stage but one, fails for one stream, no state has changed."""
    waves = [noise(3.0, 1), noise(3.0, 2)]
    expected = [translator.step(wave, translator.init_state()) for wave in waves]
    states = [translator.init_state() for _ in waves]
    step, calls = translator.vocoder.step, []

    def failing(*args, **kwargs):
        calls.append(args)
        if len(calls) == 3:
            raise RuntimeError("out of memory")
        return step(*args, **kwargs)

    monkeypatch.setattr(translator.vocoder, "step", failing)
    before = copy.deepcopy(states)
    with pytest.raises(RuntimeError, match="out of memory"):
        translator.step_batch(waves, states, [False, False])
    assert len(calls) == 3, "the step should have failed half-way"
    assert str(states) == str(before)
    for wave, state, output in zip(waves, states, expected, strict=True):
        again = translator.step(wave, state)
        assert again.words == output.words
        np.testing.assert_array_equal(again.samples, output.samples)


def test_view_changes_options_of_its_policy(translator):
    translator.set_policy("stride", stride_n=2)
    assert translator.view(stride_n=3).policy == StridePolicy(3) and translator.policy == StridePolicy(2)
    with pytest.raises(ValueError, match="the policy 'stride' has no option lag_k"):
        translator.view(lag_k=1)


def test_long_push_takes_linear_time(translator):
    """The samples of each segment are copied once, independent of the length of the push."""
    copied = []
    concatenate = np.concatenate

    def counting(arrays, *args, **kwargs):
        made = concatenate(arrays, *args, **kwargs)
        copied.append(made.size)
        return made

    sizes = []
    for seconds in (4.0, 8.0):
        copied.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(np, "concatenate", counting)
            output = translator.step(noise(seconds), translator.init_state())
        sizes.append(sum(copied) / output.samples.size)
    assert sizes[1] < 1.2 * sizes[0]
