"""Unit vocoders: the published format, streaming against whole utterances, and clear refusals."""

import json
import math

import pytest
import torch

from echostream.checkpoints.vocoder_files import load_vocoder, save_vocoder
from echostream.vocoders.contract import CONTRACT, check_memory, check_steps_repeat, check_streaming, stream
from echostream.vocoders.interface import VocoderError, deduplicate
from echostream.vocoders.registry import VOCODERS, build_vocoder, register_vocoder

NUM_UNITS = 50
DURATIONS = {
    "encoder_embed_dim": 16,
    "var_pred_hidden_dim": 16,
    "var_pred_kernel_size": 3,
    "var_pred_dropout": 0.5,
}
CODE_HIFIGAN = {
    "num_embeddings": NUM_UNITS,
    "embedding_dim": 16,
    "model_in_dim": 16,
    "upsample_rates": [5, 4, 4, 2, 2],
    "upsample_kernel_sizes": [11, 8, 8, 4, 4],
    "upsample_initial_channel": 32,
    "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
    "dur_prediction_weight": 1.0,
    "dur_predictor_params": DURATIONS,
}
MULTI_SPEAKER = CODE_HIFIGAN | {"multispkr": "from_input_file", "num_speakers": 5, "model_in_dim": 32}
ISTFT = {
    "type": "istft",
    "num_embeddings": NUM_UNITS,
    "channels": 16,
    "hidden_channels": 32,
    "layers": 3,
    "kernel_size": 5,
    "n_fft": 640,
    "spectra_per_frame": 2,
    "dur_predictor_params": DURATIONS,
}
ISTFT_AHEAD = ISTFT | {"dur_predictor_params": DURATIONS | {"var_pred_lookahead": 2, "var_pred_carry": True}}
CONFIGS = {"code_hifigan": CODE_HIFIGAN, "istft": ISTFT, "istft_ahead": ISTFT_AHEAD}
istft = pytest.mark.parametrize("vocoder", ["istft", "istft_ahead"], indirect=True)
code_hifigan = pytest.mark.parametrize("vocoder", ["code_hifigan"], indirect=True)
kinds = pytest.mark.parametrize("vocoder", list(CONFIGS), indirect=True)


def make_lively(model):
    """Random weights that make a signal about as loud as speech, with units of about three frames."""
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if name == "dur_predictor.proj.bias":
            parameter.data.fill_(1.2)
        elif parameter.dim() == 3 and not name.startswith("dur_predictor"):
            fan_in = parameter[0].numel() if "ups" not in name else parameter.size(0) * 2
            gain = {"resblocks": 0.5, "conv_post": 0.3}.get(name.split(".")[0], 1.0)
            torch.nn.init.normal_(parameter, 0.0, gain / fan_in**0.5)
    return model.eval().requires_grad_(False)


@pytest.fixture
def vocoder(request):
    return make_lively(build_vocoder(CONFIGS[request.param]))


@pytest.fixture
def units():
    return torch.randint(NUM_UNITS, (45,), generator=torch.Generator().manual_seed(1))


def fix_durations(vocoder, frames):
    """Every unit lasts ``frames``."""
    vocoder.dur_predictor.proj.weight.zero_()
    vocoder.dur_predictor.proj.bias.fill_(math.log(frames + 1))


def snr_db(wanted, got):
    return 10 * torch.log10(wanted.square().sum() / (got - wanted).square().sum()).item()


@pytest.mark.parametrize(("config", "speaker"), [(CODE_HIFIGAN, None), (MULTI_SPEAKER, 3)])
def test_published_format_gives_fairseqs_waveform(tmp_path, units, config, speaker):
    from fairseq.models.text_to_speech.codehifigan import CodeGenerator
    from fairseq.models.text_to_speech.vocoder import CodeHiFiGANVocoder

    torch.manual_seed(0)
    generator = CodeGenerator(config)
    for name, parameter in generator.named_parameters():
        if name.endswith("weight_g"):
            parameter.data.mul_(1 + 2 * torch.rand_like(parameter))
        elif name == "dur_predictor.proj.bias":
            parameter.data.fill_(1.2)
    torch.save({"generator": generator.state_dict()}, tmp_path / "g_00500000")
    (tmp_path / "config.json").write_text(json.dumps(config))
    inputs = {"code": units[None].clone()} | ({"spkr": torch.tensor([[speaker]])} if speaker else {})
    expected = CodeHiFiGANVocoder(str(tmp_path / "g_00500000"), config)(inputs, dur_prediction=True)

    ours = load_vocoder(tmp_path)
    wave, durations = ours(units[None], speaker=speaker)
    assert durations.unique().numel() > 1
    assert expected.std() > 1e-4
    assert wave.shape == (1, len(expected)) == (1, int(durations.sum()) * ours.hop_samples)
    torch.testing.assert_close(wave[0], expected, atol=1e-5, rtol=0)

    again = CodeHiFiGANVocoder(str(save_vocoder(ours, tmp_path / "saved", step=7)), config)
    inputs["code"] = units[None].clone()
    torch.testing.assert_close(again(inputs, dur_prediction=True), expected, atol=1e-5, rtol=0)


@kinds
def test_saved_vocoder_loads_the_same(tmp_path, vocoder, units):
    path = save_vocoder(vocoder, tmp_path / "new", step=12)
    for source in (path, path.parent):
        loaded = load_vocoder(source)
        torch.testing.assert_close(loaded(units[None])[0], vocoder(units[None])[0], atol=1e-6, rtol=0)
        assert loaded.config == vocoder.config


@pytest.mark.parametrize("chunk", [1, 3, 7, 45])
@istft
def test_istft_streams_exactly(vocoder, units, chunk):
    (wave,), (durations,) = vocoder(units[None])
    streamed, settled = stream(vocoder, units, chunk)
    assert wave.abs().max() > 0.01
    assert torch.equal(settled, durations)
    torch.testing.assert_close(streamed, wave, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [1, 4, 13])
@istft
def test_istft_flushed_at_word_ends_streams_exactly(vocoder, units, size):
    flushes = list(range(size, 45, size))
    durations = vocoder._round(vocoder.log_durations(units[None], flushes)[0], 0.0)[0]
    wave = vocoder(units[None], durations[None])[0][0]
    state, outs = vocoder.init_state(), []
    for word in units.split(size):
        for piece, flush in ((word[:2], False), (word[2:], True), (word[:0], True)):  # pushed as one likes
            out, state = vocoder.step(piece, state, flush=flush)
            outs.append(out)
        assert not len(state.waiting)
    assert torch.equal(torch.cat([out.durations for out in outs]), durations)
    torch.testing.assert_close(torch.cat([out.samples for out in outs]), wave, atol=1e-5, rtol=0)
    if vocoder.lookahead_units:
        assert not torch.equal(vocoder.log_durations(units[None]), vocoder.log_durations(units[None], flushes))


@pytest.mark.parametrize("vocoder", ["istft_ahead"], indirect=True)
def test_what_rounding_takes_is_carried_on(vocoder, units):
    vocoder.dur_predictor.proj.weight.zero_()
    vocoder.dur_predictor.proj.bias.fill_(math.log(2.4 + 1))
    _, (durations,) = vocoder(units[None])
    assert durations[:5].tolist() == [2, 3, 2, 3, 2] and int(durations.sum()) == round(2.4 * 45)
    vocoder.dur_predictor.proj.bias.fill_(math.log(0.2 + 1))  # shorter than any unit can be
    assert set(vocoder(units[None])[1][0].tolist()) == {1}


@pytest.mark.parametrize("vocoder", ["istft"], indirect=True)
def test_istft_future_does_not_change_the_past(vocoder, units):
    other = units.clone()
    other[20:] = (other[20:] + 1) % NUM_UNITS
    (a, b), (frames, _) = vocoder(torch.stack([units, other]))
    past = int(frames[:20].sum()) * vocoder.hop_samples
    torch.testing.assert_close(a[:past], b[:past], atol=1e-6, rtol=0)
    assert not torch.allclose(a[past:], b[past : len(a)])


@code_hifigan
@pytest.mark.parametrize("chunk", [1, 4, 15])
def test_code_hifigan_joins_are_inaudible(vocoder, units, chunk):
    vocoder.tail_frames = 12  # random weights reach further than trained ones, for which the default is enough
    (wave,), (durations,) = vocoder(units[None])
    streamed, settled = stream(vocoder, units, chunk)
    assert torch.equal(settled, durations)
    assert streamed.shape == wave.shape
    assert snr_db(wave, streamed) >= 30
    # a click would be a jump between neighbouring samples that the whole utterance does not have there
    assert (streamed.diff() - wave.diff()).abs().max() < 0.2 * wave.diff().abs().max()


@code_hifigan
def test_code_hifigan_sees_as_far_ahead_as_it_says(vocoder, units):
    embedded = vocoder.dict(units.repeat_interleave(2)[None]).requires_grad_(True)
    middle = vocoder.generate(embedded)[0].unflatten(0, (-1, vocoder.hop_samples))[45]
    (gradient,) = torch.autograd.grad(middle.square().sum(), embedded)
    assert gradient[0].abs().sum(1).nonzero().max() - 45 == vocoder.receptive_frames[0]


@code_hifigan
@pytest.mark.parametrize("chunk", [1, 2, 13])
def test_code_hifigan_that_waits_for_all_it_sees_is_exact(vocoder, units, chunk):
    frames_each = 3
    fix_durations(vocoder, frames_each)
    vocoder.tail_frames = vocoder.receptive_frames[0]
    wave = vocoder(units[None])[0][0]
    state, pieces = vocoder.init_state(), []
    for start in range(0, 45, chunk):
        out, state = vocoder.step(units[start : start + chunk], state, is_last=start + chunk >= 45)
        pieces.append(out.samples)
        known = frames_each * min(start + chunk, 45)
        held = 0 if known == 45 * frames_each else max(vocoder.tail_frames, 2 * frames_each)
        assert sum(map(len, pieces)) == max(known - held, 0) * vocoder.hop_samples
    torch.testing.assert_close(torch.cat(pieces), wave, atol=1e-5, rtol=0)


@code_hifigan
def test_code_hifigan_computes_only_new_frames_and_the_tail(vocoder, units, monkeypatch):
    fix_durations(vocoder, 3)  # two units, whose durations are not certain yet, are as long as the tail
    computed, generate = [], vocoder.generate

    def counted(frames, cache):
        computed.append(frames.size(1))
        return generate(frames, cache)

    monkeypatch.setattr(vocoder, "generate", counted)
    state, sent = vocoder.init_state(), []
    for piece in units.split(5):
        out, state = vocoder.step(piece, state)
        sent.append(len(out.samples) // vocoder.hop_samples)
    ahead = [frames - new for frames, new in zip(computed, sent, strict=True)]
    assert min(sent) > 0
    assert ahead == [vocoder.tail_frames] * len(sent)


@kinds
@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)
def test_contract(vocoder, units, check):
    if hasattr(vocoder, "tail_frames"):
        vocoder.tail_frames = 12  # random weights reach further than trained ones
    check(vocoder, units)


def test_the_contract_finds_what_breaks_it(units):
    """Three vocoders that are wrong in one thing each."""

    def broken(method, change):
        vocoder = make_lively(build_vocoder(ISTFT))
        right = getattr(vocoder, method)
        setattr(vocoder, method, lambda *args, **options: change(right(*args, **options), *args))
        return vocoder

    def in_place(result, given, state, *_):
        vars(state).update(vars(result[1]))
        return result

    def longer(result, given, state, *_):
        result[1].waiting = torch.cat([state.waiting, given])
        return result

    def quieter(result, given, *_):
        result[0].samples.mul_(1 - 1 / (1 + len(given)))
        return result

    for check, change, message in (
        (check_steps_repeat, in_place, "changes the state"),
        (check_memory, longer, "grows"),
        (check_streaming, quieter, "differ from the whole utterance"),
    ):
        with pytest.raises(AssertionError, match=message):
            check(broken("step", change), units)


def test_a_voice_that_is_not_there_is_named():
    vocoder = make_lively(build_vocoder(MULTI_SPEAKER))
    with pytest.raises(VocoderError, match="unit 50 is not among"):
        vocoder.step(torch.tensor([3, 50]), vocoder.init_state())
    with pytest.raises(VocoderError, match="speaker 5"):
        vocoder.init_state(speaker=5)


def test_a_name_is_registered_once():
    assert register_vocoder("istft")(VOCODERS["istft"]) is VOCODERS["istft"]
    with pytest.raises(ValueError, match="'istft' is registered already"):
        register_vocoder("istft")(VOCODERS["code_hifigan"])


def test_deduplicate():
    units, durations = deduplicate(torch.tensor([4, 4, 4, 1, 4, 4]))
    assert units.tolist() == [4, 1, 4]
    assert durations.tolist() == [3, 1, 2]


def test_the_generator_with_most_steps_is_loaded(tmp_path):
    vocoder = make_lively(build_vocoder(CODE_HIFIGAN))
    save_vocoder(vocoder, tmp_path, step=100000000)
    vocoder.conv_post.bias.zero_()
    save_vocoder(vocoder, tmp_path, step=9)
    assert load_vocoder(tmp_path).conv_post.bias.abs().sum() > 0


def break_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "vocoder.pt").unlink(), "no vocoder.safetensors, no vocoder.pt and no g_"),
        (lambda folder: (folder / "config.json").unlink(), "cannot read the vocoder config"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot read the vocoder config"),
        (lambda folder: (folder / "vocoder.pt").write_bytes(b"no"), "cannot read the vocoder checkpoint"),
        (lambda folder: torch.save({"model": {}}, folder / "vocoder.pt"), "no vocoder checkpoint"),
        (lambda folder: break_config(folder, type="griffin"), "unknown vocoder type 'griffin'"),
        (lambda folder: break_config(folder, channels=24), "does not fit config.json"),
        (lambda folder: break_config(folder, layers=None), "lacks 'layers'"),
        (lambda folder: break_config(folder, layers="six"), "makes no sense"),
        (lambda folder: break_config(folder, n_fft=500), "n_fft 500"),
        (lambda folder: break_config(folder, type="code_hifigan"), "lacks 'embedding_dim'"),
    ],
)
def test_loading_says_what_is_wrong(tmp_path, damage, message):
    save_vocoder(build_vocoder(ISTFT), tmp_path)
    damage(tmp_path)
    with pytest.raises(VocoderError, match=message) as caught:
        load_vocoder(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_path_and_unsupported_options():
    with pytest.raises(VocoderError, match="no vocoder at"):
        load_vocoder("nowhere/at/all")
    with pytest.raises(VocoderError, match="'f0'"):
        build_vocoder(CODE_HIFIGAN | {"f0": True})
    with pytest.raises(VocoderError, match="model_in_dim"):
        build_vocoder(CODE_HIFIGAN | {"model_in_dim": 40})
    with pytest.raises(VocoderError, match="kernel"):
        build_vocoder(CODE_HIFIGAN | {"upsample_kernel_sizes": [10, 8, 8, 4, 4]})
    with pytest.raises(VocoderError, match="var_pred_lookahead 5"):
        build_vocoder(ISTFT | {"dur_predictor_params": DURATIONS | {"var_pred_lookahead": 5}})


@istft
def test_istft_holds_back_only_the_look_ahead(vocoder, units):
    state = vocoder.init_state()
    counts = []
    for unit in units[:5].split(1):
        out, state = vocoder.step(unit, state)
        counts.append(len(out.durations))
    ahead = vocoder.lookahead_units
    assert counts == [0] * ahead + [1] * (5 - ahead)
    out, _ = vocoder.step(units[:0], state, is_last=True)
    assert len(out.durations) == ahead
