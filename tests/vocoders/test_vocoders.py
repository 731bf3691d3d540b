"""Unit vocoders: published checkpoints, streaming compared with whole utterances, and error messages."""

import copy
import json
import math

import pytest
import torch

from echostream.checkpoints.vocoder_files import load_vocoder, save_vocoder
from echostream.vocoders.interface import VocoderError, deduplicate
from echostream.vocoders.registry import build_vocoder

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
    """Set random weights that give a signal about as loud as speech, and units of about three frames."""
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


def stream(vocoder, units, chunk, state=None):
    """Push ``units`` in chunks of ``chunk``; returns all samples and durations."""
    state = state or vocoder.init_state()
    pieces = units.split(chunk)
    outs = [vocoder.step(piece, state, is_last=i == len(pieces) - 1) for i, piece in enumerate(pieces)]
    return torch.cat([out.samples for out in outs]), torch.cat([out.durations for out in outs])


def fix_durations(vocoder, frames):
    """Make every unit last ``frames`` unit frames."""
    vocoder.dur_predictor.proj.weight.zero_()
    vocoder.dur_predictor.proj.bias.fill_(math.log(frames + 1))


def snr_db(wanted, got):
    return 10 * torch.log10(wanted.square().sum() / (got - wanted).square().sum()).item()


@pytest.mark.parametrize(("config", "speaker"), [(CODE_HIFIGAN, None), (MULTI_SPEAKER, 3)])
def test_published_checkpoint_gives_the_same_waveform_as_fairseq(tmp_path, units, config, speaker):
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
def test_saved_vocoder_loads_identically(tmp_path, vocoder, units):
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
        first = vocoder.step(word[:2], state)  # a word may be pushed in several steps
        outs += [first, vocoder.step(word[2:], state, flush=True), vocoder.step(word[:0], state, flush=True)]
        assert not len(state.waiting)
    assert torch.equal(torch.cat([out.durations for out in outs]), durations)
    torch.testing.assert_close(torch.cat([out.samples for out in outs]), wave, atol=1e-5, rtol=0)
    if vocoder.lookahead_units:
        assert not torch.equal(vocoder.log_durations(units[None]), vocoder.log_durations(units[None], flushes))


@pytest.mark.parametrize("vocoder", ["istft_ahead"], indirect=True)
def test_rounding_errors_of_durations_are_carried_over(vocoder, units):
    vocoder.dur_predictor.proj.weight.zero_()
    vocoder.dur_predictor.proj.bias.fill_(math.log(2.4 + 1))
    _, (durations,) = vocoder(units[None])
    assert durations[:5].tolist() == [2, 3, 2, 3, 2] and int(durations.sum()) == round(2.4 * 45)
    vocoder.dur_predictor.proj.bias.fill_(math.log(0.2 + 1))  # shorter than the minimum of one frame
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
def test_code_hifigan_has_no_clicks_at_step_boundaries(vocoder, units, chunk):
    vocoder.tail_frames = 12  # random weights need a longer tail than trained ones
    (wave,), (durations,) = vocoder(units[None])
    streamed, settled = stream(vocoder, units, chunk)
    assert torch.equal(settled, durations)
    assert streamed.shape == wave.shape
    assert snr_db(wave, streamed) >= 30
    # A click would be a jump between neighbouring samples that the whole utterance does not have at this place.
    assert (streamed.diff() - wave.diff()).abs().max() < 0.2 * wave.diff().abs().max()


@code_hifigan
def test_code_hifigan_has_the_documented_look_ahead(vocoder, units):
    embedded = vocoder.dict(units.repeat_interleave(2)[None]).requires_grad_(True)
    middle = vocoder.generate(embedded)[0].unflatten(0, (-1, vocoder.hop_samples))[45]
    (gradient,) = torch.autograd.grad(middle.square().sum(), embedded)
    assert gradient[0].abs().sum(1).nonzero().max() - 45 == vocoder.reaches[0]


@code_hifigan
@pytest.mark.parametrize("chunk", [1, 2, 13])
def test_code_hifigan_with_its_full_look_ahead_is_exact(vocoder, units, chunk):
    frames_each = 3
    fix_durations(vocoder, frames_each)
    vocoder.tail_frames = vocoder.reaches[0]
    wave = vocoder(units[None])[0][0]
    state, pieces = vocoder.init_state(), []
    for start in range(0, 45, chunk):
        pieces.append(vocoder.step(units[start : start + chunk], state, is_last=start + chunk >= 45).samples)
        known = frames_each * min(start + chunk, 45)
        held = 0 if known == 45 * frames_each else max(vocoder.tail_frames, 2 * frames_each)
        assert sum(map(len, pieces)) == max(known - held, 0) * vocoder.hop_samples
    torch.testing.assert_close(torch.cat(pieces), wave, atol=1e-5, rtol=0)


@code_hifigan
def test_code_hifigan_computes_only_new_frames_and_the_tail(vocoder, units, monkeypatch):
    fix_durations(vocoder, 3)  # two units, whose durations are still provisional, are as long as the tail
    computed, generate = [], vocoder.generate

    def counted(frames, seam):
        computed.append(frames.size(1))
        return generate(frames, seam)

    monkeypatch.setattr(vocoder, "generate", counted)
    state, sent = vocoder.init_state(), []
    for piece in units.split(5):
        sent.append(len(vocoder.step(piece, state).samples) // vocoder.hop_samples)
    ahead = [frames - new for frames, new in zip(computed, sent, strict=True)]
    assert min(sent) > 0
    assert ahead == [vocoder.tail_frames] * len(sent)


@kinds
def test_rows_of_a_batch_are_independent(vocoder, units):
    batch = torch.full((2, 45), -1)
    batch[0], batch[1, :20] = units, units[:20]
    waves, durations = vocoder(batch, lengths=torch.tensor([45, 20]))
    for row, size in enumerate((45, 20)):
        (wave,), (alone,) = vocoder(units[None, :size])
        assert torch.equal(durations[row, :size], alone) and not durations[row, size:].any()
        torch.testing.assert_close(waves[row, : len(wave)], wave, atol=1e-5, rtol=0)
        assert not waves[row, len(wave) :].any()


@kinds
def test_given_durations_are_kept(vocoder, units):
    durations = torch.arange(45)[None] % 4 + 1
    wave, used = vocoder(units[None], durations)
    assert torch.equal(used, durations)
    assert wave.shape == (1, int(durations.sum()) * vocoder.hop_samples)


@kinds
def test_empty_steps_and_empty_stream(vocoder, units):
    nothing = units[:0]
    closing = vocoder.step(nothing, vocoder.init_state(), is_last=True)
    assert closing.samples.shape == closing.durations.shape == (0,)
    assert vocoder(nothing[None])[0].shape == (1, 0)

    state = vocoder.init_state()
    sent = [vocoder.step(nothing, state)]
    for piece in units[:12].split(1):
        sent += [vocoder.step(piece, state), vocoder.step(nothing, state)]
    sent += [vocoder.step(nothing, state, is_last=True), vocoder.step(nothing, state, is_last=True)]
    durations = torch.cat([out.durations for out in sent])
    assert torch.equal(durations, vocoder(units[None, :12])[1][0])
    assert sum(len(out.samples) for out in sent) == int(durations.sum()) * vocoder.hop_samples
    assert all(out.samples.dtype == torch.float32 for out in sent)
    with pytest.raises(VocoderError, match="init_state"):
        vocoder.step(units[:1], state)


@kinds
def test_fork_continues_identically_and_states_are_independent(vocoder, units):
    alone = stream(vocoder, units, 5)[0]
    state, other = vocoder.init_state(), vocoder.init_state()
    head = [vocoder.step(units[:10], state).samples]
    vocoder.step(units[20:33], other)
    head.append(vocoder.step(units[10:20], state).samples)
    fork = copy.deepcopy(state)
    a, b = (stream(vocoder, units[20:], 5, copied)[0] for copied in (state, fork))
    assert torch.equal(a, b)
    assert len(alone) == len(torch.cat([*head, a]))


@kinds
def test_state_is_flat_and_model_unchanged(vocoder):
    units = torch.randint(NUM_UNITS, (240,), generator=torch.Generator().manual_seed(2))
    before = {name: repr(value) for name, value in vars(vocoder).items()}
    state, sizes = vocoder.init_state(), []
    for piece in units.split(3):
        vocoder.step(piece, state)
        sizes.append(state.nbytes)
    assert sizes[-1] > 0
    assert max(sizes[40:]) <= max(sizes[15:40]) * 1.1
    assert {name: repr(value) for name, value in vars(vocoder).items()} == before


@kinds
def test_invalid_units_and_speakers_are_rejected(vocoder):
    with pytest.raises(VocoderError, match="unit 50 is not among"):
        vocoder.step(torch.tensor([3, 50]), vocoder.init_state())
    with pytest.raises(VocoderError, match="speaker 4"):
        vocoder.init_state(speaker=4)


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
def test_loading_errors_name_the_cause(tmp_path, damage, message):
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
    counts = [len(vocoder.step(unit, state).durations) for unit in units[:5].split(1)]
    ahead = vocoder.lookahead_units
    assert counts == [0] * ahead + [1] * (5 - ahead)
    assert len(vocoder.step(units[:0], state, is_last=True).durations) == ahead
