"""The manifest reader returns what was written, or fails with one line that names file and line (Hypothesis)."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from budget import cases
from hypothesis import event, example, given
from hypothesis import strategies as st

from echostream.tasks.manifests import (
    SPEECH_COLUMNS,
    TEXT_COLUMNS,
    ManifestError,
    check_same_texts,
    check_units,
    matching_texts,
    read_texts,
    read_utterances,
)

ARCHIVE_BYTES = 1_000
# The fields of a TSV file can't contain its separators. NUL can be part of an id or a text, but not of a file name.
fields = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\t\n\r"), min_size=1, max_size=20)
texts = fields.filter(str.strip)
counts = st.integers(1, 10**6).map(str)
audio = st.sampled_from(["a.wav", "sub dir/b.flac", "é✓.npy"]) | st.builds(
    lambda offset, length: f"c.zip:{offset}:{length}", st.integers(0, 500), st.integers(1, 500)
)
units = st.lists(st.integers(0, 2_000), min_size=1, max_size=12).map(lambda row: " ".join(map(str, row)))
speech_rows = st.lists(
    st.tuples(fields, audio, counts, units, counts), min_size=1, max_size=5, unique_by=lambda row: row[0]
)
text_rows = st.lists(st.tuples(fields, texts), min_size=1, max_size=5, unique_by=lambda row: row[0])


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A folder with audio files of all kinds; the reader checks only that they exist."""
    root = tmp_path_factory.mktemp("manifests")
    (root / "sub dir").mkdir()
    for name in ("a.wav", "sub dir/b.flac", "é✓.npy"):
        (root / name).touch()
    (root / "c.zip").write_bytes(bytes(ARCHIVE_BYTES))
    return root


@st.composite
def tables(draw, columns, rows) -> tuple[bytes, list[tuple[str, ...]]]:
    """A valid manifest, and its rows in the order of ``columns``."""
    wanted = draw(rows)
    extra = draw(st.lists(st.sampled_from(["speaker", "tgt_lang", "", "é"]), unique=True, max_size=2))
    header = draw(st.permutations([*columns, *extra]))
    lines = ["\t".join(header)]
    for row in wanted:
        values = dict(zip(columns, row, strict=True))
        lines.append("\t".join(values.get(column, "x") for column in header))
    newline = draw(st.sampled_from(["\n", "\r\n"]))
    end = draw(st.sampled_from(["", newline, newline * 3]))
    mark = draw(st.sampled_from(["", "\ufeff"]))  # some spreadsheets write it at the start of UTF-8 files
    return (mark + newline.join(lines) + end).encode(), wanted


@cases(300)
@given(tables(SPEECH_COLUMNS, speech_rows))
def test_written_manifests_are_read(root, table):
    content, rows = table
    path = root / "train.tsv"
    path.write_bytes(content)
    utterances = read_utterances(path, root)
    assert [one.id for one in utterances] == [row[0] for row in rows]
    assert [one.audio for one in utterances] == [str(root / row[1]) for row in rows]
    assert [str(one.n_frames) for one in utterances] == [row[2] for row in rows]
    assert [" ".join(map(str, one.units)) for one in utterances] == [row[3] for row in rows]
    assert [one.line for one in utterances] == list(range(2, len(rows) + 2))


@cases(300)
@given(tables(TEXT_COLUMNS, text_rows))
def test_written_texts_are_read(root, table):
    content, rows = table
    (root / "dev.tsv").write_bytes(content)
    assert list(read_texts(root, "dev")) == rows


BAD_FIELDS = ("", " ", "0", "-1", "1.5", "x", "nan", "٣", "²", "1e9", "9" * 12, "9" * 5_000, "1 2147483648", "1 -1")
BAD_FIELDS += ("1 ٣", "\0", "a\0.wav", "no.wav", "a" * 300 + ".wav", "x.mp3", "c.zip:1", "c.zip:0:0", "c.zip:a:1")
BAD_FIELDS += ("c.zip:0:99999", f"c.zip:0:{'9' * 5_000}", "c.zip:٣:1", ":1:2", "../" * 2_000 + "a.wav", "\x85.wav")
BAD_FIELDS += ("\u2028.wav", "\x1b[2J.wav", ".", "sub dir", "sub dir/.wav", "no\x0b.zip:0:1", "a.wav/b.wav")


@st.composite
def damaged(draw, columns, rows) -> bytes:
    """A manifest with random damage."""
    content, _ = draw(tables(columns, rows))
    for _ in range(draw(st.integers(1, 3))):
        lines = content.split(b"\n")
        line = draw(st.integers(0, len(lines) - 1))
        kind = draw(st.sampled_from(["cut", "byte", "field", "swap", "repeat", "drop column", "insert"]))
        if kind == "cut":  # a full disk
            content = content[: draw(st.integers(0, len(content)))]
            continue
        if kind == "byte":
            at = draw(st.integers(0, max(0, len(content) - 1)))
            content = content[:at] + draw(st.binary(min_size=1, max_size=2)) + content[at + 1 :]
            continue
        if kind == "insert":
            at = draw(st.integers(0, len(content)))
            piece = draw(st.sampled_from(["\0", "\r", "\n", "\t", "\r\n", "\ufeff", "\u2028", '"', "\ud7ff", "\x1a"]))
            content = content[:at] + piece.encode() + content[at:]
            continue
        if kind == "field":
            values = lines[line].split(b"\t")
            values[draw(st.integers(0, len(values) - 1))] = draw(st.sampled_from(BAD_FIELDS) | fields).encode()
            lines[line] = b"\t".join(values)
        elif kind == "swap":
            other = draw(st.integers(0, len(lines) - 1))
            lines[line], lines[other] = lines[other], lines[line]
        elif kind == "repeat":
            lines.insert(line, lines[line])
        elif kind == "drop column":
            at = draw(st.integers(0, len(columns)))
            lines = [b"\t".join(v for i, v in enumerate(row.split(b"\t")) if i != at) for row in lines]
        content = b"\n".join(lines)
    return content


def header_and(**values: str) -> bytes:
    """A manifest of one row."""
    row = {"id": "a", "src_audio": "a.wav", "src_n_frames": "5", "tgt_audio": "1", "tgt_n_frames": "1"} | values
    return "\n".join("\t".join(line) for line in (row.keys(), row.values())).encode()


def refusal(path: Path, error: ManifestError) -> None:
    """Check that a message is one printable line that names the file and, if there is one, the line."""
    message = str(error)
    assert message.startswith(str(path)) and len(message.splitlines()) == 1 and len(message) < 1_000
    assert message.isprintable(), repr(message)
    if not re.search(r"no rows below the header|not UTF-8|no such manifest", message):
        assert re.match(r": line [1-9]\d*: ", message[len(str(path)) :]), message


@cases(1_000)
@given(damaged(SPEECH_COLUMNS, speech_rows) | st.binary(max_size=200))
@example(b"")
@example(header_and(tgt_audio="9" * 12))
@example(header_and(tgt_audio="1 9223372036854775808"))
@example(header_and(tgt_audio="1 ²"))
@example(header_and(src_n_frames="9" * 5_000))
@example(header_and(src_n_frames="9" * 30))
@example(header_and(src_audio="a" * 300 + ".wav"))
@example(header_and(src_audio="b" * 300 + ".zip:0:1"))
@example(header_and(src_audio=f"c.zip:0:{'9' * 5_000}"))
@example(header_and(src_audio="\x1b[2J.wav"))
@example(header_and(id="a\x00b"))
@example(header_and(id="a\rb"))
@example(b"id\tid\tsrc_audio\tsrc_n_frames\ttgt_audio\ttgt_n_frames\na\tb\ta.wav\t1\t1\t1")
def test_damaged_manifest_is_read_or_rejected(root, content):
    path = root / "test.tsv"
    path.write_bytes(content)
    try:
        utterances = read_utterances(path, root)
        check_units(path, utterances, 1_000)
    except ManifestError as error:
        refusal(path, error)
        event("refused")
        return
    event("read")
    lines = [line.removesuffix("\r") for line in content.decode("utf-8-sig").split("\n")]
    where = {column: lines[0].split("\t").index(column) for column in SPEECH_COLUMNS}
    assert sum(line != "" for line in lines[1:]) == len(utterances) >= 1
    for one in utterances:
        row = lines[one.line - 1].split("\t")
        assert one.id == row[where["id"]] and one.audio == str(root / row[where["src_audio"]])
        assert one.n_frames == int(row[where["src_n_frames"]]) > 0
        assert one.units.dtype == np.int32 and one.units.tolist() == list(map(int, row[where["tgt_audio"]].split()))


@cases(400)
@given(damaged(TEXT_COLUMNS, text_rows) | st.binary(max_size=200))
def test_damaged_texts_are_read_or_rejected(root, content):
    path = root / "valid.tsv"
    path.write_bytes(content)
    try:
        texts = dict(read_texts(root, "valid"))
    except ManifestError as error:
        refusal(path, error)
        event("refused")
        return
    event("read")
    lines = [line.removesuffix("\r") for line in content.decode("utf-8-sig").split("\n")]
    assert sum(line != "" for line in lines[1:]) == len(texts) >= 1
    assert all(text.strip() for text in texts.values())


@cases(100)
@given(tables(SPEECH_COLUMNS, speech_rows), text_rows, text_rows)
def test_inconsistent_texts_and_speech_are_rejected(root, speech, one, two):
    """The ids of two text folders and a speech manifest overlap at random or not at all."""
    path = root / "fit.tsv"
    path.write_bytes(speech[0])
    utterances = read_utterances(path, root)
    folders = []
    for name, rows in (("one", one), ("two", two)):
        folder = root / name
        folder.mkdir(exist_ok=True)
        lines = ["id\ttgt_text", *("\t".join(row) for row in rows)]
        (folder / "fit.tsv").write_text("\n".join(lines), encoding="utf-8", newline="")
        folders.append(folder)
    try:
        got = dict(matching_texts(path, utterances, folders[0], "fit", "source_unigram"))
        assert [got[row] for row in range(len(utterances))] == [dict(one)[row.id] for row in utterances]
    except ManifestError as error:
        refusal(path, error)
        assert not {row.id for row in utterances} <= dict(one).keys()
    try:
        check_same_texts(*folders, "fit")
        assert dict(one) == dict(two)
    except ManifestError as error:
        assert dict(one) != dict(two) and len(str(error).splitlines()) == 1 and str(error).isprintable()
