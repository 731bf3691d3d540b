"""Whisper's front end and layers as options of the encoder: streaming equals the whole, and its weights move in."""

import dataclasses

import numpy as np
import pytest
import torch

from echostream.models import EchoStreamConfig, EchoStreamSpeechEncoder, architecture_config
from echostream.models.front_end_contract import CONTRACT, check_features_in_pieces, check_missing_samples
from echostream.models.front_ends import find_front_end
from echostream.modules.band import Band
from echostream.modules.cyclic_positions import TABLE_FRAMES, CyclicPositions
from echostream.modules.emformer import Emformer
from echostream.modules.segment_layout import Layout
from echostream.modules.whisper_features import WhisperFeatures
from echostream.modules.whisper_subsampling import WhisperSubsampler

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def small_config(**options) -> EchoStreamConfig:
    cfg = architecture_config("echostream_whisper_base")
    cfg.encoder_dim, cfg.encoder_layers, cfg.encoder_heads, cfg.encoder_ffn_dim = 32, 3, 2, 64
    cfg.left_context_frames = 12
    for name, value in options.items():
        setattr(cfg, name, value)
    return cfg


def cut(total: int, most: int) -> list[int]:
    sizes: list[int] = []
    while sum(sizes) < total:
        sizes.append(min(total - sum(sizes), int(torch.randint(1, most + 1, (1,)))))
    return sizes


# --- contract ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", ["fbank", "whisper"])
def test_built_in_front_ends_keep_the_contract(name, check):
    check(find_front_end(name))


def test_the_contract_finds_what_breaks_it():
    class Late(WhisperFeatures):
        def missing_samples(self, num_features, state):
            return super().missing_samples(num_features, state) + 1

    class Forgetful(WhisperFeatures):
        def forward(self, samples, state=None):
            return super().forward(samples)

    whisper = find_front_end("whisper")
    with pytest.raises(AssertionError, match="missing_samples says"):
        check_missing_samples(dataclasses.replace(whisper, features=Late))
    with pytest.raises(AssertionError, match="pushes of 7 samples"):
        check_features_in_pieces(dataclasses.replace(whisper, features=Forgetful))


# --- features -------------------------------------------------------------------------------------------------------


def test_features_are_whispers_but_for_the_fading_maximum():
    # Loudness rises, so that the loudest frame so far is the loudest of what Whisper's own features see up to there.
    whisper = pytest.importorskip("faster_whisper.feature_extractor")
    wave = torch.randn(16_000) * torch.linspace(0.01, 0.3, 16_000)
    ours = WhisperFeatures().log_mel(wave)
    theirs = torch.from_numpy(whisper.FeatureExtractor()(wave.numpy(), padding=0)).T
    assert (ours[-20:-1] - theirs[len(ours) - 20 : len(ours) - 1]).abs().max() < 0.05
    # Where the floor does not cut, only the arithmetic differs.
    audible = theirs[: len(ours) - 1] > theirs.max() - 1.5
    torch.testing.assert_close(ours[:-1][audible], theirs[: len(ours) - 1][audible], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("most", [1, 7, 399, 5000])
def test_features_in_pieces_equal_the_whole(most):
    features, wave = WhisperFeatures(), torch.randn(3_000) * torch.rand(3_000)
    whole = features.log_mel(wave)
    assert whole.shape == (features.num_frames(3_000), 80)
    state, pieces, start = None, [], 0
    for size in cut(wave.size(0), most):
        out, state = features(wave[start : start + size], state)
        pieces.append(out)
        start += size
    torch.testing.assert_close(torch.cat(pieces), whole, **CLOSE)


@pytest.mark.parametrize("num_samples", [0, 200, 201, 400])
def test_short_recordings_have_few_features(num_samples):
    assert WhisperFeatures().log_mel(torch.randn(num_samples)).size(0) == WhisperFeatures.num_frames(num_samples)


def test_missing_samples_are_exactly_those_that_the_next_features_need():
    features, wave, state, start = WhisperFeatures(), torch.randn(20_000), None, 0
    for count in (1, 1, 2, 5, 32):
        missing = features.missing_samples(count, state or features.init_state())
        assert features(wave[start : start + missing - 1], state)[0].size(0) == count - 1
        out, state = features(wave[start : start + missing], state)
        assert out.size(0) == count
        start += missing


def test_a_bang_raises_the_floor_for_a_while_only():
    features = WhisperFeatures()
    wave = torch.randn(16_000 * 70) * 1e-4
    wave[8_000:8_400] = 1.0
    floor = features.log_mel(wave).amin(dim=1)
    assert floor[100] > floor[10] + 0.5  # 0.5 is 20 dB
    assert floor[-1] < floor[100] - 0.25


# --- subsampler -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("total", [0, 1, 2, 3, 42, 64])
@torch.no_grad()
def test_subsampler_in_pieces_and_in_a_padded_batch(total):
    subsampler, x = WhisperSubsampler(80, 16).eval(), torch.randn(1, total, 80)
    whole, lengths, _ = subsampler(x)
    assert whole.size(1) == lengths.item() == -(-total // 2)
    state, pieces, start = subsampler.init_state(), [], 0
    for size in [*cut(total, 9), 0][:-1]:
        out, _, state = subsampler(x[:, start : start + size], state=state, is_last=False)
        pieces.append(out)
        start += size
    last, _, _ = subsampler(x[:, start:], state=state)
    torch.testing.assert_close(torch.cat([*pieces, last], dim=1), whole, **CLOSE)
    batch = torch.full((2, 80, 80), float("nan"))
    batch[0, :total], batch[1] = x[0], torch.randn(80, 80)
    padded, lengths, _ = subsampler(batch, torch.tensor([total, 80]))
    assert lengths.tolist() == [whole.size(1), 40]
    torch.testing.assert_close(padded[0, : whole.size(1)], whole[0], **CLOSE)


def test_subsampler_looks_two_features_ahead():
    x = torch.randn(1, 40, 80, requires_grad=True)
    out, _, _ = WhisperSubsampler(80, 16)(x)
    (gradient,) = torch.autograd.grad(out[0, 5].sum(), x)
    assert gradient[0].abs().sum(dim=1).nonzero().max().item() == 2 * 5 + 2


# --- encoder --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stack", [1, 2])
@pytest.mark.parametrize("right_context", [0, 2, 8])
@pytest.mark.parametrize("segment", [1, 2, 8, 16, 0])
@torch.no_grad()
def test_waveform_to_frames_in_pushes_of_any_size(segment, right_context, stack):
    encoder, features = EchoStreamSpeechEncoder(small_config(encoder_stack=stack)).eval(), WhisperFeatures()
    wave = torch.randn(16_000 * 2 + 777) * 0.1
    options = {"segment": segment, "right_context": right_context}
    whole, lengths, _ = encoder(features.log_mel(wave)[None], **options)
    assert lengths.item() == whole.size(1)
    state, feature_state, pieces, start = encoder.init_state(), None, [], 0
    sizes = cut(wave.size(0), 6_000)
    for number, size in enumerate(sizes):
        new, feature_state = features(wave[start : start + size], feature_state)
        start += size
        is_last = number == len(sizes) - 1
        frames, _, state = encoder(new[None], state=state, is_last=is_last, **options)
        pieces.append(frames)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, **CLOSE)


@torch.no_grad()
def test_the_missing_features_complete_exactly_one_segment():
    encoder, x, state, start = EchoStreamSpeechEncoder(small_config()).eval(), torch.randn(1, 300, 80), None, 0
    state = encoder.init_state()
    for _ in range(5):
        missing = encoder.missing_features(8, 4, state)
        options = {"segment": 8, "right_context": 4, "is_last": False}
        assert encoder(x[:, start : start + missing - 1], state=state, **options)[0].size(1) == 0
        frames, _, state = encoder(x[:, start : start + missing], state=state, **options)
        assert frames.size(1) == 8
        start += missing


@pytest.mark.parametrize("padding", [0.0, float("nan")])
@torch.no_grad()
def test_batch_equals_solo_whatever_the_padding_holds(padding):
    encoder = EchoStreamSpeechEncoder(small_config()).eval()
    lengths = torch.tensor([200, 131, 7])
    x = torch.full((3, 200, 80), padding)
    for row, length in enumerate(lengths.tolist()):
        x[row, :length] = torch.randn(length, 80)
    out, out_lengths, _ = encoder(x, lengths, segment=8, right_context=4)
    for row, length in enumerate(lengths.tolist()):
        alone, _, _ = encoder(x[row : row + 1, :length], segment=8, right_context=4)
        assert out_lengths[row] == alone.size(1)
        torch.testing.assert_close(out[row, : alone.size(1)], alone[0], **CLOSE)


@torch.no_grad()
def test_positions_go_round_and_training_begins_anywhere():
    positions = CyclicPositions(8).eval()
    zeros = torch.zeros(1, 10, 8)
    ahead = positions(zeros, torch.tensor([TABLE_FRAMES - 5]))
    torch.testing.assert_close(ahead[0, 5:], positions(zeros)[0, :5], **CLOSE)
    assert positions.train()(zeros).ne(positions(zeros)).any()
    assert positions.eval()(zeros).eq(positions(zeros)).all()


@torch.no_grad()
def test_a_stream_passes_the_seam_of_the_table():
    # A whole table later, which is a whole number of segments too, the same audio gives the same frames.
    encoder = EchoStreamSpeechEncoder(small_config()).eval()
    x = torch.randn(1, 2 * TABLE_FRAMES + 400, 80)
    x[:, 2 * TABLE_FRAMES :] = x[:, :400]
    out, _, _ = encoder(x, segment=12, right_context=4)
    # Beyond what the layers' left context reaches back.
    torch.testing.assert_close(out[:, TABLE_FRAMES + 80 : TABLE_FRAMES + 190], out[:, 80:190], **CLOSE)


# --- banded attention -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"conv_kernel": 7, "memory_slots": 3, "memory_block": 5, "left_context": 7},
        {"memory_slots": 0, "left_context": 0},
        {"closing_norm": False, "final_norm": True, "activation": "gelu", "rotary": False, "memory_slots": 0},
        {"relative": True, "rotary": False, "memory_slots": 3, "memory_block": 5, "left_context": 7},
        {"relative": True, "rotary": False, "memory_slots": 0, "left_context": 12},
    ],
)
@pytest.mark.parametrize(
    ("total", "segment", "right"), [(200, 2, 1), (333, 8, 3), (130, 16, 0), (97, 13, 13), (9, 4, 2)]
)
@torch.no_grad()
def test_the_band_gives_what_the_dense_mask_gives(options, total, segment, right):
    model = Emformer(16, 2, 2, 32, dropout=0.0, **options).eval()
    for layer in model.layers:
        if layer.relative_bias is not None:
            layer.relative_bias.weight.normal_()
    lengths = torch.tensor([total, max(1, total // 2), max(1, total - 3)])
    valid = torch.arange(total) < lengths[:, None]
    x = torch.randn(3, total, 16) * valid[..., None]
    banded, _, _ = model(x, lengths, segment=segment, right_context=right)
    dense, _ = model._encode(x, lengths, None, Layout.build(total, segment, right, x.device), True, [])
    torch.testing.assert_close(banded, model.norm_final(dense) * valid[..., None], **CLOSE)


def test_the_band_grows_with_the_length_and_not_with_its_square():
    def numbers(frames: int) -> int:
        return Band.build(frames, 8, 4, 48, torch.device("cpu")).mask(torch.tensor([frames])).numel()

    assert numbers(6_400) == 10 * numbers(640)


def test_gradients_of_the_band_are_finite_with_padding():
    model = Emformer(16, 2, 2, 32, dropout=0.0)
    x = torch.randn(2, 100, 16, requires_grad=True)
    out, _, _ = model(x, torch.tensor([100, 3]), segment=4, right_context=2)
    out.square().sum().backward()
    assert x.grad is not None
    assert bool(torch.isfinite(x.grad).all())
    assert bool((x.grad[1, 3:] == 0).all())


def test_layer_outputs_are_the_frames_after_each_layer():
    encoder = EchoStreamSpeechEncoder(small_config()).eval()
    layers: list[torch.Tensor] = []
    out, _, _ = encoder(torch.randn(1, 100, 80), segment=8, right_context=4, layer_outputs=layers)
    assert len(layers) == 3
    torch.testing.assert_close(encoder.emformer.norm_final(layers[-1]), out, **CLOSE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"front_end": "mfcc"}, "unknown front end 'mfcc': choose one of fbank, whisper"),
        ({"encoder_positions": "absolute"}, "encoder_positions is one of rotary, cyclic, relative, fading, none"),
        ({"encoder_fade_updates": -1}, "encoder_fade_updates must not be negative"),
        ({"encoder_stack": 0}, "encoder_stack must be at least 1"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        EchoStreamSpeechEncoder(small_config(**options))


def test_whispers_features_take_no_normalisation():
    with pytest.raises(ValueError, match="leave global_cmvn out"):
        WhisperFeatures().set_cmvn(torch.zeros(80), torch.ones(80))


def test_features_stay_float32_in_a_half_precision_model():
    assert WhisperFeatures().half()(torch.from_numpy(np.zeros(800, np.float32)))[0].dtype == torch.float32
