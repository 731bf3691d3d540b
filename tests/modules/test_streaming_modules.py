"""Front end, heads and decoders: processing in chunks equals processing the whole sequence."""

import copy
import itertools

import pytest
import torch
from torchaudio.compliance import kaldi

from echostream.decoding.joint_search import Reading, _TextPass
from echostream.models import EchoStreamSpeechEncoder, architecture_config
from echostream.models.ctc_decoder import CTCDecoder, CTCDecoderWithTransformerLayer
from echostream.models.mt_decoder import TransformerMTDecoder
from echostream.models.unit_decoder import CTCTransformerUnitDecoder
from echostream.modules.ctc import (
    CTCReader,
    ExpectedCounter,
    count_expected,
    expected_counts,
    greedy_collapse,
    symbol_counts,
    symbol_starts,
)
from echostream.modules.fbank import OnlineFbank, num_frames
from echostream.modules.masks import windowed_block_mask
from echostream.modules.rotary import rotary_angles
from echostream.modules.state import stack
from echostream.modules.subsampling import ConvSubsampler
from echostream.modules.transformer import CausalTransformer, CrossAttention, TransformerState, behind_zeros

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


# --- front end ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_samples", [0, 399, 400, 401, 16_123])
def test_fbank_equals_kaldi(num_samples):
    wave = torch.randn(num_samples) * 0.1
    features, _ = OnlineFbank()(wave)
    assert features.shape == (num_frames(num_samples), 80)
    if num_samples >= 400:
        expected = kaldi.fbank(wave[None] * 2**15, num_mel_bins=80, sample_frequency=16_000)
        torch.testing.assert_close(features, expected, **CLOSE)


@pytest.mark.parametrize("most", [1, 7, 399, 5000])
def test_fbank_in_chunks_equals_the_whole(most):
    fbank, wave = OnlineFbank(), torch.randn(4_000) * 0.1
    fbank.set_cmvn(torch.randn(80), torch.rand(80) + 0.5)
    whole, _ = fbank(wave)
    state, pieces, start = None, [], 0
    while start < wave.size(0):
        size = int(torch.randint(1, most + 1, (1,)))
        features, state = fbank(wave[start : start + size], state)
        assert state.leftover.size(0) < 400
        pieces.append(features)
        start += size
    torch.testing.assert_close(torch.cat(pieces), whole, **CLOSE)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        (torch.zeros(3), torch.ones(80), "80 finite numbers"),
        (torch.full((80,), float("nan")), torch.ones(80), "80 finite numbers"),
        (torch.zeros(80), torch.zeros(80), "positive"),
    ],
)
def test_invalid_cmvn_is_rejected(mean, std, message):
    with pytest.raises(ValueError, match=message):
        OnlineFbank().set_cmvn(mean, std)


@pytest.mark.parametrize("kernel", [2, 3, 5])
@pytest.mark.parametrize("total", [0, 1, 4, 43, 64])
@torch.no_grad()
def test_subsampler_in_chunks_and_in_a_padded_batch(kernel, total):
    subsampler = ConvSubsampler(80, 32, 16, kernel).eval()
    x = torch.randn(1, total, 80)
    whole, lengths, _ = subsampler(x)
    assert whole.size(1) == lengths.item() == -(-total // 4)
    state, pieces, start = subsampler.init_state(), [], 0
    for size in (4, 0, 16, 8):
        if start + size > total:
            break
        out, _, state = subsampler(x[:, start : start + size], state=state, is_last=False)
        pieces.append(out)
        start += size
    pieces.append(subsampler(x[:, start:], state=state)[0])
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, **CLOSE)
    batch = torch.full((2, 80, 80), float("nan"))
    batch[0, :total], batch[1] = x[0], torch.randn(80, 80)
    padded, lengths, _ = subsampler(batch, torch.tensor([total, 80]))
    assert lengths.tolist() == [whole.size(1), 20]
    torch.testing.assert_close(padded[0, : whole.size(1)], whole[0], **CLOSE)


def test_subsampler_has_no_look_ahead_beyond_its_40_ms():
    subsampler = ConvSubsampler(80, 32, 16).eval()
    x = torch.randn(1, 40, 80, requires_grad=True)
    out, _, _ = subsampler(x)
    (gradient,) = torch.autograd.grad(out[0, 5].sum(), x)
    assert gradient[0].abs().sum(dim=1).nonzero().max().item() == 4 * 5 + 3


def test_ragged_chunk_before_the_end_is_rejected():
    with pytest.raises(ValueError, match="multiple of 4"):
        ConvSubsampler(80, 32, 16)(torch.randn(1, 5, 80), is_last=False)


@pytest.mark.parametrize("right_context", [0, 1, 2])
@pytest.mark.parametrize("segment", [1, 2, 4, 8, 16, 32, 0])
@torch.no_grad()
def test_waveform_to_both_ctc_heads_in_chunks_of_any_size(segment, right_context):
    cfg = architecture_config("echostream_tiny")
    cfg.left_context_frames, cfg.memory_block_frames = 8, 4
    encoder, fbank = EchoStreamSpeechEncoder(cfg).eval(), OnlineFbank()
    heads = [
        CTCDecoder(cfg.encoder_dim, 30).eval(),
        CTCDecoderWithTransformerLayer(cfg.encoder_dim, 40, 2, 4, 64, 20).eval(),
    ]
    wave = torch.randn(16_000 * 3 + 777) * 0.1
    options = {"segment": segment, "right_context": right_context}
    frames, _, _ = encoder(fbank(wave)[0][None], **options)
    expected = [head(frames)[0] for head in heads]

    fbank_state, encoder_state = None, encoder.init_state()
    head_states = [head.init_state() for head in heads]
    features, scores, start = torch.zeros(1, 0, 80), [[], []], 0
    while start < wave.size(0):
        size = int(torch.randint(1, 6_000, (1,)))
        is_last = start + size >= wave.size(0)
        new, fbank_state = fbank(wave[start : start + size], fbank_state)
        start += size
        features = torch.cat([features, new[None]], dim=1)
        take = features.size(1) if is_last else features.size(1) // 4 * 4
        frames, _, encoder_state = encoder(features[:, :take], state=encoder_state, is_last=is_last, **options)
        features = features[:, take:]
        for index, head in enumerate(heads):
            logits, head_states[index] = head(frames, head_states[index])
            scores[index].append(logits)
    for got, want in zip(scores, expected, strict=True):
        torch.testing.assert_close(torch.cat(got, dim=1), want, **CLOSE)


# --- heads and decoders ---------------------------------------------------------------------------------------------


def test_windowed_block_mask_matches_its_definition():
    block_ids = torch.tensor([[0, 0, 1, 2, 2, 2]])
    mask = windowed_block_mask(torch.tensor([1]), 3, 6, 2, block_ids)[0, 0]
    starts = [0, 0, 2, 3, 3, 3]
    for query in range(6):
        for column, key in enumerate(range(-3, 6)):
            same_or_earlier = key < 0 or block_ids[0, key] <= block_ids[0, query]
            expected = same_or_earlier and key >= starts[query] - 2 and key >= -1
            assert bool(mask[query, column]) == bool(expected), (query, key)


@torch.no_grad()
def test_causal_transformer_in_chunks_with_a_window():
    model = CausalTransformer(16, 3, 2, 32, window=5).eval()
    x = torch.randn(2, 40, 16)
    whole, _ = model(x)
    state, pieces, start = model.init_state(2), [], 0
    for size in (1, 3, 0, 12, 1, 23):
        out, state = model(x[:, start : start + size], state)
        pieces.append(out)
        start += size
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, **CLOSE)
    assert state.past.size(2) == 5


@torch.no_grad()
def test_a_state_takes_room_for_the_positions_that_there_have_been():
    model = CausalTransformer(16, 3, 2, 32, window=5).eval()
    _, short = model(torch.randn(1, 2, 16), model.init_state())
    _, full = model(torch.randn(1, 7, 16), model.init_state())
    assert [state.past.size(2) for state in (model.init_state(), short, full)] == [0, 2, 5]
    assert full.nbytes == model.full_state().nbytes
    # Room for the whole window, as an earlier version took it, changes no bit.
    roomy = TransformerState(short.position, behind_zeros(short.past, 5))
    x = torch.randn(2, 1, 16)
    alone, after = model(x[:1], short)
    assert torch.equal(model(x[:1], roomy)[0], alone)
    # Streams of different lengths share a pass, and each keeps its own size.
    together, stacked = model(x, TransformerState.stack([short, full]))
    torch.testing.assert_close(together[0], alone[0], **CLOSE)
    torch.testing.assert_close(together[1], model(x[1:], full)[0][0], **CLOSE)
    parts = stacked.split()
    assert [(state.position.item(), state.past.size(2)) for state in parts] == [(3, 3), (8, 5)]
    torch.testing.assert_close(parts[0].past, after.past, **CLOSE)


@pytest.mark.parametrize("layers", [0, 2])
@torch.no_grad()
def test_positions_behind_a_rows_length_leave_no_trace(layers):
    """Streams at different places read different numbers of positions in one pass, and go on from there."""
    model = CausalTransformer(16, layers, 2, 32, window=5).eval()
    before, lengths = [0, 2, 7, 30], [3, 1, 4, 2]
    states = [model(torch.randn(1, count, 16), model.init_state())[1] for count in before]
    x = torch.randn(4, 4, 16)
    out, stacked = model(x, TransformerState.stack(states), lengths=lengths)
    following = torch.randn(4, 1, 16)
    onward, _ = model(following, stacked)
    for row, (state, length, after) in enumerate(zip(states, lengths, stacked.split(), strict=True)):
        alone, expected = model(x[row : row + 1, :length], state)
        torch.testing.assert_close(out[row : row + 1, :length], alone, **CLOSE)
        assert torch.equal(after.position, expected.position) and after.past.shape == expected.past.shape
        torch.testing.assert_close(after.past, expected.past, **CLOSE)
        torch.testing.assert_close(onward[row : row + 1], model(following[row : row + 1], expected)[0], **CLOSE)


@torch.no_grad()
def test_states_split_into_streams_of_several_rows():
    model = CausalTransformer(16, 2, 2, 32, window=5).eval()
    states = [
        model(torch.randn(rows, count, 16), model.init_state(rows))[1] for rows, count in ((2, 1), (1, 4), (3, 2))
    ]
    parts = TransformerState.stack(states).split([2, 1, 3])
    for part, state in zip(parts, states, strict=True):
        assert torch.equal(part.position, state.position) and torch.equal(part.past, state.past)


@torch.no_grad()
def test_both_orders_of_cross_attention_are_equal():
    attention = CrossAttention(32, 16, 4, dropout=0.0).eval()
    memory, x = torch.randn(2, 50, 16), torch.randn(2, 20, 32)
    mask = torch.rand(2, 20, 50) > 0.5
    together = attention(x, memory, mask)  # projects the frames
    single = [attention(x[:, i : i + 1], memory, mask[:, i : i + 1]) for i in range(20)]  # maps the queries
    torch.testing.assert_close(torch.cat(single, dim=1), together, **CLOSE)


@torch.no_grad()
def test_cross_attention_to_frames_that_all_rows_share_is_that_to_copies_of_them():
    attention = CrossAttention(32, 16, 4, dropout=0.0).eval()
    memory, shared, x = torch.randn(3, 20, 16), torch.randn(30, 16), torch.randn(3, 9, 32)
    mask = torch.rand(3, 9, 50) > 0.5
    copied = attention(x, torch.cat([memory, shared.expand(3, -1, -1)], dim=1), mask)
    torch.testing.assert_close(attention(x, memory, mask, shared), copied, **CLOSE)  # projects the frames
    single = [attention(x[:, i : i + 1], memory, mask[:, i : i + 1], shared) for i in range(9)]  # maps the queries
    torch.testing.assert_close(torch.cat(single, dim=1), copied, **CLOSE)


@torch.no_grad()
def test_both_orders_of_cross_attention_tell_the_same_weights():
    attention = CrossAttention(32, 16, 4, dropout=0.0).eval()
    memory, shared, x = torch.randn(3, 20, 16), torch.randn(30, 16), torch.randn(3, 9, 32)
    mask = torch.rand(3, 9, 50) > 0.5
    everything = torch.cat([memory, shared.expand(3, -1, -1)], dim=1)
    query, key = (part.unflatten(-1, (4, 8)) for part in (attention.query(x), attention.key(everything)))
    scores = torch.einsum("bnhd,bthd->bhnt", query, key) / 8**0.5
    expected = scores.masked_fill(~mask[:, None], float("-inf")).softmax(dim=-1)
    together: list[torch.Tensor] = []
    attention(x, memory, mask, shared, together)
    single: list[torch.Tensor] = []
    for i in range(9):
        attention(x[:, i : i + 1], memory, mask[:, i : i + 1], shared, single)
    torch.testing.assert_close(together[0], expected, **CLOSE)
    torch.testing.assert_close(torch.cat(single, dim=2), expected, **CLOSE)


@pytest.mark.parametrize(
    "form",
    [(), (0.0, "gelu", True, False, 3), (0.0, "gelu", True, False, 3, 50), (0.0, "relu", False, True, 0, 70)],
    ids=["rotary", "learned", "fewer places than frames", "more places than frames"],
)
@torch.no_grad()
def test_streamed_mt_states_equal_those_of_the_training_mask(form):
    decoder = TransformerMTDecoder(50, 1, 16, 32, 2, 4, 64, 6, 20, *form).eval()
    if decoder.places is not None:
        decoder.places.normal_()
        decoder.silence.normal_()
    frames = torch.randn(1, 60, 16)
    visible = torch.tensor([[4, 4, 4, 12, 12, 31, 31, 31, 45, 60, 60]])
    tokens = torch.randint(4, 50, visible.shape)
    memory, mask = decoder.attended(frames, torch.tensor([60]), visible)
    hidden, logits, _ = decoder(tokens, memory, mask)
    state = decoder.init_state()
    passes = _TextPass(decoder)
    for index in range(tokens.size(1)):
        there = int(visible[0, index])
        first = max(0, there - decoder.window_frames)
        window = frames[:, first:there]
        # A discarded hypothesis must not change the state.
        passes([Reading(torch.randint(4, 50, (1, 3)).tolist(), window, copy.deepcopy(state), first)])
        (answer,) = passes([Reading(tokens[:, index : index + 1].tolist(), window, state, first)])
        streamed, scores, state = answer.hidden, answer.logits, answer.state
        torch.testing.assert_close(streamed[:, 0], hidden[:, index], **CLOSE)
        torch.testing.assert_close(scores[:, 0], logits[:, index], **CLOSE)


@pytest.mark.parametrize(
    "shape",
    [
        {"text_layers": 0, "layers": 6, "upsample": 5, "frames_per_position": 5},
        {"text_layers": 2, "layers": 2, "upsample": 25, "frames_per_position": 1},
    ],
    ids=["planned", "streamspeech"],
)
@torch.no_grad()
def test_unit_decoder_word_by_word(shape):
    decoder = CTCTransformerUnitDecoder(20, 16, dim=32, heads=4, ffn_dim=64, window_tokens=3, **shape).eval()
    word_ids = torch.tensor([[0, 0, 1, 2, 2, 2, 3, 4, 4, 5]])
    text = torch.randn(1, 10, 16)
    whole, _ = decoder(text, word_ids)
    assert whole.shape == (1, 250, 21)
    state, pieces = decoder.init_state(), []
    for start, end in ((0, 2), (2, 3), (3, 6), (6, 9), (9, 10)):
        out, state = decoder(text[:, start:end], word_ids[:, start:end], state)
        pieces.append(out)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, **CLOSE)
    changed = text.clone()
    changed[:, 6:] += torch.randn(1, 4, 16)
    assert torch.equal(decoder(changed, word_ids)[0][:, :150], whole[:, :150])


@torch.no_grad()
def test_unit_decoder_reads_words_of_several_streams_in_one_pass():
    shape = {"text_layers": 1, "layers": 2, "upsample": 5, "frames_per_position": 2}
    decoder = CTCTransformerUnitDecoder(20, 16, dim=32, heads=4, ffn_dim=64, window_tokens=3, **shape).eval()
    words = [[0, 0, 1], [0], [0, 0, 0, 1, 1, 2, 3]]
    states = [decoder.init_state()]
    for word_size in (2, 3):
        ids = torch.arange(6)[None] // word_size
        states.append(decoder(torch.randn(1, 6, 16), ids, decoder.init_state())[1])
    text, size = torch.randn(3, 7, 16), 7
    word_ids = torch.tensor([[*row, *[size] * (size - len(row))] for row in words])
    logits, stacked = decoder(text, word_ids, stack(states), lengths=[len(row) for row in words])
    for row, (ids, state, after) in enumerate(zip(words, states, stacked.split(), strict=True)):
        alone, expected = decoder(text[row : row + 1, : len(ids)], torch.tensor([ids]), state)
        torch.testing.assert_close(logits[row : row + 1, : 10 * len(ids)], alone, **CLOSE)
        for part, other in ((after.text, expected.text), (after.unit, expected.unit)):
            assert torch.equal(part.position, other.position)
            torch.testing.assert_close(part.past, other.past, **CLOSE)


def test_ctc_decoding_does_not_depend_on_chunk_boundaries():
    classes = [0, 3, 3, 0, 3, 5, 5, 0, 0, 7, 7, 7, 2]
    whole, _ = CTCReader().read(classes)
    assert [symbol for _, symbol in whole] == [3, 3, 5, 7, 2]
    reader, pieces = CTCReader(), []
    for start in range(0, len(classes), 2):
        symbols, reader = reader.read(classes[start : start + 2])
        pieces += [(start + frame, symbol) for frame, symbol in symbols]
    assert pieces == whole
    tensor = torch.tensor([classes])
    assert greedy_collapse(tensor, torch.tensor([6])) == [[3, 3, 5]]
    assert symbol_counts(tensor)[0].tolist() == [0, 1, 1, 1, 2, 3, 3, 3, 3, 4, 4, 4, 5]


def test_expected_symbols_are_the_mean_over_all_paths():
    logits = torch.randn(4, 3)
    log_probs = logits.log_softmax(-1)
    means = torch.zeros(4)
    for path in itertools.product(range(3), repeat=4):
        probability = log_probs[torch.arange(4), list(path)].sum().exp()
        means += probability * symbol_counts(torch.tensor([path]))[0]
    starts, _ = symbol_starts(logits[None])
    torch.testing.assert_close(starts[0].cumsum(0), means, **CLOSE)
    assert torch.equal(expected_counts(logits[None])[0], means.round().long())


def test_symbols_are_counted_as_read_where_the_head_is_sure_and_at_all_where_it_is_not():
    classes = torch.tensor([[0, 3, 3, 0, 3, 5, 5, 0, 0, 7, 7, 7, 2]])
    assert torch.equal(expected_counts(50 * torch.nn.functional.one_hot(classes).float()), symbol_counts(classes))
    # Each of twenty words is as likely as the others, the blank likelier than any, and none of all unlikely.
    unsure = torch.full((1, 10, 21), 0.3 / 20)
    unsure[..., 0] = 0.7
    assert not symbol_counts(unsure.argmax(-1)).any() and expected_counts(unsure.log())[0, -1] == 3


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_counting_does_not_depend_on_chunk_boundaries(chunk):
    logits = 3 * torch.randn(1, 61, 7)
    counter, frames = ExpectedCounter(), []
    for start in range(0, 61, chunk):
        new, counter = counter.read(logits[0, start : start + chunk])
        frames += [start + frame for frame in new]
    assert counter.read(logits[0, :0]) == ([], counter)
    counts = expected_counts(logits)[0]
    assert frames == (counts.diff(prepend=counts.new_zeros(1)) > 0).nonzero()[:, 0].tolist() and len(frames) > 5


def test_streams_are_counted_together_as_alone():
    logits = 3 * torch.randn(3, 20, 7)
    counters = [ExpectedCounter(), *(ExpectedCounter().read(3 * torch.randn(9, 7))[1] for _ in range(2))]
    for row, (counter, (frames, after)) in enumerate(zip(counters, count_expected(logits, counters), strict=True)):
        expected, following = counter.read(logits[row])
        assert frames == expected and after.rest == following.rest and torch.equal(after.before, following.before)
    assert count_expected(logits[:, :0], counters) == [([], counter) for counter in counters]


def test_rotary_angles_stay_exact_after_an_hour():
    late = rotary_angles(torch.tensor([[90_000]]), 8, torch.float32)
    exact = (90_000 * 10_000.0 ** -(torch.arange(0, 8, 2, dtype=torch.float64) / 8)).cos().float()
    torch.testing.assert_close(late[0][0, 0, 0, :4], exact, rtol=0, atol=1e-7)
