"""Distillation from an unmasked teacher: what it measures, and that a student gets closer by it."""

import pytest
import torch

from echostream.criterions.distillation import EncoderDistillation, load_teacher, pair_layers
from echostream.models import EchoStreamSpeechEncoder, architecture_config

LAYERS = 3


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def encoder(layers: int = LAYERS) -> EchoStreamSpeechEncoder:
    cfg = architecture_config("echostream_whisper_base")
    cfg.encoder_dim, cfg.encoder_layers, cfg.encoder_heads, cfg.encoder_ffn_dim = 32, layers, 2, 64
    cfg.left_context_frames = 16
    return EchoStreamSpeechEncoder(cfg).eval()


def pieces(count: int, features: int = 96) -> list[torch.Tensor]:
    return [torch.randn(8, features, 80) for _ in range(count)]


def distance(distillation: EncoderDistillation, student, features, lengths, **options) -> float:
    layers: list[torch.Tensor] = []
    student(features, lengths, layer_outputs=layers, **options)
    total, frames = distillation.loss_sum(layers, features, lengths)
    return float(total) / frames


@torch.no_grad()
def test_the_teacher_itself_owes_only_its_positions():
    teacher = encoder()
    distillation = EncoderDistillation(teacher, LAYERS)
    learned = distillation.learn_positions(pieces(20))
    features, lengths = torch.randn(4, 96, 80), torch.tensor([96, 96, 50, 7])
    own = distance(distillation, teacher, features, lengths)
    expected = float((learned.means.square().mean(dim=(1, 2)) / learned.variances).mean())
    assert 0 <= own < 2 * expected + 0.05
    # Another encoder of the same size knows nothing of it.
    assert distance(distillation, encoder(), features, lengths) > own + 0.5


@torch.no_grad()
def test_padding_does_not_count():
    teacher = encoder()
    distillation = EncoderDistillation(teacher, LAYERS)
    distillation.learn_positions(pieces(4))
    features, lengths, student = torch.randn(2, 96, 80), torch.tensor([96, 40]), encoder()
    before = distance(distillation, student, features, lengths, segment=8, right_context=4)
    features[1, 40:] = 1e3
    assert distance(distillation, student, features, lengths, segment=8, right_context=4) == pytest.approx(before, 1e-5)


def test_a_streaming_student_gets_closer():
    teacher, student = encoder(), encoder().train()
    distillation = EncoderDistillation(teacher, LAYERS)
    distillation.learn_positions(pieces(8))
    features, lengths = torch.randn(4, 96, 80), torch.full((4,), 96)
    optimizer = torch.optim.Adam(student.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        layers: list[torch.Tensor] = []
        student(features, lengths, segment=8, right_context=4, layer_outputs=layers)
        total, frames = distillation.loss_sum(layers, features, lengths)
        optimizer.zero_grad()
        (total / frames).backward()
        optimizer.step()
        losses.append(float(total.detach()) / frames)
    assert losses[-1] < 0.7 * losses[0]
    assert all(parameter.grad is None for parameter in teacher.parameters())


@pytest.mark.parametrize(
    ("student", "teacher", "pairs"),
    [(6, 6, [(2, 2), (3, 3), (4, 4), (5, 5)]), (3, 6, [(1, 3), (2, 5)]), (1, 4, [(0, 3)])],
)
def test_upper_layers_are_compared_with_those_at_their_height(student, teacher, pairs):
    assert pair_layers(student, teacher) == pairs


def test_pieces_of_one_length_are_needed():
    distillation = EncoderDistillation(encoder(), LAYERS)
    with pytest.raises(ValueError, match="no pieces"):
        distillation.learn_positions([])
    with pytest.raises(ValueError, match="all must be of one length"):
        distillation.learn_positions([torch.randn(1, 40, 80), torch.randn(1, 60, 80)])
    distillation.learn_positions([torch.randn(2, 40, 80)])
    with pytest.raises(ValueError, match="a piece of 30 frames, but means of 20 positions"):
        distance(distillation, encoder(), torch.randn(1, 60, 80), torch.tensor([60]))


def test_a_teacher_is_what_the_file_holds(tmp_path):
    source = encoder()
    weights = {"encoder.conv1.weight": source.subsampler.first.weight.unflatten(1, (3, 80)).transpose(1, 2)}
    weights |= {"encoder.conv2.weight": source.subsampler.second.weight.unflatten(1, (3, 32)).transpose(1, 2)}
    weights |= {"encoder.conv1.bias": source.subsampler.first.bias, "encoder.conv2.bias": source.subsampler.second.bias}
    weights |= {f"encoder.ln_post.{k}": v for k, v in source.emformer.norm_final.state_dict().items()}
    names = {"norm_attention": "attn_ln", "attention_out": "attn.out", "norm_ffn": "mlp_ln", "ffn_in": "mlp.0"}
    for i, layer in enumerate(source.emformer.layers):
        for ours, theirs in {**names, "ffn_out": "mlp.2"}.items():
            for kind, tensor in getattr(layer, ours).state_dict().items():
                weights[f"encoder.blocks.{i}.{theirs}.{kind}"] = tensor
        for part, weight, bias in zip(
            ("query", "key", "value"),
            layer.query_key_value.weight.chunk(3),
            layer.query_key_value.bias.chunk(3),
            strict=True,
        ):
            weights |= {f"encoder.blocks.{i}.attn.{part}.weight": weight, f"encoder.blocks.{i}.attn.{part}.bias": bias}
    torch.save(
        {"model_state_dict": {name: tensor.detach().clone() for name, tensor in weights.items()}}, tmp_path / "w.pt"
    )
    teacher = load_teacher(tmp_path / "w.pt")
    assert len(teacher.emformer.layers) == LAYERS
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    with torch.no_grad():
        x = torch.randn(1, 50, 80)
        # The file doesn't say how many heads there are. Whisper's have 64 numbers each; these frames have half of that.
        assert teacher.emformer.heads == 1
        assert teacher(x)[0].shape == source(x)[0].shape
