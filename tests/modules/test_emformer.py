"""Emformer: streaming equals the whole forward pass, and no output depends on frames beyond the look-ahead."""

import copy

import pytest
import torch
from torchaudio.models import Emformer as TorchaudioEmformer

from echostream.modules.emformer import Emformer, EmformerState

SEGMENTS = [1, 2, 4, 8, 16, 32, 0]
NUM_FRAMES = 75


def make_emformer(**options) -> Emformer:
    torch.manual_seed(1)
    sizes = {"left_context": 6, "memory_slots": 3, "memory_block": 2, "dropout": 0.0, "conv_kernel": 5}
    return Emformer(16, 3, 2, 32, **{**sizes, **options}).eval()


def stream(model: Emformer, x: torch.Tensor, pieces: list[int], **options) -> torch.Tensor:
    """Encode ``x`` in chunks of ``pieces`` frames; the remaining frames form the last chunk."""
    state, outputs, start = None, [], 0
    for size in pieces:
        out, _, state = model(x[:, start : start + size], state=state, is_last=False, **options)
        outputs.append(out)
        start += size
    out, _, state = model(x[:, start:], state=state, is_last=True, **options)
    assert state is None
    return torch.cat([*outputs, out], dim=1)


def random_pieces(total: int, seed: int, most: int = 9) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    pieces: list[int] = []
    while sum(pieces) < total:
        pieces.append(int(torch.randint(0, most, (1,), generator=generator)))
    return pieces[:-1]


@pytest.mark.parametrize("right_context", [0, 1, 2])
@pytest.mark.parametrize("segment", SEGMENTS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"conv_kernel": 0},
        {"memory_slots": 0},
        {"left_context": 5, "memory_block": 3, "memory_slots": 2},
        {"left_context": 0, "rotary": False},
    ],
    ids=["conv", "no-conv", "no-memory", "odd-memory", "no-left-no-positions"],
)
@torch.no_grad()
def test_step_equals_forward(options, segment, right_context):
    model = make_emformer(**options)
    x = torch.randn(2, NUM_FRAMES, 16)
    full, lengths, _ = model(x, segment=segment, right_context=right_context)
    assert lengths.tolist() == [NUM_FRAMES] * 2
    for seed in range(3):
        streamed = stream(model, x, random_pieces(NUM_FRAMES, seed), segment=segment, right_context=right_context)
        torch.testing.assert_close(streamed, full, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("padding", [0.0, 1e3, float("nan")])
@pytest.mark.parametrize("segment", SEGMENTS)
@torch.no_grad()
def test_batch_equals_single_with_any_padding(segment, padding):
    model = make_emformer()
    lengths = [NUM_FRAMES, 33, 1, 16]
    batch = torch.full((len(lengths), NUM_FRAMES, 16), padding)
    items = [torch.randn(1, length, 16) for length in lengths]
    for row, item in zip(batch, items, strict=True):
        row[: item.size(1)] = item[0]
    out, out_lengths, _ = model(batch, torch.tensor(lengths), segment=segment)
    assert out_lengths.tolist() == lengths
    for row, item in zip(out, items, strict=True):
        solo, _, _ = model(item, segment=segment)
        torch.testing.assert_close(row[: item.size(1)], solo[0], rtol=1e-5, atol=1e-5)
        assert not row[item.size(1) :].any()


@pytest.mark.parametrize("segment", [1, 4, 8])
@pytest.mark.parametrize("right_context", [0, 1, 2])
def test_frames_beyond_the_look_ahead_do_not_change_outputs(segment, right_context):
    model = make_emformer()
    x = torch.randn(1, 40, 16, requires_grad=True)
    weights = torch.randn(16)
    out, _, _ = model(x, segment=segment, right_context=right_context)
    for frame in (0, 7, 12, 19):
        # The sum itself would be constant after layer normalisation.
        (gradient,) = torch.autograd.grad(out[0, frame] @ weights, x, retain_graph=True)
        reached = gradient[0].abs().sum(dim=1).nonzero().max().item()
        assert reached == (frame // segment + 1) * segment - 1 + right_context


@torch.no_grad()
def test_streams_join_and_leave_a_batch_at_any_step():
    model = make_emformer()
    segment, sessions = 4, {}
    solo = {name: (x := torch.randn(1, 61, 16), model(x, segment=segment)[0]) for name in ("a", "b", "c")}
    joins, leaves = {"a": 0, "b": 3, "c": 7}, {"a": 9, "b": 12, "c": 14}
    collected: dict[str, list[torch.Tensor]] = {name: [] for name in solo}
    for step in range(15):
        for name in solo:
            if joins[name] == step:
                sessions[name] = model.init_state()
        # States can be stacked only with equal numbers of pending frames, so the first step includes the right context.
        groups = {0: [], 1: []}
        for name, session in sessions.items():
            groups[session.pending.size(1)].append(name)
        for waiting, names in groups.items():
            if not names:
                continue
            chunks, size = [], segment + 1 - waiting
            for name in names:
                start = sum(out.size(1) for out in collected[name]) + waiting
                chunks.append(solo[name][0][:, start : start + size])
            state = EmformerState.stack([sessions[name] for name in names])
            out, _, state = model(torch.cat(chunks), state=state, segment=segment, is_last=False)
            for name, row, part in zip(names, out, state.split(), strict=True):
                collected[name].append(row[None])
                sessions[name] = part
        for name in [n for n in sessions if leaves[n] == step]:
            del sessions[name]
    for name, (_, full) in solo.items():
        streamed = torch.cat(collected[name], dim=1)
        assert streamed.size(1) == segment * (leaves[name] - joins[name] + 1)
        torch.testing.assert_close(streamed, full[:, : streamed.size(1)], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_copied_state_continues_identically_and_independently():
    model = make_emformer()
    x = torch.randn(1, 60, 16)
    _, _, state = model(x[:, :30], segment=4, is_last=False)
    saved = copy.deepcopy(state)
    model(torch.randn(1, 30, 16), state=state, segment=4)
    expected, _, _ = model(x[:, 30:], state=state, segment=4)
    restored, _, _ = model(x[:, 30:], state=saved, segment=4)
    assert torch.equal(expected, restored)


@torch.no_grad()
def test_state_size_does_not_grow():
    model = make_emformer()
    state, sizes = model.init_state(), []
    for _ in range(200):
        _, _, state = model(torch.randn(1, 4, 16), state=state, segment=4, is_last=False)
        sizes.append(state.nbytes)
    assert len(set(sizes[1:])) == 1


@torch.no_grad()
def test_memory_covers_its_slots_beyond_the_left_context_and_no_more():
    model = make_emformer(conv_kernel=0)
    x = torch.randn(1, 100, 16)
    full, _, _ = model(x, segment=2)
    changed = x.clone()
    changed[:, 20:22] = torch.randn(1, 2, 16)  # one memory block
    moved = (model(changed, segment=2)[0] - full).abs().amax(dim=2)[0] > 1e-6
    single_layer_reach = model.left_context + model.memory_slots * model.memory_block
    assert moved[20 + model.left_context + 4]
    assert not moved[22 + len(model.layers) * single_layer_reach + 2 :].any()


@pytest.mark.parametrize("right_context", [0, 1, 3])
@torch.no_grad()
def test_equals_torchaudio_for_supported_settings(right_context):
    """Settings: complete segments, one item, no padding, no memory and no rotary positions; weights map one to one."""
    segment, left, dim, layers = 4, 8, 16, 3
    theirs = TorchaudioEmformer(
        dim,
        2,
        32,
        layers,
        segment,
        activation="gelu",
        left_context_length=left,
        right_context_length=right_context,
    ).eval()
    ours = make_emformer(left_context=left, memory_slots=0, conv_kernel=0, rotary=False, activation="gelu")
    for mine, other in zip(ours.layers, theirs.emformer_layers, strict=True):
        norm, ffn_in, ffn_out = other.pos_ff[0], other.pos_ff[1], other.pos_ff[4]
        attention = other.attention
        mine.query_key_value.weight.copy_(torch.cat([attention.emb_to_query.weight, attention.emb_to_key_value.weight]))
        mine.query_key_value.bias.copy_(torch.cat([attention.emb_to_query.bias, attention.emb_to_key_value.bias]))
        for target, source in (
            (mine.attention_out, attention.out_proj),
            (mine.norm_attention, other.layer_norm_input),
            (mine.norm_ffn, norm),
            (mine.ffn_in, ffn_in),
            (mine.ffn_out, ffn_out),
            (mine.norm_out, other.layer_norm_output),
        ):
            target.load_state_dict(source.state_dict())
    x = torch.randn(1, 10 * segment + right_context, dim)
    expected, _ = theirs(x, torch.tensor([x.size(1)]))
    out, _, _ = ours(x, segment=segment, right_context=right_context, is_last=False)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{"segment": -1}, {"right_context": -1}])
def test_negative_sizes_are_rejected(options):
    with pytest.raises(ValueError, match="negative"):
        make_emformer()(torch.randn(1, 5, 16), **options)


def test_padding_before_the_last_chunk_is_rejected():
    with pytest.raises(ValueError, match="last piece"):
        make_emformer()(torch.randn(1, 8, 16), torch.tensor([5]), segment=2, is_last=False)


def test_layers_are_not_dropped_in_a_stream():
    """The state has a place for each of them, and a stream stays what it is without dropping."""
    dropping, plain = (make_emformer(dropout=0.0, layer_drop=drop).train() for drop in (0.9, 0.0))
    x = torch.randn(1, 12, 16)
    outs = []
    for model in (dropping, plain):
        first, _, state = model(x[:, :6], segment=2, is_last=False)
        rest, _, _ = model(x[:, 6:], state=state, segment=2)
        outs.append(torch.cat([first, rest], dim=1))
    torch.testing.assert_close(*outs)


def test_gradients_are_finite_with_padding():
    model = make_emformer(dropout=0.1, layer_drop=0.3).train()
    x = torch.randn(3, 30, 16, requires_grad=True)
    out, _, _ = model(x, torch.tensor([30, 11, 2]), segment=4)
    out.square().sum().backward()
    assert torch.isfinite(x.grad).all()
    assert not x.grad[1, 11:].any()
