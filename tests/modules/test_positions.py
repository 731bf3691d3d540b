"""Positions of the encoder for streams without end: the alternatives stream exactly, and none but one has a seam."""

import copy

import pytest
import torch
from test_emformer import random_pieces, stream

from echostream.models import EchoStreamConfig, EchoStreamSpeechEncoder, architecture_config
from echostream.models.config import POSITIONS
from echostream.modules.cyclic_positions import TABLE_FRAMES, CyclicPositions, FadingPositions
from echostream.modules.emformer import Emformer
from echostream.modules.relative_bias import REACH, RelativeBias

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def config(positions: str, **options) -> EchoStreamConfig:
    cfg = architecture_config("echostream_whisper_base")
    cfg.encoder_dim, cfg.encoder_layers, cfg.encoder_heads, cfg.encoder_ffn_dim = 32, 3, 2, 64
    cfg.left_context_frames, cfg.encoder_positions = 12, positions
    for name, value in options.items():
        setattr(cfg, name, value)
    return cfg


def encoder(positions: str, **options) -> EchoStreamSpeechEncoder:
    """One whose biases, which start at zero, are learned, and whose fading positions are half gone."""
    made = EchoStreamSpeechEncoder(config(positions, **options)).eval()
    for part in made.modules():
        if isinstance(part, RelativeBias):
            torch.nn.init.normal_(part.weight, std=0.2)
        elif isinstance(part, FadingPositions):
            part.set_num_updates(part.fade_updates // 2)
    return made


@pytest.mark.parametrize("right_context", [0, 3])
@pytest.mark.parametrize("segment", [1, 4, 16, 0])
@pytest.mark.parametrize("memory_slots", [0, 3])
@pytest.mark.parametrize("positions", POSITIONS)
@torch.no_grad()
def test_step_equals_forward(positions, memory_slots, segment, right_context):
    model = encoder(positions, memory_slots=memory_slots, memory_block_frames=5)
    x = torch.randn(2, 151, 80)
    options = {"segment": segment, "right_context": right_context}
    whole, lengths, _ = model(x, **options)
    assert lengths.tolist() == [76, 76]
    for seed in range(2):
        torch.testing.assert_close(stream(model, x, random_pieces(151, seed, 30), **options), whole, **CLOSE)


@pytest.mark.parametrize("positions", POSITIONS)
@torch.no_grad()
def test_batch_equals_solo_whatever_the_padding_holds(positions):
    model, lengths = encoder(positions, memory_slots=2, memory_block_frames=4), torch.tensor([200, 131, 7])
    x = torch.full((3, 200, 80), float("nan"))
    for row, length in enumerate(lengths.tolist()):
        x[row, :length] = torch.randn(length, 80)
    out, _, _ = model(x, lengths, segment=8, right_context=4)
    for row, length in enumerate(lengths.tolist()):
        alone, _, _ = model(x[row : row + 1, :length], segment=8, right_context=4)
        torch.testing.assert_close(out[row, : alone.size(1)], alone[0], **CLOSE)


@pytest.mark.parametrize("positions", POSITIONS)
@torch.no_grad()
def test_streams_at_different_places_share_a_step(positions):
    model, options = encoder(positions, memory_slots=2, memory_block_frames=4), {"segment": 8, "right_context": 4}
    heard = [torch.randn(1, length, 80) for length in (25, 89)]
    states = [model(x, is_last=False, **options)[2] for x in heard]
    x = torch.randn(2, 16, 80)
    together, _, after = model(x, state=type(states[0]).stack(states), is_last=False, **options)
    assert together.size(1) == 8
    for row, state in enumerate(states):
        alone, _, own = model(x[row : row + 1], state=state, is_last=False, **options)
        torch.testing.assert_close(together[row], alone[0], **CLOSE)
        torch.testing.assert_close(after.split()[row].emformer.left, own.emformer.left, **CLOSE)


@pytest.mark.parametrize("positions", POSITIONS)
@torch.no_grad()
def test_the_state_keeps_its_size_and_a_copy_continues_identically(positions):
    model, options = encoder(positions), {"segment": 8, "right_context": 4}
    state, sizes = model.init_state(), set()
    for _ in range(2 * TABLE_FRAMES // 8):
        _, _, state = model(torch.randn(1, 16, 80), state=state, is_last=False, **options)
        sizes.add(state.nbytes)
    assert len(sizes) <= 2, "while the first segment's right context is missing, less is waiting"
    saved, x = copy.deepcopy(state), torch.randn(1, 50, 80)
    assert torch.equal(model(x, state=state, **options)[0], model(x, state=saved, **options)[0])


@pytest.mark.parametrize(("positions", "has_a_seam"), [(name, name in ("cyclic", "fading")) for name in POSITIONS])
@torch.no_grad()
def test_what_is_heard_does_not_depend_on_when(positions, has_a_seam):
    """The same audio, a number of segments later that is no whole table; fading positions are the same once gone."""
    model = encoder(positions)
    x = torch.randn(1, 2 * 1_000, 80)
    x[:, 2 * 800 :] = x[:, :400]
    out, _, _ = model(x, segment=8, right_context=4)
    beyond = slice(60, 190)  # what the layers' left context reaches back
    first, later = out[:, beyond], out[:, 800 + beyond.start : 800 + beyond.stop]
    assert torch.allclose(first, later, **CLOSE) is not has_a_seam
    if positions == "fading":
        model.positions.set_num_updates(model.positions.fade_updates)
        out, _, _ = model(x, segment=8, right_context=4)
        torch.testing.assert_close(out[:, beyond], out[:, 800 + beyond.start : 800 + beyond.stop], **CLOSE)


@torch.no_grad()
def test_the_order_of_frames_is_heard_only_with_positions():
    """Frames of the middle of one segment change places; those beside them must notice, but for ``none``."""
    x = torch.randn(1, 16, 32)
    mixed = x[:, [0, *range(8, 0, -1), *range(9, 16)]]
    for relative in (False, True):
        model = Emformer(32, 2, 2, 64, dropout=0.0, rotary=False, relative=relative, memory_slots=0).eval()
        for layer in model.layers:
            if layer.relative_bias is not None:
                layer.relative_bias.weight.normal_(std=0.2)
        assert torch.allclose(model(x)[0][:, 12], model(mixed)[0][:, 12], **CLOSE) is not relative


@torch.no_grad()
def test_a_bias_of_zero_changes_nothing_and_distance_is_what_it_knows():
    plain = encoder("none")
    biased = EchoStreamSpeechEncoder(config("relative")).eval()
    biased.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(1, 200, 80)
    torch.testing.assert_close(biased(x, segment=8)[0], plain(x, segment=8)[0], **CLOSE)
    bias = RelativeBias(2)
    bias.weight.normal_()
    distance = torch.tensor([[[0, 1, -1, REACH, REACH + 50, -REACH - 50]]])
    out = bias(distance, torch.tensor([[[[True, True, True, True, True, False]]]]))[0, :, 0] / 10
    middle = bias.weight[:, REACH]
    torch.testing.assert_close(out[:, 0], middle)
    torch.testing.assert_close(out[:, 1:3], bias.weight[:, [REACH + 1, REACH - 1]])
    torch.testing.assert_close(out[:, 3], out[:, 4])
    assert bool((out[:, 5] == float("-inf")).all())


def test_every_distance_within_reach_learns():
    model = Emformer(16, 1, 2, 32, left_context=12, memory_slots=0, dropout=0.0, rotary=False, relative=True)
    out, _, _ = model(torch.randn(1, 100, 16), segment=8, right_context=4)
    (out * torch.randn_like(out)).sum().backward()
    gradient = model.layers.item(0).relative_bias.weight.grad
    learned = gradient.abs().sum(0).nonzero().flatten() - REACH
    assert (learned.min().item(), learned.max().item()) == (-11, 19)
    assert bool(gradient.isfinite().all())


@torch.no_grad()
def test_fading_positions_go_with_the_updates_and_never_come_back():
    cyclic, fading = CyclicPositions(8).eval(), FadingPositions(8, 10).eval()
    x = torch.zeros(1, 30, 8)
    fading.set_num_updates(0)
    assert torch.equal(fading(x), cyclic(x))
    fading.set_num_updates(4)
    torch.testing.assert_close(fading(x), 0.6 * cyclic(x))
    again = FadingPositions(8, 10).eval()
    again.load_state_dict(fading.state_dict())
    again.set_num_updates(0)  # another training begins
    assert torch.equal(again(x), fading(x))
    again.set_num_updates(12)
    assert not again(x).any()
    assert not FadingPositions(8, 0).eval()(x).any()
