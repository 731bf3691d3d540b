"""The everyday corpus: texts that leak nothing, voices, and the recipe itself at its smallest."""

import csv
import io
import json
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from scripts.recipes.everyday import human_lists
from scripts.recipes.everyday.fetch import fetch_tatoeba
from scripts.recipes.everyday.human import HumanSpeech, store
from scripts.recipes.everyday.numbers_in_text import spoken_french, written_english
from scripts.recipes.everyday.texts import (
    Cleaner,
    Pair,
    assign_voices,
    choose,
    components,
    hold_out,
    join,
    seconds_of,
    shares_of,
    table,
    tidy,
)
from scripts.recipes.everyday.voices import read_voices
from scripts.speech.pico_voice import PicoVoice
from scripts.speech.text_normalization import normalize_text

REPOSITORY = Path(__file__).resolve().parents[3]
RECIPE = REPOSITORY / "scripts/recipes/everyday"


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("Je me lève à 8h30.", "Je me lève à huit heures trente."),
        ("Le train de 9h00 part à 1h.", "Le train de neuf heures part à une heure."),
        ("La réunion est à 14:05.", "La réunion est à quatorze heures cinq."),
        ("Ça coûte 5,50 €, soit 10 000 yens.", "Ça coûte cinq euros cinquante, soit dix mille yens."),
        ("Il gagne 300.000 dollars ou $5.", "Il gagne trois cent mille dollars ou cinq dollars."),
        (
            "Né en 1996, il a 1 euro et 9,4 % de plus.",
            "Né en mille neuf cent quatre-vingt-seize, il a un euro et neuf virgule quatre pour cent de plus.",
        ),
        (
            "Le 21ème siècle, la 3e avenue, le 1er mai.",
            "Le vingt et unième siècle, la troisième avenue, le premier mai.",
        ),
        ("J'ai lu 1 heure.", "J'ai lu une heure."),
        ("Rien ne change.", "Rien ne change."),
    ],
)
def test_french_numbers_are_written_as_they_are_said(written, spoken):
    assert spoken_french(written) == spoken


def test_what_cannot_be_said_is_refused():
    with pytest.raises(ValueError, match="numbers and letters"):
        spoken_french("Un lecteur MP3.")


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("It closed in twenty twenty seven.", "It closed in 2027."),
        ("It closed in nineteen ninety-six.", "It closed in 1996."),
        ("Thirty-six people and twelve dogs.", "36 people and twelve dogs."),
        ("The twenty-first, or sixty thousand.", "The twenty-first, or sixty thousand."),
        ("One hundred and sixty of them.", "One hundred and sixty of them."),
        ("Tuesday's meeting is at 8:30.", "Tuesday's meeting is at 8:30."),
    ],
)
def test_english_numbers_are_digits_from_thirteen(text, written):
    assert written_english(text) == written


def test_texts_are_brought_to_one_form_and_cleaned():
    assert tidy("«\u00a0Qu’est-ce que c’est\u202f?\u00a0»") == "«Qu'est-ce que c'est?»"
    clean = Cleaner()
    assert clean("Où est la gare ?", "Where is the station?", "a") == Pair(
        "Où est la gare?", "Where is the station?", "a"
    )
    for fr, en in (
        ("Où est la gare?", "Where is the station?"),  # the same words
        ("OÃ¹ est la gare?", "Where is the other station?"),
        ("Where are you going to today, my friend?", "Where are you going to, my friend?"),
        ("Oui.", "I have no idea what you have been talking about since this morning."),
        ("mot " * 40, "word " * 40),
        ("Le lecteur MP3.", "The MP3 player."),
        ("Il ₂ pleut.", "It rains."),
    ):
        assert clean(fr, en, "a") is None, (fr, en)
    assert sum(clean.dropped.values()) == 7
    assert clean.dropped["a: double"] == clean.dropped["a: numbers that cannot be read"] == 1


def pairs_of(count: int) -> list[Pair]:
    """Pairs of which some share a sentence."""
    draw = random.Random(0)
    return [
        Pair(f"La phrase {draw.randrange(count)} est ici", f"Sentence {draw.randrange(count)} here", "t")
        for _ in range(count)
    ]


def test_no_sentence_of_a_test_is_connected_with_training():
    pairs = pairs_of(400)
    groups = components(pairs)
    assert sorted(map(id, (p for g in groups for p in g))) == sorted(map(id, pairs))
    keys = [{key for pair in group for key in pair.keys} for group in groups]
    assert all(not keys[i] & keys[j] for i in range(len(keys)) for j in range(i))
    dev, test, rest = hold_out(groups, 5, 7, random.Random(1))
    held = {key for group in (*dev, *test) for pair in group for key in pair.keys}
    assert len(dev) == 5 and len(test) == 7
    assert not held & {key for pair in rest for key in pair.keys}
    with pytest.raises(SystemExit, match="too few to hold out"):
        hold_out(groups, 100, 100, random.Random(1))


def test_a_third_of_the_sentences_are_joined_and_all_are_said_once():
    pairs = [Pair(f"Phrase numéro {n}", "x", "t") for n in range(3000)]
    groups = list(join(pairs, random.Random(2)))
    assert [pair for group in groups for pair in group] == pairs
    joined = sum(len(group) for group in groups if len(group) > 1)
    assert joined / len(pairs) == pytest.approx(1 / 3, abs=0.04)
    assert {len(group) for group in groups} == {1, 2, 3, 4}


def test_hours_are_filled_by_rounds_with_other_translations():
    pairs = [Pair("Une phrase.", "One.", "t"), Pair("Une phrase.", "Another.", "t"), Pair("Deux.", "Two.", "t")]
    chosen, rounds = choose(pairs, 2.5 * sum(map(seconds_of, ("Une phrase.", "Deux."))) / 3600, random.Random(0))
    assert rounds == 3
    assert {pair.en for pair in chosen} == {"One.", "Another.", "Two."}


def test_the_voices_of_the_recipe_are_many_and_kept_apart():
    voices = read_voices(RECIPE / "voices.tsv")
    assert sum(voice.use == "train" for voice in voices) >= 25
    assert sum(voice.use == "test" for voice in voices) == 2
    assert len({(v.base, v.other, v.blend, v.pitch, v.formants) for v in voices}) == len(voices)


def test_slow_voices_speak_as_much_as_asked():
    voices = [voice for voice in read_voices(RECIPE / "voices.tsv") if voice.use == "train"]
    assert shares_of(voices, None) == [voice.share for voice in voices]
    shares = shares_of(voices, 0.01)
    slow = sum(share for share, voice in zip(shares, voices, strict=True) if voice.speaks_slowly)
    assert slow / sum(shares) == pytest.approx(0.01)
    swift = [(share, voice.share) for share, voice in zip(shares, voices, strict=True) if not voice.speaks_slowly]
    assert all(share == own for share, own in swift)
    groups = [[Pair(f"Phrase {number}.", f"Sentence {number}.", "test")] for number in range(4000)]
    said = list(assign_voices(groups, voices, shares, random.Random(0)))
    again = sum(voice.speaks_slowly for _, voice in said)
    assert 0.012 < again / len(said) < 0.03 and len(said) - len(groups) == again // 2
    only_slow = [voice for voice in voices if voice.speaks_slowly]
    assert shares_of(only_slow, 0.01) == [voice.share for voice in only_slow]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a\tpico\t\t1\tx\t1\ttrain", "voice a: could not convert"),
        ("a\tpico\t\t1\t0\t1\ttrain", "numbers are above 0"),
        ("a\tpico\t\t1\t1\t1\tsing", "use is one of train, test"),
        ("a\tpico\t\t1\t1\t1\ttest", "has no voice for training"),
    ],
)
def test_a_bad_table_of_voices_is_one_line(tmp_path, row, message):
    path = tmp_path / "voices.tsv"
    path.write_text(f"id\tbase\tblend\tshare\tpitch\tformants\tuse\n{row}\n", encoding="utf-8")
    with pytest.raises(SystemExit, match=message):
        read_voices(path)


def test_an_archive_that_is_there_is_not_fetched(tmp_path, capsys):
    path = tmp_path / "fra-eng.zip"
    path.write_bytes(b"other")
    fetch_tatoeba(path)
    assert "another version" in capsys.readouterr().out


def test_what_people_said_is_listed_for_simuleval(tmp_path, monkeypatch, capsys):
    draw = np.random.default_rng(0)
    waves = {"digits__sept": draw.uniform(-0.5, 0.5, 12_000), "vm__un": draw.uniform(-0.5, 0.5, 16_000)}
    texts = {"digits__sept": ("Sept, s'il vous plaît !", "Seven, please!"), "vm__un": ("Message un.", "Message one.")}
    rows = store(tmp_path / "human/armelle.zip", ((name, wave, texts[name]) for name, wave in waves.items()))
    (tmp_path / "human/armelle.tsv").write_text(
        table(["id", "audio", "n_frames", "seconds", "fr", "en"], rows), encoding="utf-8"
    )
    monkeypatch.setattr(sys, "argv", ["human_lists.py", "--data-root", str(tmp_path)])
    human_lists.main()
    shown = capsys.readouterr().out
    assert f"2 utterances in {tmp_path / 'simuleval_armelle'}" in shown and "none of tuxpaint" in shown
    lists = {
        name: (tmp_path / "simuleval_armelle" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
        for name in ("source", "target", "source_text")
    }
    assert lists["target"] == ["Seven, please!", "Message one."]
    assert lists["source_text"] == ["sept s'il vous plaît", "message un"]
    for path, wave in zip(lists["source"], waves.values(), strict=True):
        samples, rate = soundfile.read(path)
        assert Path(path).is_absolute() and rate == 16_000
        np.testing.assert_allclose(samples, wave, atol=1e-4)


# --- the recipe -----------------------------------------------------------------------------------------------------

SUBJECTS = ("Le chat", "La voisine", "Mon frère", "Le facteur", "Une amie", "Le médecin", "La fille", "Un homme")
VERBS = ("mange une pomme", "cherche la gare", "ouvre la porte", "attend le bus", "lit un livre", "ferme la fenêtre")
ENGLISH = ("The cat", "The neighbour", "My brother", "The postman", "A friend", "The doctor", "The girl", "A man")
DOES = (
    "eats an apple",
    "looks for the station",
    "opens the door",
    "waits for the bus",
    "reads a book",
    "closes the window",
)


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> Path:
    """What the recipe fetches: texts, and people who speak other languages (here Pico)."""
    folder = tmp_path_factory.mktemp("given")
    lines = [
        f"{en} {does}{time_en}.\t{fr} {verb}{time_fr}."
        for fr, en in zip(SUBJECTS, ENGLISH, strict=True)
        for verb, does in zip(VERBS, DOES, strict=True)
        for time_fr, time_en in (("", ""), (" à 8h30", " at 8:30"))
    ]
    with zipfile.ZipFile(folder / "fra-eng.zip", "w") as archive:
        archive.writestr("fra.txt", "\n".join(lines) + "\n")
    (folder / "voices.tsv").write_text(
        "id\tbase\tblend\tshare\tpitch\tformants\tuse\n"
        "high\tpico\t\t1\t1.1\t1.05\ttrain\nlow\tpico\t\t1\t0.7\t0.9\ttrain\nother\tpico\t\t1\t0.85\t1\ttest\n",
        encoding="utf-8",
    )
    (folder / "human").mkdir()
    voice = PicoVoice()
    people = (
        (f"p{n}", voice(text, "de-DE"), ("de",)) for n, text in enumerate(("Guten Morgen!", "Wie geht es Ihnen?"))
    )
    rows = store(folder / "human/people.zip", people)
    (folder / "human/human.tsv").write_text(table(["id", "audio", "n_frames", "seconds", "language"], rows))
    assert len(HumanSpeech(folder / "human/human.tsv").draw(np.random.default_rng(0))) > 8000
    return folder


def run(given: Path, root: Path, *options: str) -> subprocess.CompletedProcess:
    command = [str(RECIPE / "run.sh"), "--data-root", str(root), "--tatoeba", str(given / "fra-eng.zip")]
    command += ["--voices", str(given / "voices.tsv"), "--voices-dir", str(given), "--hours", "0.04", "--dev", "10"]
    command += ["--test", "6", "--check-sentences", "6", "--source-vocab", "40", "--target-vocab", "60", "--jobs", "2"]
    command += ["--vocoder-hours", "0.01", "--python", sys.executable, *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


@pytest.mark.integration
def test_the_recipe_ends_with_what_training_reads(given, tmp_path):
    root = tmp_path / "data"
    (root / "human").mkdir(parents=True)
    for file in (given / "human").iterdir():
        (root / "human" / file.name).write_bytes(file.read_bytes())
    # Its two voice tables are not there, and Pico alone doesn't need them: stage 1 without what it would fetch.
    check = [sys.executable, str(RECIPE / "check_voices.py"), "--voices", str(given / "voices.tsv"), "--sentences", "6"]
    checked = subprocess.run(
        [*check, "--tatoeba", str(given / "fra-eng.zip"), "--out", str(root / "voices.tsv"), "--jobs", "2"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
    assert {row["id"] for row in rows_of(root / "voices_report.tsv")} == {"high", "low", "other"}
    assert {voice.name for voice in read_voices(root / "voices.tsv")} >= {"high"}
    for options in (("--stage", "2", "--stop-stage", "2"), ("--stage", "4", "--stop-stage", "6")):
        done = run(given, root, *options)
        assert done.returncode == 0, done.stderr
    report = json.loads((root / "texts/report.json").read_text(encoding="utf-8"))
    assert report["recordings"]["everyday"] > 10 and report["recordings"]["wordless"] >= 1
    recordings = {row["id"]: row for row in rows_of(root / "texts/recordings.tsv")}
    train = rows_of(root / "train.tsv")
    for row in train:
        archive, offset, size = row["src_audio"].split(":")
        data = (root / archive).read_bytes()[int(offset) : int(offset) + int(size)]
        samples, rate = soundfile.read(io.BytesIO(data))
        assert rate == 16_000
        assert int(row["src_n_frames"]) == max(1, 1 + (len(samples) - 400) // 160)
        assert bool(row["tgt_audio"]) == bool(recordings[row["id"]]["en"])
    texts = {row["id"]: row["tgt_text"] for row in rows_of(root / "source_unigram/train.tsv")}
    spelled = {name: text.replace(" ", "").replace("▁", " ").strip() for name, text in texts.items()}
    joined = next(row for row in recordings.values() if row["split"] == "train" and " | " in row["fr"])
    assert spelled[joined["id"]] == normalize_text(joined["fr"].replace(" | ", " "))
    english = {row["id"]: row["tgt_text"] for row in rows_of(root / "target_unigram/train.tsv")}
    assert any(text.rstrip().endswith(".") and "8:30" in text.replace(" ", "") for text in english.values())
    assert len((root / "simuleval_tatoeba/source.txt").read_text(encoding="utf-8").split()) == 6
    assert "allow_empty_targets: true" in (root / "config_gcmvn.yaml").read_text(encoding="utf-8")
    # Another run makes nothing anew; another corpus of the same seed is the same.
    again = run(given, root, "--stage", "4", "--stop-stage", "6")
    assert "french speech, shards: 0 recorded" in again.stdout and "manifests: already done" in again.stdout
    before = {path.name: path.read_bytes() for path in (root / "french").glob("shard_*")}
    for path in (root / "french").iterdir():
        path.unlink()
    assert run(given, root, "--stage", "4", "--stop-stage", "4").returncode == 0
    assert {path.name: path.read_bytes() for path in (root / "french").glob("shard_*")} == before
