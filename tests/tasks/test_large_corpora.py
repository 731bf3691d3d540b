"""Corpora of the size of CVSS-C and beyond: archives over 2 GiB, millions of rows, rows that say wrong lengths."""

import io
import re
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fairseq.data.audio.audio_utils import read_from_stored_zip
from test_manifests import load, second_row
from test_training import train

from echostream.tasks.columns import IdIndex, Ragged, RaggedBuilder, Strings
from echostream.tasks.data_config import load_multitask_config
from echostream.tasks.features import FeatureError
from echostream.tasks.manifests import Manifest, ManifestError, check_same_texts, read_rows, read_texts, read_utterances
from echostream.tasks.texts import encode_texts

ROWS = 8_000
FAR = 17_614_448_698  # an offset in StreamSpeech's own CVSS-C archive


def stored(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["npy", "wav"])
def test_archives_may_be_larger_than_4_gib(corpus, kind):
    """A sparse file: only the features at its end take room on the disk."""
    wav = corpus.folder / "audio" / "train_1.wav"
    features = load(corpus).dataset("train").reader._analyse(str(wav), None)
    data = stored(features) if kind == "npy" else wav.read_bytes()
    archive = corpus.folder / "audio" / "src_fbank80.zip"
    with archive.open("wb") as file:
        file.seek(FAR)
        file.write(data)
    corpus.edit("train.tsv", second_row(1, f"src_fbank80.zip:{FAR}:{len(data)}"))
    dataset = load(corpus).dataset("train")
    assert dataset.utterances[1].audio == f"{archive}:{FAR}:{len(data)}"
    np.testing.assert_array_equal(dataset.reader._analyse(dataset.utterances[1].audio, None), features)
    assert read_from_stored_zip(str(archive), FAR, len(data)) == data  # fairseq reads it as well
    corpus.edit("train.tsv", second_row(1, f"src_fbank80.zip:{FAR}:{len(data) + 1}"))
    with pytest.raises(SystemExit, match=rf"line 3: '.*zip:{FAR}:{len(data) + 1}' reaches past the end"):
        load(corpus)


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """Many rows with recordings in two archives, and their texts in another order."""
    folder = tmp_path_factory.mktemp("many")
    for name in ("a.zip", "b.zip"):
        with (folder / name).open("wb") as file:
            file.truncate(FAR)
    header = "id\tsrc_audio\tsrc_n_frames\ttgt_audio\ttgt_n_frames"
    units = " ".join(map(str, range(100)))
    rows = [f"clip_{i}\t{'ab'[i % 2]}.zip:{FAR - 10 - i}:10\t500\t{units}\t100" for i in range(ROWS)]
    (folder / "train.tsv").write_text("\n".join([header, *rows]) + "\n")
    texts = [f"clip_{i}\t▁a{' ▁b' * (i % 7)}" for i in range(ROWS)]
    for name, order in (("target", 1), ("source", -1)):
        (folder / name).mkdir()
        (folder / name / "train.tsv").write_text("\n".join(["id\ttgt_text", *texts[::order]]), encoding="utf-8")
        (folder / f"{name}.txt").write_text("▁a 1\n▁b 1\n", encoding="utf-8")
    entries = {"source_unigram": "source", "ctc_target_unigram": "target", "target_unigram": "target"}
    kinds = {name: "transformer" if name == "target_unigram" else "ctc" for name in entries}
    (folder / "multitask.yaml").write_text(
        "".join(f"{n}:\n  decoder_type: {kinds[n]}\n  dict: {e}.txt\n  data: {e}\n" for n, e in entries.items())
    )
    return folder


def test_a_row_costs_little_memory(many):
    """Beside what it says, a row takes at most 200 bytes, and reading it hardly more."""
    texts = load_multitask_config(many / "multitask.yaml")
    tracemalloc.start()
    manifest = read_utterances(many / "train.tsv", many)
    source, target = (
        encode_texts(many / "train.tsv", manifest, "train", texts[n]) for n in ("source_unigram", "target_unigram")
    )
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    content = manifest.units.values.nbytes + source.values.nbytes + target.values.nbytes
    content += sum(len(name) for name in manifest.ids)
    assert manifest.units.values.nbytes == 2 * 100 * ROWS
    assert kept - content < 200 * ROWS
    assert manifest.nbytes + source.nbytes + target.nbytes - content < 100 * ROWS
    assert peak - content < 300 * ROWS  # the files themselves have 450 bytes a row
    row = manifest[4_321]
    assert (row.id, row.audio, row.line) == ("clip_4321", f"{many}/b.zip:{FAR - 10 - 4_321}:10", 4_323)
    assert row.units.tolist() == list(range(100)) and row.units.dtype == np.int32
    for encoded in (source, target):  # in the order of the manifest, whatever that of the texts is
        np.testing.assert_array_equal(encoded.lengths, 1 + np.arange(ROWS) % 7)
        assert encoded[4_321].tolist() == [4] + [5] * (4_321 % 7)
    check_same_texts(many / "source", many / "target", "train")


def test_joined_splits_keep_their_rows(many, tmp_path):
    (tmp_path / "more.tsv").write_text(
        "id\tsrc_audio\tsrc_n_frames\ttgt_audio\ttgt_n_frames\n"
        f"x\tb.zip:1:2\t3\t70000 7\t2\ny\tz.wav\t9\t1\t1\nw\ta.zip:0:{FAR}\t1\t2\t1"
    )
    (many / "z.wav").touch()
    first, second = (read_utterances(path, many) for path in (many / "train.tsv", tmp_path / "more.tsv"))
    both = Manifest.join([first, second])
    assert len(both) == ROWS + 3
    assert both[ROWS - 1].audio == first[ROWS - 1].audio and both[ROWS - 1].units.tolist() == list(range(100))
    assert [row.audio for row in list(both)[ROWS:]] == [f"{many}/b.zip:1:2", f"{many}/z.wav", f"{many}/a.zip:0:{FAR}"]
    assert both[ROWS].units.tolist() == [70000, 7] and both.find("w") == ROWS + 2 and both.find("v") is None
    assert Manifest.join([first]) is first


def test_only_line_feeds_end_a_line(tmp_path):
    text = "a\u2028b\x85c\x0bd\x0ce\rf"
    (tmp_path / "dev.tsv").write_text(f"id\ttgt_text\r\n1\t{text}\r\n2\t{text}\n", encoding="utf-8", newline="")
    assert list(read_texts(tmp_path, "dev")) == [("1", text), ("2", text)]
    (tmp_path / "dev.tsv").write_bytes("id\ttgt_text\nü\t".encode() + b"a\xffb\n")
    with pytest.raises(ManifestError, match=re.escape("not UTF-8 text (invalid start byte at byte 16)")):
        list(read_texts(tmp_path, "dev"))


def test_repeated_ids_are_found_whatever_is_between(tmp_path):
    lines = [f"{i % 3_000}\tx" for i in range(3_001)]
    (tmp_path / "dev.tsv").write_text("\n".join(["id\ttgt_text", *lines]))
    with pytest.raises(ManifestError, match=r"line 3002: id '0' was used before, in line 2$"):
        list(read_rows(tmp_path / "dev.tsv", ("id", "tgt_text")))


def test_columns():
    builder = RaggedBuilder()
    for row in ([1, 2], [], [-3]):
        builder.append(row)
    table = builder.build()
    assert table.values.dtype == np.int16 and [table[i].tolist() for i in range(3)] == [[1, 2], [], [-3]]
    assert [row.tolist() for row in map(table.take(np.array([2, 0, 1])).__getitem__, range(3))] == [[-3], [1, 2], []]
    assert [table.row_of(i) for i in range(3)] == [0, 0, 2]
    builder = RaggedBuilder()
    for row in ([5, 6], [7, 2**31 - 1]):
        builder.append(row)
    large = Ragged.join([table, builder.build()])
    assert large.values.dtype == np.int32 and large.lengths.tolist() == [2, 0, 1, 2, 2]
    assert large.values.tolist() == [1, 2, -3, 5, 6, 7, 2**31 - 1]
    assert len(RaggedBuilder().build()) == 0
    index = IdIndex(Strings(["é", "b", ""]))
    assert [index.find(name) for name in ("b", "", "é", "none", "b")] == [1, 2, 0, None, 1]


def length_rows(corpus):
    """Recordings of 60 s in four forms, each said to have 50 frames."""
    long = np.zeros(60 * 16_000, "float32")
    soundfile.write(corpus.folder / "audio" / "long.wav", long, 16_000)
    soundfile.write(corpus.folder / "audio" / "long.ogg", long, 16_000)
    (corpus.folder / "audio" / "long.npy").write_bytes(stored(np.zeros((6_000, 80), "float32")))
    archive = corpus.folder / "audio" / "long.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(corpus.folder / "audio" / "long.npy", "long.npy")
        file.write(corpus.folder / "audio" / "long.wav", "long.wav")
    content = archive.read_bytes()
    for name in ("long.wav", "long.ogg", "long.npy"):
        yield name
    for name in ("long.wav", "long.npy"):
        data = (corpus.folder / "audio" / name).read_bytes()
        yield f"long.zip:{content.index(data)}:{len(data)}"


def test_a_wrong_length_is_found_before_the_recording_is_decoded(corpus):
    for name in length_rows(corpus):
        corpus.edit("train.tsv", second_row(1, name))
        corpus.edit("train.tsv", second_row(2, "50"))
        dataset = load(corpus, feature_cache_mb=0).dataset("train")
        tracemalloc.start()
        expected = r"^train_1: the manifest says 0\.50 s \(src_n_frames 50\), but .*long.* has 60\.00 s"
        with pytest.raises(FeatureError, match=expected):
            dataset[1]
        assert tracemalloc.get_traced_memory()[1] < 300_000, name  # its features alone have 1.9 MB
        tracemalloc.stop()
        for nearly in ("4959", "7437"):  # 20 % and half a second
            corpus.edit("train.tsv", second_row(2, nearly))
            assert load(corpus).dataset("train")[1].features.size(0) in (5_998, 6_000)


def test_a_wrong_length_stops_the_training_or_skips_the_row(corpus, tmp_path, caplog):
    corpus.edit("train.tsv", second_row(2, "6000"))  # the first batch: batches begin with the longest
    options = ["--batch-size", "1", "--max-source-positions", "9000"]
    with pytest.raises(SystemExit, match=r"^echostream: train_1: the manifest says 60\.00 s .* skip goes on "):
        train(corpus.folder, tmp_path / "stop", 1, *options)
    losses, _, trainer = train(corpus.folder, tmp_path / "skip", 6, *options, "--on-length-mismatch", "skip")
    assert np.isfinite(losses).all() and trainer.get_num_updates() == 6
    skipped = [record.getMessage() for record in caplog.records if record.getMessage().startswith("skipped train_1:")]
    assert len(skipped) == 1
    lines = (corpus.folder / "train.tsv").read_text().splitlines()
    (corpus.folder / "train.tsv").write_text("\n".join([lines[0], lines[2]]))
    with pytest.raises(SystemExit, match="no recording is as long as src_n_frames of its row says"):
        train(corpus.folder, tmp_path / "none", 1, *options, "--on-length-mismatch", "skip")
