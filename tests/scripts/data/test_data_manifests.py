"""Manifests from texts, recordings and units: fairseq reads them, from any folder, and a data set can grow."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from fairseq.data import Dictionary
from fairseq.data.audio.data_cfg import MultitaskConfig, S2SDataConfig
from fairseq.data.audio.speech_to_speech_dataset import SpeechToSpeechDatasetCreator
from fairseq_features import fairseq_fbank

from echostream.tasks.data_config import load_multitask_config, load_speech_config
from scripts.data import manifests
from scripts.files import write_text
from scripts.speech.audio import write_speech
from scripts.speech.speech_synthesis import read_table
from scripts.speech.text_normalization import normalize_text

TASKS = ("source_unigram", "target_unigram", "ctc_target_unigram")
PAIRS = (
    ("a", "L'été, c'est fini.", "Summer is over."),
    ("b", "Où est la gare ?", "Where is the station?"),
    ("c", "Merci beaucoup, à demain !", "Thank you, see you tomorrow!"),
)


def make_manifests(root: Path, *options: object) -> subprocess.CompletedProcess:
    command = [sys.executable, manifests.__file__, "--data-root", root, "--pairs", root / "texts/pairs.tsv"]
    command += ["--num-units", 100, *options]
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A data root after the units stage, with noise for speech."""
    generator = np.random.default_rng(0)
    lines = ["id\taudio\tunits"]
    for index, (name, _, _) in enumerate(PAIRS):
        write_speech(tmp_path / "audio/fr" / f"{name}.wav", generator.normal(size=9000 + 800 * index), 16000)
        lines.append(f"{name}\taudio/en/{name}.wav\t{index} {index} 7 7 7 {index} 9")
    write_text(tmp_path / "units.tsv", "\n".join(lines) + "\n")
    rows = ["id\tfr\ten", *("\t".join(pair) for pair in PAIRS)]
    write_text(tmp_path / "texts/pairs.tsv", "\n".join(rows) + "\n")
    return tmp_path


def test_held_out_pairs_are_disjoint():
    rows = [{"id": str(i)} for i in range(9)]
    splits = manifests.split_rows(rows, 2)
    assert {k: [r["id"] for r in v] for k, v in splits.items()} == {
        "train": list("01234"),
        "dev": list("56"),
        "test": list("78"),
    }
    with pytest.raises(SystemExit, match="too few"):
        manifests.split_rows(rows, 5)


def test_manifests_load_in_fairseq(corpus, monkeypatch):
    done = make_manifests(corpus)
    assert done.returncode == 0, done.stderr
    # fairseq itself resolves relative paths from where it runs, the task of this project from the data
    monkeypatch.chdir(corpus)
    config = S2SDataConfig(corpus / "config_gcmvn.yaml")
    tasks = MultitaskConfig(corpus / "config_multitask.yaml").get_all_tasks()
    dictionary = Dictionary()
    for unit in range(10):
        dictionary.add_symbol(str(unit))
    data = SpeechToSpeechDatasetCreator.from_tsv(
        str(corpus), config, "dev", False, 1, 1, target_is_code=True, tgt_dict=dictionary
    )
    stats = np.load("gcmvn.npz")
    everything = []
    for index, (name, _, _) in enumerate(PAIRS):
        item = data[index]
        expected = fairseq_fbank(corpus / f"audio/fr/{name}.wav")
        assert data.ids[index] == name and data.n_frames[index] == len(expected)
        np.testing.assert_allclose(item.source.numpy(), (expected - stats["mean"]) / stats["std"], rtol=1e-3, atol=1e-4)
        assert dictionary.string(item.target) == f"{index} 7 {index} 9"
        assert data.tgt_lens[index] == 4
        everything.append(item.source.numpy())
    np.testing.assert_allclose(np.concatenate(everything).mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(np.concatenate(everything).std(0), 1, atol=1e-3)

    for task, column in (("source_unigram", 1), ("target_unigram", 2), ("ctc_target_unigram", 2)):
        symbols, folder = tasks[task].tgt_dict, corpus / tasks[task].data
        model = sentencepiece.SentencePieceProcessor(str(folder / "spm_unigram.model"))
        assert [symbols[i] for i in range(len(symbols))] == [model.id_to_piece(i) for i in range(len(symbols))]
        for pair, row in zip(PAIRS, read_table(folder / "train.tsv", "tgt_text"), strict=True):
            assert row["id"] == pair[0]
            ids = symbols.encode_line(row["tgt_text"], add_if_not_exist=False, append_eos=False)
            assert symbols.unk() not in ids
            assert model.decode(ids.tolist()) == normalize_text(pair[column])


def test_manifests_load_from_another_folder(corpus, monkeypatch, tmp_path_factory):
    done = make_manifests(corpus)
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    speech = load_speech_config(corpus / "config_gcmvn.yaml")
    texts = load_multitask_config(corpus / "config_multitask.yaml")
    assert speech.audio_root == corpus and speech.cmvn[0].shape == (80,)
    assert [texts[name].loss_weight for name in ("source_unigram", "ctc_target_unigram", "target_unigram")] == [4, 4, 8]
    for path in [*corpus.glob("*.tsv"), *corpus.glob("*.yaml"), *corpus.glob("*_unigram/*.tsv")]:
        assert str(corpus) not in path.read_text()


def test_a_data_set_that_goes_on_from_another_fits_its_model(corpus, tmp_path_factory):
    assert make_manifests(corpus).returncode == 0
    larger = tmp_path_factory.mktemp("larger")
    shutil.copytree(corpus / "audio", larger / "audio")
    shutil.copy(corpus / "audio/fr/a.wav", larger / "audio/fr/d.wav")
    write_text(larger / "units.tsv", (corpus / "units.tsv").read_text() + "d\taudio/en/d.wav\t5 5 6\n")
    rows = (
        corpus / "texts/pairs.tsv"
    ).read_text() + "d\tMerci, la gare est fermée.\tThank you, the station is closed.\n"
    write_text(larger / "texts/pairs.tsv", rows)
    kept = ["gcmvn.npz", *(f"{task}/{name}" for task in TASKS for name in ("dict.txt", "spm_unigram.model"))]
    assert make_manifests(larger).returncode == 0
    assert all((larger / name).read_bytes() != (corpus / name).read_bytes() for name in kept)
    assert make_manifests(larger, "--continue-from", corpus).returncode == 0
    assert all((larger / name).read_bytes() == (corpus / name).read_bytes() for name in kept)
    known = {line.split()[0] for line in (corpus / "source_unigram/dict.txt").read_text().splitlines()}
    pieces = [row["tgt_text"].split() for row in read_table(larger / "source_unigram/train.tsv", "tgt_text")]
    assert len(pieces) == 4 and set(pieces[3][:3]) <= known
    again = make_manifests(larger, "--continue-from", larger)  # a data set that has grown goes on from itself
    assert again.returncode == 0 and all((larger / name).read_bytes() == (corpus / name).read_bytes() for name in kept)
    wrong = make_manifests(larger, "--continue-from", corpus / "audio")
    assert wrong.returncode == 1 and "give the folder of a data set or of a model" in wrong.stderr.splitlines()[-1]


def test_missing_units_are_named_with_a_remedy(corpus):
    (corpus / "units.tsv").write_text("id\taudio\tunits\na\taudio/en/a.wav\t1 2\n")
    done = make_manifests(corpus)
    assert done.returncode == 1 and "no units for b; run the units stage again" in done.stderr.splitlines()[-1]
