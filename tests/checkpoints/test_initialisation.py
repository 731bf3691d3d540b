"""``--init-encoder-from`` and ``--init-decoders-from``: what is taken computes the same, what isn't is listed.

The foreign file is written by fairseq's own Conformer UnitY, the model that StreamSpeech is derived from: its modules
give the names and shapes. StreamSpeech adds ``<blank>`` behind the units.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import omegaconf
import pytest
import torch
from fairseq.data import Dictionary
from fairseq.models.speech_to_speech.s2s_conformer_unity import UnityConformerModel, unity_conformer_architecture_base

import echostream.tasks  # noqa: F401  # makes fairseq's checkpoints readable
from echostream.checkpoints.initialisation import PretrainedError, grouped, initialise, read_source, report
from echostream.models import EchoStreamConfig, EchoStreamModel
from echostream.tasks import EchoStreamTask  # noqa: F401  lets fairseq read its own checkpoints

SOURCE_VOCAB, TARGET_VOCAB, UNITS = 14, 16, 10
SIZES = EchoStreamConfig(
    subsampler_hidden_dim=48,
    encoder_dim=32,
    encoder_layers=2,
    encoder_ffn_dim=40,
    encoder_conv_kernel=15,
    st_layers=1,
    mt_dim=64,
    mt_layers=2,
    mt_heads=4,
    mt_ffn_dim=72,
    unit_dim=64,
    unit_text_layers=2,
    unit_layers=2,
    unit_heads=4,
    unit_ffn_dim=72,
    unit_upsample=25,
    unit_frames_per_position=1,
    dropout=0.0,
)
TASK_STATE = {
    "source_symbols": [f"s{i}" for i in range(SOURCE_VOCAB)],
    "target_symbols": [f"t{i}" for i in range(TARGET_VOCAB)],
}


def dictionary(size: int) -> Dictionary:
    result = Dictionary()
    for number in range(size - result.nspecial):
        result.add_symbol(f"piece{number}")
    return result


def unity(cfg: EchoStreamConfig = SIZES, *, depthwise_kernel: int = 31) -> UnityConformerModel:
    """fairseq's model with the sizes in ``cfg``, built as in StreamSpeech's training script."""
    args = argparse.Namespace(
        encoder_layers=cfg.encoder_layers, encoder_embed_dim=cfg.encoder_dim, encoder_ffn_embed_dim=cfg.encoder_ffn_dim,
        encoder_attention_heads=cfg.encoder_heads, decoder_layers=cfg.unit_layers, decoder_embed_dim=cfg.unit_dim,
        decoder_ffn_embed_dim=cfg.unit_ffn_dim, decoder_attention_heads=cfg.unit_heads, dropout=0.0,
        translation_decoder_layers=cfg.mt_layers, synthesizer_encoder_layers=cfg.unit_text_layers,
        share_decoder_input_output_embed=True, conv_version="s2t_transformer", conv_channels=cfg.subsampler_hidden_dim,
        depthwise_conv_kernel_size=depthwise_kernel, attn_type="espnet", pos_enc_type="rel_pos", n_frames_per_step=1,
        input_feat_per_channel=80, input_channels=1, target_speaker_embed=False, fp16=False,
    )  # fmt: skip
    unity_conformer_architecture_base(args)

    def text(size: int, kind: str) -> SimpleNamespace:
        decoder_args = argparse.Namespace(dropout=0.0, decoder_ffn_embed_dim=cfg.mt_ffn_dim)
        return SimpleNamespace(
            args=argparse.Namespace(decoder_type=kind, input_from="encoder", decoder_args=decoder_args),
            target_dictionary=dictionary(size),
            is_first_pass_decoder=kind == "transformer",
        )

    units = dictionary(4 + UNITS)
    units.add_symbol("<blank>")
    texts = {
        "target_unigram": text(TARGET_VOCAB, "transformer"),
        "source_unigram": text(SOURCE_VOCAB, "ctc"),
        "ctc_target_unigram": text(TARGET_VOCAB, "ctc"),
    }
    torch.manual_seed(1)
    model = UnityConformerModel.build_model(args, SimpleNamespace(target_dictionary=units, multitask_tasks=texts))
    for parameter in model.parameters():  # also norms and biases, so that swapped ones are noticed
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> tuple[UnityConformerModel, Path]:
    """fairseq's model and its checkpoint, with everything else that fairseq stores in it."""
    model = unity()
    path = tmp_path_factory.mktemp("published") / "streamspeech.pt"
    torch.save(
        {
            "args": argparse.Namespace(arch="streamspeech"),
            "cfg": omegaconf.OmegaConf.create({"model": {"arch": "streamspeech", "layers": [1, 2]}}),
            "model": model.state_dict(),
            "extra_state": {"best": np.float64(1.5), "val_loss": 2.0},
            "task_state": {},
        },
        path,
    )
    return model, path


def fresh(seed: int = 0, **changes) -> EchoStreamModel:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    cfg = dataclasses.replace(SIZES, **changes)
    return EchoStreamModel(cfg, SOURCE_VOCAB, TARGET_VOCAB, UNITS).eval()


@pytest.fixture(scope="module")
def started(published) -> tuple[EchoStreamModel, list, list[str]]:
    model = fresh()
    transfers, missing = initialise(model, {"encoder": published[1], "decoders": published[1]}, TASK_STATE)
    return model, transfers, missing


def test_ctc_heads_compute_the_same(published, started):
    frames = torch.randn(2, 5, 32)
    expected = published[0].source_unigram_decoder(frames)["encoder_out"]
    torch.testing.assert_close(started[0].asr_head(frames)[0], expected)
    expected = published[0].ctc_target_unigram_decoder(frames)["encoder_out"]
    torch.testing.assert_close(started[0].st_head.output(frames), expected)


def test_text_decoder_computes_the_same(published, started):
    """Compared at the first position, where there is no rotation, and without fairseq's sinusoidal positions."""
    theirs, ours = published[0].target_unigram_decoder, started[0].mt_decoder
    memory, token = torch.randn(3, 7, 32), torch.tensor([[2], [9], [15]])
    positions, theirs.embed_positions = theirs.embed_positions, None
    expected, extra = theirs(token, {"encoder_out": [memory.transpose(0, 1)], "encoder_padding_mask": []})
    theirs.embed_positions = positions
    hidden, logits, _ = ours(token, memory)
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        hidden, theirs.layer_norm(extra["inner_states"][-1]).transpose(0, 1), atol=1e-4, rtol=1e-4
    )


def test_unit_decoder_computes_the_same_before_upsampling(published, started):
    text = torch.randn(3, 1, 64)
    expected = published[0].synthesizer_encoder(text.transpose(0, 1), None)["encoder_out"][0]
    unit_decoder = started[0].unit_decoder
    torch.testing.assert_close(unit_decoder.text_stack(unit_decoder.project(text))[0].transpose(0, 1), expected)


def test_unit_layers_and_output(published, started):
    """The weights are compared, because the layers differ in their cross-attention; here the blank comes first."""
    theirs, ours = published[0].decoder, started[0].unit_decoder
    for one, other in zip(theirs.layers, ours.unit_stack.layers, strict=True):
        stacked = torch.cat([getattr(one.self_attn, f"{name}_proj").weight for name in "qkv"])
        assert torch.equal(other.query_key_value.weight, stacked)
        assert torch.equal(other.ffn_out.bias, one.fc2.bias)
        assert torch.equal(other.norm_ffn.weight, one.final_layer_norm.weight)
    rows = theirs.embed_tokens.weight
    assert rows.shape == (4 + UNITS + 1, 64)
    assert torch.equal(ours.output.weight[0], rows[-1])
    assert torch.equal(ours.output.weight[1:], rows[4:-1])
    assert not ours.output.bias.any()


def test_units_without_a_separate_blank(published):
    """fairseq's S2UT models have only the four special symbols, of which the first is the blank."""
    _, path = published
    content = read_source(path)
    rows = content.tensors["decoder.embed_tokens.weight"]
    tensors = {
        **content.tensors,
        "decoder.embed_tokens.weight": rows[:-1],
        "decoder.output_projection.weight": rows[:-1],
    }
    shorter = path.with_name("without_blank.pt")
    torch.save({"model": tensors}, shorter)
    model = fresh()
    initialise(model, {"decoders": shorter}, TASK_STATE)
    assert torch.equal(model.unit_decoder.output.weight, torch.cat([rows[:1], rows[4:-1]]))


def test_subsampler_equals_that_of_fairseq_one_frame_earlier(published, started):
    features = torch.randn(2, 40, 80)
    theirs, ours = published[0].encoder.subsample, started[0].encoder.subsampler
    for conv, strided, x in (
        (theirs.conv_layers[0], ours.first, features),
        (theirs.conv_layers[1], ours.second, torch.randn(2, 40, 24)),
    ):
        expected = torch.nn.functional.glu(conv(x.transpose(1, 2)), dim=1).transpose(1, 2)
        ahead = torch.nn.functional.pad(x[:, 1:], (0, 0, strided.context, 1))
        torch.testing.assert_close(strided(ahead)[:, 2:], expected[:, 2:], atol=1e-5, rtol=1e-5)


def test_conformer_layers(published, started):
    for one, other in zip(published[0].encoder.conformer_layers, started[0].encoder.emformer.layers, strict=True):
        stacked = torch.cat([getattr(one.self_attn, f"linear_{name}").bias for name in "qkv"])
        assert torch.equal(other.query_key_value.bias, stacked)
        assert torch.equal(other.attention_out.weight, one.self_attn.linear_out.weight)
        assert torch.equal(other.convolution.expand.weight, one.conv_module.pointwise_conv1.weight[..., 0])
        assert not other.convolution.expand.bias.any()
        frames = torch.randn(2, 4, 32)
        residual = other.ffn_out(other.activation(other.ffn_in(other.norm_ffn(frames))))
        torch.testing.assert_close(residual, 0.5 * one.ffn2(frames))


def test_every_weight_is_used_or_listed(published, started):
    model, (transfer,), missing = started
    tensors = read_source(published[1]).tensors
    assert transfer.num_tensors == len(tensors)
    assert transfer.left.keys() <= tensors.keys()
    for name in transfer.left:  # only weights without a counterpart in EchoStream
        assert any(
            part in name
            for part in ("ffn1", "linear_pos", "pos_bias", "batch_norm", "depthwise", "encoder.linear", "version")
        ) or (name.startswith("decoder.") and "encoder_attn" in name), name  # fmt: skip
    names = {name for name, _ in model.named_parameters()}
    assert transfer.filled.keys() | set(missing) == names
    assert not transfer.filled.keys() & set(missing)
    for name in missing:
        assert name.startswith(("st_head.stack.", "unit_decoder.slot")) or ".convolution." in name, name
    notes, warnings = report([transfer], missing)
    assert any(
        "encoder.conformer_layers.0-1.ffn1.w_1.weight,bias (4): the model has nothing like it" in n for n in notes
    )
    assert any(
        "0-1.conv_module.depthwise_conv.weight (2): the model's shape is (32, 1, 15), not (32, 1, 31)" in n
        for n in notes
    )
    assert warnings[0].startswith(f"{len(missing)} parameters of the model come from no file")
    assert any("st_head.stack.layers.0.ffn_in.weight,bias (2)" in line for line in warnings)


def test_different_shapes_are_listed(published):
    model = fresh(mt_ffn_dim=80, unit_frames_per_position=5, unit_upsample=5)
    before = model.mt_decoder.stack.layers[0].ffn_in.weight.clone()
    (transfer,), missing = initialise(model, {"decoders": published[1]}, TASK_STATE)
    assert torch.equal(model.mt_decoder.stack.layers[0].ffn_in.weight, before)
    assert "mt_decoder.stack.layers.0.ffn_in.weight" in missing
    assert "(80, 64), not (72, 64)" in transfer.left["target_unigram_decoder.layers.0.fc1.weight"]
    assert "unit_decoder.output.weight" in missing
    assert "decoder.embed_tokens.weight" in transfer.left
    assert transfer.left["encoder.conformer_layers.0.self_attn.linear_q.weight"] == "not asked for"


def own_checkpoint(path: Path, **changes) -> EchoStreamModel:
    model = fresh(seed=5, **changes)
    torch.save({"model": model.state_dict(), "cfg": {}, "task_state": {**TASK_STATE, "num_units": UNITS}}, path)
    return model


def test_encoder_of_echostream_with_other_decoders(tmp_path):
    trained = own_checkpoint(tmp_path / "ours.pt")
    model = fresh(mt_layers=1, unit_dim=32)
    decoders = {name: value.clone() for name, value in model.state_dict().items() if not name.startswith("encoder.")}
    (transfer,), missing = initialise(model, {"encoder": tmp_path / "ours.pt"}, TASK_STATE)
    for name, value in trained.encoder.state_dict().items():
        assert torch.equal(model.encoder.state_dict()[name], value)
    for name, value in decoders.items():
        assert torch.equal(model.state_dict()[name], value)
    assert not [name for name in missing if name.startswith("encoder.")]
    assert set(transfer.left.values()) == {"not asked for"}


def test_rows_of_another_dictionary_are_not_used(tmp_path):
    own_checkpoint(tmp_path / "ours.pt")
    model = fresh()
    other = {**TASK_STATE, "source_symbols": TASK_STATE["source_symbols"][::-1]}
    (transfer,), missing = initialise(model, {"decoders": tmp_path / "ours.pt"}, other)
    assert missing == [*[n for n, _ in model.named_parameters() if n.startswith("encoder.")],
                       "asr_head.output.weight", "asr_head.output.bias"]  # fmt: skip
    assert transfer.left["asr_head.output.bias"] == "the dictionary is another one"


def test_two_files(published, tmp_path):
    trained = own_checkpoint(tmp_path / "ours.pt")
    model = fresh()
    requests = {"encoder": tmp_path / "ours.pt", "decoders": published[1]}
    transfers, _ = initialise(model, requests, TASK_STATE)
    assert [transfer.parts for transfer in transfers] == [("encoder",), ("decoders",)]
    assert torch.equal(model.encoder.emformer.layers[1].ffn_in.weight, trained.encoder.emformer.layers[1].ffn_in.weight)
    expected = published[0].target_unigram_decoder.embed_tokens.weight
    assert torch.equal(model.mt_decoder.embedding.weight, expected)


class Evil:
    def __reduce__(self):
        return print, ("this must not run",)


def test_unusable_files_are_rejected(tmp_path, capsys):
    with pytest.raises(PretrainedError, match=r"none\.pt: no such checkpoint"):
        initialise(fresh(), {"encoder": tmp_path / "none.pt"}, TASK_STATE)
    (tmp_path / "text.pt").write_text("not a checkpoint", encoding="utf-8")
    with pytest.raises(PretrainedError, match=r"text\.pt: can't be loaded"):
        read_source(tmp_path / "text.pt")
    torch.save({"model": {}, "extra": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(PretrainedError, match=r"evil\.pt: can't be loaded.*print"):
        read_source(tmp_path / "evil.pt")
    assert "must not run" not in capsys.readouterr().out
    torch.save({"weights": {}}, tmp_path / "other.pt")
    with pytest.raises(PretrainedError, match=r"other\.pt: not a fairseq checkpoint"):
        read_source(tmp_path / "other.pt")
    torch.save({"model": {"vision.layers.0.weight": torch.zeros(2)}}, tmp_path / "vision.pt")
    with pytest.raises(PretrainedError, match=r"vision\.pt: nothing in it fits the encoder of the model.*vision"):
        initialise(fresh(), {"encoder": tmp_path / "vision.pt"}, TASK_STATE)


def test_reading_a_file_does_not_change_the_safe_loader(published):
    before = set(map(str, torch.serialization.get_safe_globals()))
    assert str(argparse.Namespace) in before  # fairseq's own checkpoints need it
    read_source(published[1])
    assert set(map(str, torch.serialization.get_safe_globals())) == before


def test_groups_are_short():
    names = [f"a.{i}.b.{j}.{leaf}" for i in range(3) for j in (0, 2) for leaf in ("weight", "bias")]
    assert grouped(dict.fromkeys(names, "")) == ["a.0-2.b.0,2.weight,bias (12)"]
    assert grouped({"version": "why"}) == ["version (1): why"]


def test_log_is_complete(published, started, caplog):
    """All names of the file and of the model are in the log, in groups or alone."""
    _, (transfer,), missing = started
    notes, warnings = report([transfer], missing)
    with caplog.at_level(logging.INFO):
        for line in (*notes, *warnings):
            logging.getLogger("echostream").info(line)
    counted = sum(int(line.rsplit("(", 1)[1].split(")")[0]) for line in warnings[1:])
    assert counted == len(missing)
