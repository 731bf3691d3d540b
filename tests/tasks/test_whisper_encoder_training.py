"""Training with Whisper's front end and weights: the miniature of it in fairseq's trainer, and then as a stream."""

from pathlib import Path

import numpy as np
import pytest
import torch
from test_training import train

from echostream.checkpoints.model_files import load_model
from echostream.models import EchoStreamSpeechEncoder, architecture_config
from echostream.streaming import StreamingTranslator
from echostream.tasks.data_config import load_speech_config
from echostream.tasks.features import FeatureReader
from echostream.tasks.unlabelled import UnlabelledSpeech

SIZES = {"encoder_dim": 64, "encoder_layers": 2, "encoder_heads": 1, "encoder_ffn_dim": 128}
OPTIONS = ["--arch", "echostream_whisper_base", "--mt-layers", "1", "--unit-layers", "1", "--st-layers", "1"]
OPTIONS += [word for name, value in SIZES.items() for word in (f"--{name.replace('_', '-')}", str(value))]
OPTIONS += ["--batch-size", "3", "--segment-sizes", "2,4,8"]


@pytest.fixture
def whisper_file(tmp_path):
    """A Whisper of two layers, as OpenAI stores it."""
    cfg = architecture_config("echostream_whisper_base")
    for name, value in SIZES.items():
        setattr(cfg, name, value)
    source = EchoStreamSpeechEncoder(cfg)
    weights = {}
    for number, convolution, inputs in ((1, source.subsampler.first, 80), (2, source.subsampler.second, 64)):
        weights[f"encoder.conv{number}.weight"] = convolution.weight.unflatten(1, (3, inputs)).transpose(1, 2)
        weights[f"encoder.conv{number}.bias"] = convolution.bias
    parts = {"norm_attention": "attn_ln", "attention_out": "attn.out", "norm_ffn": "mlp_ln"}
    for i, layer in enumerate(source.emformer.layers):
        for ours, theirs in {**parts, "ffn_in": "mlp.0", "ffn_out": "mlp.2"}.items():
            for kind, tensor in getattr(layer, ours).state_dict().items():
                weights[f"encoder.blocks.{i}.{theirs}.{kind}"] = tensor
        for kind in ("weight", "bias"):
            joined = getattr(layer.query_key_value, kind).chunk(3)
            for part, tensor in zip(("query", "key", "value"), joined, strict=True):
                weights[f"encoder.blocks.{i}.attn.{part}.{kind}"] = tensor
    for kind, tensor in source.emformer.norm_final.state_dict().items():
        weights[f"encoder.ln_post.{kind}"] = tensor
    path = tmp_path / "tiny.pt"
    torch.save({"model_state_dict": {name: tensor.detach().clone() for name, tensor in weights.items()}}, path)
    return path


def without_normalisation(corpus) -> None:
    corpus.edit("config_gcmvn.yaml", lambda text: text.replace("  - global_cmvn\n", ""))
    corpus.replace("config_gcmvn.yaml", "global_cmvn:\n  stats_npz_path: gcmvn.npz\n", "")
    corpus.replace("config_gcmvn.yaml", "  '*':\n", "  '*': []\n")


def test_an_encoder_that_starts_from_whisper_trains_and_streams(corpus, tmp_path, whisper_file):
    without_normalisation(corpus)
    start = ["--init-encoder-from-whisper", str(whisper_file)]
    untrained, _, _ = train(corpus.folder, tmp_path / "none", 1, *OPTIONS, *start, "--lr", "0")
    losses, weights, _ = train(corpus.folder, tmp_path / "run", 12, *OPTIONS, *start)
    assert losses[0] == pytest.approx(untrained[0], rel=1e-5)
    assert losses[-1] < losses[0]
    loaded = load_model(tmp_path / "run" / "checkpoint_last.pt")
    assert loaded.model.cfg.front_end == "whisper"
    assert loaded.model.frame_ms == 20
    saved = loaded.model.state_dict()
    assert all(torch.equal(saved[name], value) for name, value in weights.items())
    # A segment of two frames is one of 40 ms, and the pushes don't matter.
    translator = StreamingTranslator(loaded.model, loaded.source_symbols, loaded.target_symbols, task="s2tt")
    samples = np.random.default_rng(0).normal(0, 0.1, 20_000).astype(np.float32)
    outputs = []
    for size in (20_000, 1_111):
        state, text = translator.init_state(), ""
        for begin in range(0, len(samples), size):
            out = translator.step(samples[begin : begin + size], state, is_last=begin + size >= len(samples))
            text += out.source_text + "|" + out.text
        outputs.append((text.replace("|", ""), state.frames))
    assert outputs[0] == outputs[1]
    assert outputs[0][1] == (loaded.model.fbank.num_frames(20_000) + 1) // 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--encoder-layers", "3"], "has 2 encoder layers, the model 3"),
        (["--encoder-ffn-dim", "64"], "ffn_in.weight has the shape"),
        (["--init-encoder-from", "other.pt"], "the encoder starts from one"),
        (["--encoder-norm", "none"], "encoder_norm is one of closing, final"),
        (["--front-end", "mfcc"], "unknown front end 'mfcc'"),
    ],
)
def test_what_cannot_start_from_whisper_is_one_line(corpus, tmp_path, whisper_file, options, message):
    without_normalisation(corpus)
    with pytest.raises(SystemExit, match=message):
        train(corpus.folder, tmp_path / "x", 1, *OPTIONS, "--init-encoder-from-whisper", str(whisper_file), *options)


def test_a_normalisation_over_the_corpus_is_refused(corpus, tmp_path):
    with pytest.raises(SystemExit, match="leave global_cmvn out"):
        train(corpus.folder, tmp_path / "x", 1, *OPTIONS)


def unlabelled(corpus) -> list[str]:
    """Options with the corpus's own audio as speech without transcripts."""
    rows = [line.split("\t") for line in (corpus.folder / "train.tsv").read_text().splitlines()]
    names = "".join(f"{row[0]}\t{row[1]}\n" for row in rows[1:])
    (corpus.folder / "audio" / "speech.tsv").write_text(f"id\taudio\n{names}")
    return ["--unlabelled-audio", str(corpus.folder / "audio" / "speech.tsv"), "--unlabelled-piece-s", "1.5"]


def distance_after(corpus, folder, updates: int, *options) -> float:
    """Distance from the teacher on one batch's pieces after training."""
    _, _, trainer = train(corpus.folder, folder, updates, *OPTIONS, *options)
    dataset, criterion = trainer.task.datasets["train"], trainer.criterion
    batch = dataset.collater([dataset[0], dataset[1]])
    criterion.train()
    with torch.no_grad():
        log = criterion.compute(trainer.model, {**batch, "segment": 4})[2]
    return float(log["teacher_loss"]) / log["teacher_frames"]


def test_a_teacher_draws_the_encoder_closer(corpus, tmp_path, whisper_file):
    without_normalisation(corpus)
    teacher = ["--encoder-teacher", str(whisper_file), *unlabelled(corpus), "--unlabelled-pieces", "2"]
    untrained = distance_after(corpus, tmp_path / "untrained", 1, *teacher, "--lr", "0")
    taught = distance_after(corpus, tmp_path / "taught", 30, *teacher, "--right-contexts", "0,4")
    ignored = distance_after(corpus, tmp_path / "ignored", 30, *teacher, "--encoder-teacher-weight", "0")
    assert taught < 0.85 * untrained
    assert taught < ignored - 0.1
    # A checkpoint holds nothing of the teacher, and does not need its file.
    saved = torch.load(tmp_path / "taught" / "checkpoint_last.pt", weights_only=False)
    assert not any("teacher" in name for name in saved["model"])
    whisper_file.unlink()
    assert load_model(tmp_path / "taught" / "checkpoint_last.pt").model.cfg.front_end == "whisper"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--encoder-teacher", "{file}"], "name a table with --unlabelled-audio"),
        (["--encoder-teacher", "nothing.pt", "--unlabelled-audio", "{speech}"], "--encoder-teacher: cannot read"),
        (["--encoder-teacher", "{file}", "--unlabelled-audio", "none.tsv"], "none.tsv: no such manifest"),
        (["--encoder-teacher", "{file}", "--unlabelled-audio", "{speech}", "--unlabelled-pieces", "0"], "at least 1"),
        (["--encoder-teacher", "{file}", "--unlabelled-audio", "{speech}", "--unlabelled-piece-s", "31"], "most 30 s"),
        (["--encoder-teacher", "{file}", "--unlabelled-audio", "{speech}", "--encoder-dim", "32"], "size 64"),
        (["--encoder-teacher-weight", "-1"], "must not be negative"),
        (["--right-contexts", "a few"], "right contexts 'a few'"),
    ],
)
def test_a_teacher_that_cannot_teach_is_one_line(corpus, tmp_path, whisper_file, options, message):
    without_normalisation(corpus)
    places = {"{file}": str(whisper_file), "{speech}": unlabelled(corpus)[1]}
    with pytest.raises(SystemExit, match=message):
        train(corpus.folder, tmp_path / "x", 1, *OPTIONS, *(places.get(option, option) for option in options))


def test_pieces_are_those_of_their_key_and_of_one_length(corpus):
    speech = unlabelled(corpus)[1]
    config = load_speech_config(corpus.folder / "config_gcmvn.yaml")
    pieces = UnlabelledSpeech(Path(speech), FeatureReader(config, "train", False, front_end="whisper"), 1.5)
    first, again, other = (pieces.pieces(2, 1, key).numpy() for key in ("a", "a", "b"))
    assert first.shape == (2, 149, 80)  # the last frame's window would reach beyond 1.5 s
    assert (first == again).all()
    assert not (first == other).all()
    assert not (first[0] == first[1]).all()
