"""From manifest to batch: all fields have the content of the files."""

import zipfile

import numpy as np
import pytest
import soundfile
import torch
from torchaudio.compliance import kaldi

from echostream.tasks import EchoStreamTask, EchoStreamTaskConfig
from echostream.tasks.dataset import word_indices
from echostream.tasks.texts import dictionary_from_symbols


@pytest.fixture
def task(corpus) -> EchoStreamTask:
    task = EchoStreamTask.setup_task(
        EchoStreamTaskConfig(data=str(corpus.folder), seed=1, train_subset="train", num_units=20)
    )
    task.load_dataset("train")
    task.load_dataset("dev")
    return task


def rows(path):
    header, *lines = path.read_text(encoding="utf-8").strip().split("\n")
    return [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]


def test_task_has_the_properties_of_the_data(task):
    assert task.source_dictionary.symbols[:5] == ["<s>", "<pad>", "</s>", "<unk>", "▁bon"]
    assert len(task.target_text_dictionary) == 12
    assert task.num_units == 20
    mean, std = task.cmvn
    assert mean.shape == std.shape == (80,)
    assert mean[0] == 10
    assert std[0] == 2


def test_number_of_units_is_derived_from_the_training_manifest(corpus):
    task = EchoStreamTask.setup_task(EchoStreamTaskConfig(data=str(corpus.folder), seed=1, train_subset="train"))
    units = [int(u) for row in rows(corpus.folder / "train.tsv") for u in row["tgt_audio"].split()]
    assert task.num_units == max(units) + 1


def test_feature_config_may_give_the_number_of_units(corpus):
    config = corpus.folder / "config_gcmvn.yaml"
    config.write_text(config.read_text() + "num_units: 64\n")
    task = EchoStreamTask.setup_task(EchoStreamTaskConfig(data=str(corpus.folder), seed=1, train_subset="train"))
    assert task.num_units == 64


def test_batch_has_the_content_of_the_files(task, corpus):
    data = task.dataset("dev")
    batch = data.collater([data[i] for i in range(3)])
    speech = rows(corpus.folder / "dev.tsv")
    source = rows(corpus.folder / "source" / "dev.tsv")
    target = rows(corpus.folder / "target" / "dev.tsv")
    pad, eos = task.target_text_dictionary.pad(), task.target_text_dictionary.eos()
    assert batch["ids"] == [row["id"] for row in speech]
    assert batch["nsentences"] == 3
    assert batch["ntokens"] == sum(len(row["tgt_audio"].split()) for row in speech)
    for b in range(3):
        wave, rate = soundfile.read(corpus.folder / "audio" / speech[b]["src_audio"], dtype="float32")
        assert rate == 16000
        expected = (kaldi.fbank(torch.from_numpy(wave)[None] * 2**15, num_mel_bins=80) - 10) / 2
        length = int(batch["net_input"]["src_lengths"][b])
        assert length == int(speech[b]["src_n_frames"]) == len(expected)
        torch.testing.assert_close(batch["net_input"]["src_tokens"][b, :length], expected, atol=1e-3, rtol=1e-4)
        assert not batch["net_input"]["src_tokens"][b, length:].any()

        units = batch["units"][b, : batch["unit_lengths"][b]].tolist()
        assert units == [int(u) for u in speech[b]["tgt_audio"].split()]
        said = batch["source_text"][b, : batch["source_text_lengths"][b]]
        assert [task.source_dictionary[t] for t in said] == source[b]["tgt_text"].split()

        pieces = target[b]["tgt_text"].split()
        tokens = batch["target_text"][b]
        n = int(batch["target_text_lengths"][b])
        assert [task.target_text_dictionary[t] for t in tokens[: n - 1]] == pieces
        assert tokens[n - 1] == eos
        assert (tokens[n:] == pad).all()
        previous = batch["net_input"]["prev_text_tokens"][b]
        assert previous[0] == eos
        assert previous[1:n].equal(tokens[: n - 1])
        words = batch["word_ids"][b]
        assert (words[1:] >= words[:-1]).all()
        assert words[n - 1] > words[max(n - 2, 0)]  # EOS is a word of its own
        assert (words[n:] > words[n - 1]).all()  # and so is the padding


def test_words_start_at_marked_subwords():
    starts = torch.tensor([False, False, False, False, True, False])
    tokens = torch.tensor([5, 4, 5, 5, 4, 2])  # a text that starts inside a word
    assert word_indices(tokens, starts).tolist() == [0, 1, 1, 1, 2, 3]
    assert word_indices(torch.tensor([4, 2]), starts).tolist() == [0, 1]


def test_every_file_format_gives_the_same_features(task, corpus):
    """The formats are wav, features in .npy, and either of them in an uncompressed zip."""
    data = task.dataset("dev")
    wav = corpus.folder / "audio" / "dev_0.wav"
    wave, _ = soundfile.read(wav, dtype="float32")
    features = kaldi.fbank(torch.from_numpy(wave)[None] * 2**15, num_mel_bins=80).numpy()
    npy = corpus.folder / "dev_0.npy"
    np.save(npy, features)
    archive = corpus.folder / "stored.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as zip_file:
        zip_file.write(wav, "a.wav")
        zip_file.write(npy, "b.npy")
    content = archive.read_bytes()
    names = [str(npy)]
    names += [f"{archive}:{content.index(f.read_bytes())}:{f.stat().st_size}" for f in (wav, npy)]
    expected = data.reader.read(str(wav))
    for name in names:
        torch.testing.assert_close(data.reader.read(name), expected, atol=1e-3, rtol=1e-4)


def test_other_rates_and_channels_become_16_khz_mono(task, corpus):
    time = np.arange(24000) / 48000
    tone = np.sin(2 * np.pi * 440 * time).astype("float32") / 2
    soundfile.write(corpus.folder / "stereo.wav", np.stack([tone, tone], 1), 48000)
    soundfile.write(corpus.folder / "mono.wav", tone[::3], 16000)
    reader = task.dataset("dev").reader
    stereo, mono = (reader.read(str(corpus.folder / f"{name}.wav")) for name in ("stereo", "mono"))
    assert stereo.shape == mono.shape == (48, 80)
    # Compare the band of the tone only; the others contain rounding noise.
    band = mono.mean(0).argmax()
    torch.testing.assert_close(stereo[5:-5, band], mono[5:-5, band], atol=0.05, rtol=0)


def test_errors_name_damaged_audio(task, corpus):
    (corpus.folder / "audio" / "dev_1.wav").write_bytes(b"RIFF nonsense")
    with pytest.raises(ValueError, match=r"dev_1\.wav: can't be read"):
        task.dataset("dev")[1]


def test_augmentation_depends_on_epoch_and_utterance_only(task):
    data = task.dataset("train")
    data.set_epoch(1)
    first = data[0].features
    data[3]
    np.random.seed(99)
    state = np.random.get_state()[1].tolist()
    assert data[0].features.equal(first)
    assert np.random.get_state()[1].tolist() == state  # the global generator is not changed
    seen = []
    for epoch in range(2, 6):
        data.set_epoch(epoch)
        seen.append(data[0].features)
    assert any(not features.equal(first) for features in seen)
    plain = task.dataset("dev")
    one = plain[0].features
    plain.set_epoch(7)
    assert plain[0].features.equal(one)


def test_features_are_computed_once(task, corpus):
    data = task.dataset("dev")
    before = data[2].features
    (corpus.folder / "audio" / "dev_2.wav").unlink()
    assert data[2].features.equal(before)


def test_task_state_contains_the_dictionaries(task, corpus):
    """A task that is set up from a checkpoint reads no files."""
    cfg = EchoStreamTaskConfig(data=str(corpus.folder / "gone"), seed=1, train_subset="train")
    restored = EchoStreamTask.setup_task(cfg, from_checkpoint=True)
    state = task.state_dict()
    assert all(isinstance(value, list | int) for value in state.values())
    restored.load_state_dict(state)
    assert restored.source_dictionary.symbols == task.source_dictionary.symbols
    assert restored.target_text_dictionary.symbols == task.target_text_dictionary.symbols
    assert restored.num_units == 20
    with pytest.raises(ValueError, match="four specials"):
        dictionary_from_symbols(["a", "b", "c", "d", "e"])


def test_dictionaries_that_differ_from_the_checkpoint_are_rejected(task, corpus):
    """The dictionaries have equal sizes, so that the shapes of the weights agree."""
    state = task.get_checkpoint_dict()["EchoStreamTask"]
    task.set_checkpoint_dict(state)
    swapped = {**state, "source_symbols": [*state["source_symbols"][:-2], *state["source_symbols"][:-3:-1]]}
    with pytest.raises(SystemExit, match=r"source\.txt is not the dictionary that the checkpoint was trained with"):
        task.set_checkpoint_dict(swapped)
    cfg = EchoStreamTaskConfig(data=str(corpus.folder), seed=1, train_subset="train")
    restored = EchoStreamTask.setup_task(cfg, from_checkpoint=True)
    restored.load_state_dict(state)
    restored.load_dataset("dev")
    assert restored.num_units == 20
    restored = EchoStreamTask.setup_task(cfg, from_checkpoint=True)
    restored.load_state_dict(swapped)
    with pytest.raises(SystemExit, match="is not the dictionary"):
        restored.load_dataset("dev")


def test_longest_utterances_come_first_and_sizes_are_frames(task):
    data = task.dataset("train")
    lengths = [data.num_tokens(i) for i in data.ordered_indices()]
    assert lengths == sorted(lengths, reverse=True)
    assert data.size(0) == (data.num_tokens(0), len(data[0].target_text))


@pytest.mark.parametrize("multiple", [1, 4, 8])
@pytest.mark.parametrize("limit", [{"max_sentences": 4}, {"max_tokens": 250}, {"max_tokens": 10_000}])
def test_no_utterance_is_left_out_whatever_multiple_batches_should_have(task, limit, multiple):
    task.load_dataset("train")
    iterator = task.get_batch_iterator(
        task.datasets["train"], max_positions=task.max_positions(), required_batch_size_multiple=multiple, **limit
    )
    assert sorted(index for batch in iterator.frozen_batches for index in batch) == list(range(6))
