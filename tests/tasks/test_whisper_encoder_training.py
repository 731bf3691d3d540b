"""Training with Whisper's front end and weights: the miniature of it in fairseq's trainer, and then as a stream."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from test_training import train

from echostream.checkpoints.model_files import load_model
from echostream.criterions.distillation import load_teacher
from echostream.models import EchoStreamSpeechEncoder, architecture_config
from echostream.models.config import POSITIONS
from echostream.models.mt_decoder import TransformerMTDecoder
from echostream.streaming import StreamingTranslator
from echostream.tasks.data_config import load_speech_config
from echostream.tasks.features import FeatureReader
from echostream.tasks.unlabelled import CODECS, UnlabelledSpeech, over_telephone, parse_speeds
from scripts.benchmarks import benchmark_recognition

SIZES = {"encoder_dim": 64, "encoder_layers": 2, "encoder_heads": 1, "encoder_ffn_dim": 128}
OPTIONS = ["--arch", "echostream_whisper_base", "--mt-layers", "1", "--unit-layers", "1", "--st-layers", "1"]
OPTIONS += [word for name, value in SIZES.items() for word in (f"--{name.replace('_', '-')}", str(value))]
OPTIONS += ["--batch-size", "3", "--segment-sizes", "2,4,8"]


# Two of the corpus's subwords, and what a text decoder needs.
TOKENS = ["\u0120hello", "ld", "<|startoftranscript|>", "<|fr|>", "<|translate|>", "<|notimestamps|>", "<|endoftext|>"]
TOKENS = {token: number for number, token in enumerate([*"abcdefghijklmnoprstuvwz.", "\u0120", *TOKENS])}
DECODER = ["--mt-dim", "64", "--mt-heads", "1", "--mt-ffn-dim", "128", "--mt-languages", "1"]


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
    decoder = TransformerMTDecoder(len(TOKENS), 1, 64, 64, 1, 1, 128, 64, 512, 0.0, "gelu", True, False)
    weights["decoder.token_embedding.weight"] = decoder.embedding.weight
    weights["decoder.positional_embedding"] = decoder.positions.weight
    layer = decoder.stack.layers[0]
    cross = {"norm_cross": "cross_attn_ln"}
    for ours, theirs in {**parts, **cross, "ffn_in": "mlp.0", "ffn_out": "mlp.2"}.items():
        for kind, tensor in getattr(layer, ours).state_dict().items():
            weights[f"decoder.blocks.0.{theirs}.{kind}"] = tensor
    for name, tensor in layer.cross_attention.state_dict().items():
        weights[f"decoder.blocks.0.cross_attn.{name}"] = tensor
    for kind in ("weight", "bias"):
        joined = getattr(layer.query_key_value, kind).chunk(3)
        for part, tensor in zip(("query", "key", "value"), joined, strict=True):
            weights[f"decoder.blocks.0.attn.{part}.{kind}"] = tensor
        weights[f"decoder.ln.{kind}"] = getattr(decoder.stack.norm, kind)
    content = {
        "model": {"vocab": {token: number for token, number in TOKENS.items() if not token.startswith("<|")}},
        "added_tokens": [{"content": token, "id": number} for token, number in TOKENS.items()],
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
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


def test_frozen_parts_stay_as_they_are(corpus, tmp_path, whisper_file):
    without_normalisation(corpus)
    start = [*OPTIONS, "--init-encoder-from-whisper", str(whisper_file)]
    _, before, _ = train(corpus.folder, tmp_path / "before", 1, *start, "--lr", "0", "--weight-decay", "0")
    _, after, _ = train(corpus.folder, tmp_path / "after", 4, *start, "--freeze", "encoder, asr_head")
    changed = {name.split(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {"st_head", "mt_decoder", "unit_decoder"}
    below = "encoder.subsampler,encoder.emformer.layers.0"
    _, after, _ = train(corpus.folder, tmp_path / "below", 4, *start, "--freeze", below)
    same = {name for name, value in after.items() if torch.equal(value, before[name])}
    for name in after:
        if name.startswith(("encoder.subsampler.", "encoder.emformer.layers.0.")):
            assert name in same
    assert "encoder.emformer.layers.1.ffn_in.weight" not in same
    everything = "encoder,asr_head,st_head,mt_decoder,unit_decoder"
    for names, message in (
        ("ears", "--freeze ears: the model has no such part, but"),
        ("encoder.ears", "--freeze encoder.ears: the model has no such part, but subsampler, "),
        (everything, "nothing to train"),
    ):
        with pytest.raises(SystemExit, match=message):
            train(corpus.folder, tmp_path / "x", 1, *start, "--freeze", names)


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
        (
            ["--encoder-teacher", "{file}", "--unlabelled-audio", "{speech}", "--unlabelled-telephone-share", "2"],
            "to 1",
        ),
        (["--encoder-teacher", "{file}", "--unlabelled-audio", "{speech}", "--unlabelled-speeds", "1,9"], "0.5 to 2"),
        (["--encoder-teacher", "{file}", "--unlabelled-audio", "{speech}", "--unlabelled-speeds", "fast"], "'fast'"),
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
    first, again, other = (pieces.pieces(2, 1, key)[0].numpy() for key in ("a", "a", "b"))
    assert first.shape == (2, 149, 80)  # the last frame's window would reach beyond 1.5 s
    assert (first == again).all()
    assert not (first == other).all()
    assert not (first[0] == first[1]).all()


def test_of_a_share_of_the_pieces_the_student_hears_what_a_telephone_leaves(corpus):
    speech, config = unlabelled(corpus)[1], load_speech_config(corpus.folder / "config_gcmvn.yaml")
    reader = FeatureReader(config, "train", False, front_end="whisper")
    whole, kept = (UnlabelledSpeech(Path(speech), reader, 1.5, share).pieces(40, "a") for share in (0.0, 0.5))
    assert whole[0].equal(whole[1])
    same = [heard.equal(all_of_it) for heard, all_of_it in zip(*kept, strict=True)]
    assert 8 < sum(same) < 32
    heard, all_of_it = (part[[not one for one in same]] for part in kept)
    # Of the 80 bands the first 3 lie below 150 Hz, the last 15 above 4,400 Hz.
    lost = (all_of_it - heard).mean(dim=(0, 1))
    assert lost[:3].min() > 0.3 and lost[-15:].min() > 0.3
    assert lost[15:50].abs().max() < 0.3
    for codec in CODECS:
        assert over_telephone(torch.randn(1601).clamp(-1, 1), codec).shape == (1601,)


def test_a_recording_is_heard_at_speeds_drawn_from_a_list(corpus):
    """A tone in a recording is as much higher as it is faster; student and teacher hear the same."""
    tone = corpus.folder / "tone.wav"
    soundfile.write(tone, 0.5 * np.sin(2 * np.pi * 440 * np.arange(32_000) / 16_000), 16_000)
    table = corpus.folder / "tone.tsv"
    table.write_text("id\taudio\ntone\ttone.wav\n", encoding="utf-8")
    reader = FeatureReader(load_speech_config(corpus.folder / "config_gcmvn.yaml"), "train", False, front_end="whisper")
    speech = UnlabelledSpeech(table, reader, 0.5, speeds=parse_speeds("0.5,1,2"))
    heard, taught = speech.pieces(60, "a")
    assert heard.equal(taught)
    loudest = heard[:, 5:-5].mean(dim=1).argmax(dim=1).bincount()
    pitches = loudest.nonzero().flatten().tolist()
    assert len(pitches) == 3 and loudest.max() < 40
    # Slaney's bands lie evenly up to 1,000 Hz, so that an octave below 880 Hz is twice the band's number.
    assert pitches[2] - pitches[1] == pytest.approx(2 * (pitches[1] - pitches[0]), abs=1)


def test_a_text_decoder_that_starts_from_whisper_trains_and_streams(corpus, tmp_path, whisper_file, caplog):
    without_normalisation(corpus)
    start = ["--init-encoder-from-whisper", str(whisper_file), "--init-mt-decoder-from-whisper", str(whisper_file)]
    options = [*OPTIONS, *DECODER, *start, "--encoder-stack", "2"]
    with caplog.at_level("INFO"):
        untrained, weights, _ = train(corpus.folder, tmp_path / "none", 1, *options, "--lr", "0")
    assert "1 layers, 28 tensors; 4 subwords that it doesn't have start from their bytes" in caplog.text
    original = torch.load(whisper_file, weights_only=True)["model_state_dict"]
    assert weights["mt_decoder.embedding.weight"][4].equal(
        original["decoder.token_embedding.weight"][TOKENS["\u0120hello"]]
    )
    losses, _, _ = train(corpus.folder, tmp_path / "run", 12, *options)
    assert losses[0] == pytest.approx(untrained[0], rel=1e-5)
    assert losses[-1] < losses[0]
    loaded = load_model(tmp_path / "run" / "checkpoint_last.pt")
    assert (loaded.model.frame_ms, loaded.model.cfg.mt_prompt_tokens) == (40, 3)
    translator = StreamingTranslator(loaded.model, loaded.source_symbols, loaded.target_symbols, task="s2tt")
    samples = np.random.default_rng(0).normal(0, 0.1, 30_000).astype(np.float32)
    texts = []
    for size in (30_000, 1_234):
        state = translator.init_state()
        outs = [
            translator.step(samples[i : i + size], state, is_last=i + size >= 30_000) for i in range(0, 30_000, size)
        ]
        texts.append("".join(out.text for out in outs))
    assert texts[0] == texts[1]


@pytest.mark.parametrize("of_the_data", [False, True])
def test_places_of_a_text_decoder_are_measured_from_speech(corpus, tmp_path, whisper_file, of_the_data, caplog):
    """A place is what Whisper's frames there have in common, and silence its frames of silence, both as memory."""
    without_normalisation(corpus)
    start = ["--init-mt-decoder-from-whisper", str(whisper_file), "--unlabelled-piece-s", "4", "--mt-places", "120"]
    speech = [] if of_the_data else unlabelled(corpus)
    options = [*OPTIONS, *DECODER, *speech, *start, "--encoder-stack", "2", "--lr", "0"]
    with caplog.at_level("INFO"):
        _, weights, _ = train(corpus.folder, tmp_path / "none", 1, *options)
    assert "its 120 places and the silence behind them: measured from 96 pieces of speech" in caplog.text
    teacher = load_teacher(whisper_file)
    reader = FeatureReader(load_speech_config(corpus.folder / "config_gcmvn.yaml"), "train", False, front_end="whisper")
    with torch.no_grad():
        silence, _, _ = teacher(torch.from_numpy(reader.of_samples(torch.zeros(30 * 16_000 + 320)))[None, :3000])
    joined = silence[0].unflatten(0, (750, 2)).mean(dim=1)[:120]
    torch.testing.assert_close(weights["mt_decoder.silence"], joined, rtol=1e-5, atol=1e-5)
    places = weights["mt_decoder.places"]
    # The 200 frames of a piece are 100 places, whose mean was taken off; those behind them are as the last one.
    assert places[:100].mean(dim=0).abs().max() < 0.01 < places[:99].std(dim=0).max()
    assert places[100:].equal(places[100:101].expand(20, -1))


def test_weights_that_were_learned_elsewhere_can_learn_more_slowly(corpus, tmp_path, whisper_file):
    without_normalisation(corpus)
    start = ["--init-encoder-from-whisper", str(whisper_file), "--init-mt-decoder-from-whisper", str(whisper_file)]
    options = [*OPTIONS, *DECODER, *start, "--optimizer", "echostream_adamw", "--pretrained-lr-scale"]
    _, before, _ = train(corpus.folder, tmp_path / "none", 1, *options, "0.5", "--lr", "0")
    _, after, trainer = train(corpus.folder, tmp_path / "run", 1, *options, "0.5")
    _, frozen, _ = train(corpus.folder, tmp_path / "frozen", 1, *options, "0")
    assert trainer.get_lr() == pytest.approx(1e-3)

    def moved(weights: dict, part: str) -> float:
        return max(float((weights[n] - before[n]).abs().max()) for n in before if n.startswith(part))

    # Adam's first step is the learning rate, in whatever direction.
    for part, expected in (
        ("encoder.emformer", 5e-4),
        ("mt_decoder", 5e-4),
        ("asr_head", 1e-3),
        ("unit_decoder", 1e-3),
    ):
        assert moved(after, part) == pytest.approx(expected, rel=0.05)
    assert moved(frozen, "encoder.emformer") == moved(frozen, "mt_decoder") == 0
    # Interrupted, it goes on with the same rates.
    _, whole, _ = train(corpus.folder, tmp_path / "whole", 3, *options, "0.5")
    train(corpus.folder, tmp_path / "parts", 1, *options, "0.5")
    _, parts, _ = train(corpus.folder, tmp_path / "parts", 2, *options, "0.5")
    assert all(torch.equal(parts[name], value) for name, value in whole.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--init-mt-decoder-from-whisper", "{file}", "--mt-dim", "32"], "choose --arch echostream_whisper_base"),
        (["--init-mt-decoder-from-whisper", "{file}", "--mt-prompt-tokens", "0"], "needs a prompt"),
        (["--init-mt-decoder-from-whisper", "{file}", "--mt-prompt-tokens", "2"], "prompt has the shape"),
        (["--init-mt-decoder-from-whisper", "{file}", "--mt-languages", "99"], "give --mt-languages 1"),
        (["--init-mt-decoder-from-whisper", "{file}", "--whisper-language", "xx"], "don't know 'xx'"),
        (["--init-mt-decoder-from-whisper", "{elsewhere}"], "needs the names of its tokens"),
        (
            ["--init-mt-decoder-from-whisper", "{file}", "--pretrained-lr-scale", "0.1"],
            "needs --optimizer echostream_adamw",
        ),
        (["--optimizer", "echostream_adamw", "--pretrained-lr-scale", "0.1"], "or give --pretrained-lr-scale 1"),
    ],
)
def test_a_decoder_that_cannot_start_from_whisper_is_one_line(corpus, tmp_path, whisper_file, options, message):
    without_normalisation(corpus)
    (tmp_path / "elsewhere").mkdir()
    elsewhere = tmp_path / "elsewhere" / "tiny.pt"
    elsewhere.write_bytes(whisper_file.read_bytes())
    places = {"{file}": str(whisper_file), "{elsewhere}": str(elsewhere)}
    with pytest.raises(SystemExit, match=message):
        train(corpus.folder, tmp_path / "x", 1, *OPTIONS, *DECODER, *(places.get(one, one) for one in options))


def test_the_comparison_of_positions_in_miniature(corpus, tmp_path, whisper_file, monkeypatch, capsys):
    """Whisper's weights under each kind of positions, and none of them: trained, streamed, and put into one table."""
    without_normalisation(corpus)
    whisper = ["--init-encoder-from-whisper", str(whisper_file), "--pretrained-lr-scale", "0.1"]
    options = [*OPTIONS, "--optimizer", "echostream_adamw", "--encoder-fade-updates", "6", "--right-contexts", "0,4"]
    options += ["--asr-weight", "1", "--st-weight", "0", "--mt-weight", "0", "--unit-weight", "0"]
    options += ["--encoder-teacher", str(whisper_file), *unlabelled(corpus)]
    samples = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, 20_000).astype(np.float32))
    command = ["benchmark_recognition.py", "--output", str(tmp_path / "table")]
    for name in (*POSITIONS, "random"):
        start = ["--encoder-positions", name, *whisper] if name != "random" else []
        losses, weights, _ = train(corpus.folder, tmp_path / name, 12, *options, *start)
        assert np.mean(losses[-3:]) < np.mean(losses[:3]), name
        path = tmp_path / name / "checkpoint_last.pt"
        command += ["--model", f"{name}={path}"]
        model = load_model(path).model
        assert model.cfg.encoder_positions == (name if name != "random" else "cyclic")
        biases = [weight for key, weight in weights.items() if key.endswith("relative_bias.weight")]
        assert len(biases) == (SIZES["encoder_layers"] if name in ("relative", "fading") else 0)
        # They start from zero, and learn at the whole rate beside Whisper's weights.
        assert all(2e-3 < float(bias.abs().max()) < 2e-2 for bias in biases)
        if name == "fading":
            assert float(weights["encoder.positions.strength"]) == 0
        features, state, pieces = model.fbank(samples)[0][None], None, []
        for right_context in (0, 4):
            shape = {"segment": 4, "right_context": right_context}
            pieces, state = [], model.encoder.init_state()
            for begin in range(0, features.size(1), 13):
                last = begin + 13 >= features.size(1)
                frames, _, state = model.encoder(features[:, begin : begin + 13], state=state, is_last=last, **shape)
                pieces.append(frames)
            torch.testing.assert_close(torch.cat(pieces, 1), model.encoder(features, **shape)[0], rtol=1e-5, atol=1e-5)
    rows = [line.split("\t") for line in (corpus.folder / "dev.tsv").read_text().splitlines()[1:]]
    texts = dict(line.split("\t") for line in (corpus.folder / "source" / "dev.tsv").read_text().splitlines()[1:])
    files = [str(corpus.folder / "audio" / row[1]) for row in rows]
    (corpus.folder / "source.txt").write_text("".join(f"{file}\n" for file in files))
    said = [texts[row[0]].replace(" ", "").replace("\u2581", " ").strip() for row in rows]
    (corpus.folder / "source_text.txt").write_text("".join(f"{text}\n" for text in said))
    command += ["--set", f"dev={corpus.folder}", "--segments-ms", "80", "--right-contexts-ms", "0", "80"]
    monkeypatch.setattr(sys, "argv", [*command, "--stream-s", "31", "--gap-s", "0"])
    benchmark_recognition.main()
    table = capsys.readouterr().out
    for name in POSITIONS:
        assert table.count(f"| {name} | {name} | 80 |") == 2
        assert f"| {name} | {name} | dev | 1 of 31 s | over the seam |" in table
    assert table.count("| random | cyclic | 80 |") == 2


def test_fading_positions_go_on_fading_after_an_interruption(corpus, tmp_path, whisper_file):
    without_normalisation(corpus)
    options = [*OPTIONS, "--init-encoder-from-whisper", str(whisper_file), "--encoder-positions", "fading"]
    options += ["--encoder-fade-updates", "8"]
    _, whole, _ = train(corpus.folder, tmp_path / "whole", 5, *options)
    train(corpus.folder, tmp_path / "parts", 2, *options)
    _, parts, _ = train(corpus.folder, tmp_path / "parts", 3, *options)
    assert all(torch.equal(parts[name], value) for name, value in whole.items())
    assert float(whole["encoder.positions.strength"]) == 0.5  # that of the fifth update, after four
