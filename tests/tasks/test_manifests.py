"""Errors in the data are found at the start, and messages name the file, the line and the value."""

import sys
from pathlib import Path

import numpy as np
import pytest

from echostream.tasks import EchoStreamTask, EchoStreamTaskConfig, ManifestError
from echostream.tasks.data_config import load_multitask_config, load_speech_config
from echostream.tasks.manifests import read_utterances


def load(corpus, **options):
    task = EchoStreamTask.setup_task(
        EchoStreamTaskConfig(data=str(corpus.folder), seed=1, train_subset="train", **options)
    )
    task.load_dataset("train")
    return task


def second_row(column: int, value: str):
    """Replace one field of the second utterance (line 3)."""

    def change(text: str) -> str:
        lines = text.split("\n")
        fields = lines[2].split("\t")
        fields[column] = value
        lines[2] = "\t".join(fields)
        return "\n".join(lines)

    return change


BAD_ROWS = {
    "missing audio": (1, "none.wav", "does not exist"),
    "unknown format": (1, "train_1.mp3", "neither"),
    "missing archive": (1, "none.zip:0:10", "archive"),
    "frames not a number": (2, "4.5", "src_n_frames is '4.5'"),
    "no frames": (2, "0", "src_n_frames is '0'"),
    "empty units": (3, "", "tgt_audio is empty"),
    "units not numbers": (3, "1 x 2", "'x'"),
    "unit out of range": (3, "1 99 2", "unit 99 is out of range"),
    "unit count not a number": (4, "many", "tgt_n_frames is 'many'"),
    "id used before": (0, "train_0", "used before, in line 2"),
    "id without text": (0, "stranger", "'stranger' has no text"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_errors_of_rows_name_file_and_line(corpus, name):
    column, value, message = BAD_ROWS[name]
    corpus.edit("train.tsv", second_row(column, value))
    with pytest.raises(SystemExit) as error:
        load(corpus, num_units=20)
    assert str(error.value).startswith(f"echostream: {corpus.folder}/train.tsv: line 3: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("train.tsv", "src_n_frames", "n_frames", "column 'src_n_frames' is missing"),
        ("train.tsv", "train_1.wav\t", "", "line 3: 4 fields"),
        ("source/train.tsv", "tgt_text", "text", "column 'tgt_text' is missing"),
        ("config_gcmvn.yaml", "specaugment:", "specaugmnt:", "unknown key 'specaugmnt'; did you mean 'specaugment'?"),
        ("config_gcmvn.yaml", "freq_mask_F", "freq_mask", "unknown key 'freq_mask' in specaugment"),
        ("config_gcmvn.yaml", "- specaugment", "- delta_deltas", "'delta_deltas' is not supported"),
        ("config_gcmvn.yaml", "gcmvn.npz", "none.npz", "none.npz does not exist"),
        ("config_gcmvn.yaml", "per_channel: 80", "per_channel: 40", "input_feat_per_channel is 40"),
        ("config_gcmvn.yaml", "  '*':\n  - global_cmvn\n", "", "global_cmvn must be in the transforms of both"),
        ("config_gcmvn.yaml", "input_channels: 1", "input_channels: [1", "not valid YAML"),
        ("config_multitask.yaml", "loss_weight", "loss_weigth", "unknown key 'loss_weigth' in target_unigram"),
        ("config_multitask.yaml", "source_unigram", "src_unigram", "unknown key 'src_unigram'"),
        ("config_multitask.yaml", "decoder_type: transformer", "decoder_type: ctc", "decoder_type is 'ctc'"),
        ("config_multitask.yaml", "dict: source.txt", "dict: none.txt", "none.txt does not exist"),
        ("config_multitask.yaml", "  data: source\n", "", "key 'data' is missing"),
        ("config_multitask.yaml", "loss_weight: 4.0", "loss_weight: -1", "loss_weight is -1"),
        ("config_multitask.yaml", "dict: target.txt", "dict: source.txt", "must share their symbols"),
        ("source.txt", " 1\n", "\n", "not a fairseq dictionary"),
    ],
)
def test_errors_of_configs_name_the_file(corpus, file, old, new, message):
    corpus.replace(file, old, new)
    with pytest.raises(SystemExit) as error:
        load(corpus)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_dictionary_of_another_text_is_rejected(corpus):
    corpus.edit("source.txt", lambda text: text.replace("▁", "_"))
    with pytest.raises(SystemExit, match=r"source\.txt does not fit .*source/train\.tsv"):
        load(corpus)


def test_target_texts_must_be_equal(corpus):
    (corpus.folder / "other").mkdir()
    text = (corpus.folder / "target" / "train.tsv").read_text(encoding="utf-8")
    (corpus.folder / "other" / "train.tsv").write_text(text, encoding="utf-8")
    corpus.edit("config_multitask.yaml", lambda t: t[::-1].replace("target"[::-1], "other"[::-1], 1)[::-1])
    assert load(corpus).dataset("train")  # another folder with the same texts is fine
    corpus.edit("other/train.tsv", lambda t: t + "extra\t▁all\n")
    with pytest.raises(SystemExit, match="id 'extra'"):
        load(corpus)


@pytest.mark.parametrize(("option", "value"), [("segment_sizes", "1,x"), ("valid_segment_sizes", "uniform")])
def test_errors_quote_invalid_segment_sizes(corpus, option, value):
    with pytest.raises(SystemExit, match=f"segment sizes '{value}'"):
        load(corpus, **{option: value})


def test_functions_raise_the_public_error(tmp_path):
    with pytest.raises(ManifestError, match="no such manifest"):
        read_utterances(tmp_path / "none.tsv", tmp_path)
    with pytest.raises(ManifestError, match="no such config"):
        load_speech_config(tmp_path / "none.yaml")
    with pytest.raises(ManifestError, match="no such config"):
        load_multitask_config(tmp_path / "none.yaml")


def test_statistics_must_be_usable(corpus):
    np.savez(corpus.folder / "gcmvn.npz", mean=np.zeros(80), std=np.zeros(80))
    with pytest.raises(SystemExit, match="std positive"):
        load(corpus)


def test_absolute_paths_and_carriage_returns_are_read(corpus):
    folder = str(corpus.folder)
    corpus.edit(
        "config_gcmvn.yaml", lambda t: t.replace("audio_root: audio\n", "").replace("gcmvn.npz", f"{folder}/gcmvn.npz")
    )
    corpus.edit(
        "config_multitask.yaml", lambda t: t.replace("data: ", f"data: {folder}/").replace("dict: ", f"dict: {folder}/")
    )
    corpus.edit("train.tsv", lambda t: t.replace("\ttrain_", f"\t{folder}/audio/train_").replace("\n", "\r\n"))
    task = load(corpus)
    assert task.dataset("train")[0].features.shape[1] == 80


def test_user_sees_the_message_only(corpus, capfd):
    """Use the entry point of fairseq-train."""
    from fairseq_cli.train import cli_main

    corpus.edit("train.tsv", second_row(3, ""))
    argv = [str(corpus.folder), "--task", "echostream", "--criterion", "echostream_multitask", "--cpu"]
    argv += ["--arch", "echostream_tiny", "--optimizer", "adam", "--max-tokens", "300", "--save-dir"]
    old = sys.argv
    sys.argv = ["fairseq-train", *argv, str(corpus.folder / "out")]
    try:
        with pytest.raises(SystemExit, match=r"train\.tsv: line 3: tgt_audio is empty"):
            cli_main()
    finally:
        sys.argv = old
    assert "Traceback" not in "".join(capfd.readouterr())
    assert not list(Path(corpus.folder / "out").glob("*.pt"))
