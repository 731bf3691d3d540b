"""The phrasebook: its grammar, its sampling, the variation of its recordings, and the whole recipe on six sentences."""

import os
import re
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile
from killing import check_killed_run, with_every_recipe

from scripts.recipes.phrasebook import bilingual_grammar, english_forms, french_forms, phrase_texts
from scripts.recipes.phrasebook.bilingual_grammar import Sampler, Template
from scripts.recipes.phrasebook.french_forms import FrenchVerb
from scripts.recipes.phrasebook.lexicon import load_lexicon
from scripts.recipes.phrasebook.slots import slot_names
from scripts.speech import augmentation, french_voice, sounds, voice_variation
from scripts.speech.audio import read_speech
from scripts.speech.speech_synthesis import read_table
from scripts.speech.text_normalization import normalize_text

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"
PHRASEBOOK = SCRIPTS / "recipes/phrasebook"
LEXICON = load_lexicon(PHRASEBOOK / "lexicon")
TEMPLATES = bilingual_grammar.load_templates(PHRASEBOOK / "templates")
SIZES = {"train": 6000, "dev": 40, "test_sentences": 40, "test_templates": 40}
VOICE_TABLE = SCRIPTS / "recipes/quickstart/voices/ff_siwis.npy"
needs_voices = pytest.mark.skipif(
    any(find_spec(package) is None for package in (*french_voice.PACKAGES, "hibari", "sklearn")),
    reason="needs pip install -e '.[data]'",
)


@pytest.fixture(scope="module")
def corpus():
    return phrase_texts.sample_corpus(TEMPLATES, LEXICON, SIZES, unseen_templates=24, seed=0)


def by_set(corpus, name):
    return [row for row in corpus.rows if row["set"] == name]


def pairs_of(french: str, english: str, count: int = 1, seed: str = "0") -> list[tuple[str, str]]:
    sampler = Sampler(Template("t", french, english), LEXICON, seed)
    return [sampler()[:2] for _ in range(count)]


def write_grammar(folder: Path, french: str, english: str) -> Path:
    """A grammar with the real lexicon and one template."""
    (folder / "templates").mkdir(parents=True)
    (folder / "lexicon").symlink_to(PHRASEBOOK / "lexicon")
    (folder / "templates" / "all.tsv").write_text(f"id\tfr\ten\n1\t{french}\t{english}\n")
    return folder


def run(tool: str, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, str(SCRIPTS / tool), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("je ai le~l' heure de la~l' école", "j'ai l'heure de l'école"),
        ("jusque au~à_l' hôtel", "jusqu'à l'hôtel"),
        ("ce~cet arbre et ce~cet *hibou", "cet arbre et ce hibou"),
        ("un beau~bel arbre et un vieux~vieil *hibou", "un bel arbre et un vieux hibou"),
        ("ma~mon amie et ma~mon vieille amie", "mon amie et ma vieille amie"),
        ("de_la~de_l' eau et du~de_l' ail", "de l'eau et de l'ail"),
        ("à *huit heures moins que *onze", "à huit heures moins que onze"),
        ("parler à le médecin de les enfants à les amis de le *hall", "parler au médecin des enfants aux amis du hall"),
        ("il faut de *le faire", "il faut de le faire"),
        ("je y vais avec Yves et le *yaourt de Yves", "j'y vais avec Yves et le yaourt d'Yves"),
        ("si il pleut , si elle vient", "s'il pleut , si elle vient"),
    ],
)
def test_french_words_meet(words, sentence):
    assert french_forms.join_words(words) == sentence


@pytest.mark.parametrize(
    ("parts", "tense", "forms"),
    [
        (("manger",), "pres", "mange manges mange mangeons mangez mangent"),
        (("manger",), "impf", "mangeais mangeais mangeait mangions mangiez mangeaient"),
        (("commencer",), "impf", "commençais commençais commençait commencions commenciez commençaient"),
        (("jouer",), "cond", "jouerais jouerais jouerait jouerions joueriez joueraient"),
        (("prendre", "prends prends prend prenons prenez prennent", "", "pris"), "fut",
         "prendrai prendras prendra prendrons prendrez prendront"),
        (("être", "suis es est sommes êtes sont", "ser", "été"), "impf", "étais étais était étions étiez étaient"),
    ],
)  # fmt: skip
def test_conjugation(parts, tense, forms):
    verb = FrenchVerb.from_parts(*parts)
    assert " ".join(verb.tense(tense, index) for index in range(6)) == forms


def test_english_forms():
    assert english_forms.join_words("a orange and a university in a hour") == "an orange and a university in an hour"
    assert english_forms.plural_of("cherry") == "cherries" and english_forms.plural_of("watch") == "watches"
    verb = english_forms.EnglishVerb.from_parts("tidy")
    assert (verb.third, verb.past, verb.ing) == ("tidies", "tidied", "tidying")
    assert LEXICON.english_verb("be").simple_past(3, True) == "were"


@pytest.mark.parametrize(
    ("french", "english", "expected"),
    [
        ("{noisy} {se lever.past@noisy}.", "{noisy} got up.", r".* se sont levés\. \| .* got up\."),
        ("{job_person} {milestone.past@job_person}.", "{job_person} {milestone.past@job_person}.", r".* \| .*"),
        (
            "{ce tree} et {ce tree.s}",
            "{this tree} and {this tree.s}",
            r"(Ce|Cet) .* et ces .*s \| This .* and these .*s",
        ),
        ("{un@home} {size@home} {home}", "{a@home} {size} {home}", r"Une? .* \| An? .*"),
        ("{tu_subject} ne manges pas {du food}", "{tu_subject} do not eat some {food}", r"Tu ne manges pas .*"),
    ],
)
def test_slots(french, english, expected):
    for pair in pairs_of(french, english, 30):
        assert re.fullmatch(expected, " | ".join(pair)), pair


def test_participles_and_possessives_follow_the_subject():
    pairs = pairs_of("{anyone} {milestone.past@anyone}.", "{anyone} {milestone.past@anyone}.", 600)
    found = dict(pairs)
    assert found["Elle s'est mariée."] == "She got married."
    assert found["Ils ont vendu leur voiture."] == "They sold their car."
    negated = dict(pairs_of("{anyone} {routine.presneg@anyone}.", "{anyone} {routine.presneg@anyone}.", 900))
    assert negated["Ils ne prennent pas de douche."] == "They do not take a shower."
    assert negated["Nous ne nous brossons pas les dents."] == "We do not brush our teeth."


def test_every_template_is_a_pair_of_whole_sentences():
    assert len(TEMPLATES) >= 150
    for template in TEMPLATES:
        sides = [
            {name for name in slot_names(text) if name.split("#")[0] in LEXICON.classes}
            for text in (template.fr, template.en)
        ]
        assert sides[0] == sides[1], template.id
        sampler = Sampler(template, LEXICON, "test")
        for _ in range(15):
            french, english, _ = sampler()
            assert not re.search(r"[^\w .,?!'’-]|[\d_]|  ", french + english), (template.id, french, english)
            assert english.isascii()
            assert french[0].isupper() and english[0].isupper()
            assert french[-1] == english[-1] and french[-1] in ".?!", (template.id, french, english)
            # What elision and contraction must not leave behind; h is silent unless the lexicon says otherwise.
            bad = (
                r"(?<!-)\b(je|me|te|se|ne|que|de|la|ma|ta|sa|ce) (?!onze)[aâeéèêiîoôuûœ]|\b(de|à) les?\b|\bune? une?\b"
            )
            slips = re.findall(bad, french)
            assert not slips, (template.id, french, slips)


def test_corpus_is_large_balanced_and_held_apart(corpus):
    numbers = phrase_texts.report(corpus, TEMPLATES, LEXICON)
    assert numbers["sentences"] == SIZES
    assert numbers["sentences_possible"] > 10**6
    assert numbers["french_word_types_in_train"] >= 1200
    assert len(numbers["entries_not_in_train"]) < 0.02 * numbers["lexicon_entries"]

    train = by_set(corpus, "train")
    for side in ("fr", "en"):
        trained = {normalize_text(row[side]) for row in train}
        for name in ("dev", "test_sentences", "test_templates"):
            assert not trained & {normalize_text(row[side]) for row in by_set(corpus, name)}
    assert len({row["fr"] for row in corpus.rows}) == len(corpus.rows) == len({row["id"] for row in corpus.rows})

    used = Counter(row["template"] for row in train)
    full = [count for name, count in used.items() if phrase_texts.count_sentences(template(name).fr, LEXICON) > 1000]
    assert max(full) - min(full) <= 1
    unseen = {row["template"] for row in by_set(corpus, "test_templates")}
    assert len(unseen) == 24 and not unseen & set(used)
    assert {row["template"] for row in by_set(corpus, "test_sentences")} <= set(used)


def template(name: str) -> Template:
    return next(entry for entry in TEMPLATES if entry.id == name)


def test_longer_corpus_begins_like_a_shorter_one(corpus):
    shorter = phrase_texts.sample_corpus(TEMPLATES, LEXICON, SIZES | {"train": 300}, unseen_templates=24, seed=0)
    assert shorter.rows == corpus.rows[: len(shorter.rows)]
    other = phrase_texts.sample_corpus(TEMPLATES, LEXICON, SIZES | {"train": 300}, unseen_templates=24, seed=1)
    assert len({row["fr"] for row in other.rows} & {row["fr"] for row in shorter.rows}) < 100


@pytest.mark.parametrize(
    ("french", "english", "message"),
    [
        ("Le {place.", "The {place}.", "a brace without its other one"),
        ("{le palce} est ouvert.", "{the palce} is open.", "no class palce"),
        ("Je {fly.pres@pronoun}.", "I {fly.pres@pronoun}.", "neither a class nor a verb: fly"),
        ("{le fabric}", "{the fabric}", "different sentences"),
        ("{le work_room.s} sont là.", "{the work_room.s} are here.", "write the plural of"),
    ],
)
def test_mistakes_in_a_grammar_are_told_in_one_line(tmp_path, french, english, message):
    grammar = write_grammar(tmp_path, french, english)
    arguments = ("--grammar", grammar, "--out", tmp_path / "texts", "--train-sentences", 50)
    done = run("recipes/phrasebook/phrase_texts.py", *arguments, "--dev", 0, "--test", 0, "--unseen-templates", 0)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1 and re.search(message, done.stderr), done.stderr
    assert not (tmp_path / "texts").exists()


def test_a_manner_belongs_to_an_utterance():
    variation = voice_variation.Variation(3, ("a", "b", "c"), 0.2)
    manners = [variation(f"u{i}") for i in range(2000)]
    assert manners[:20] == [variation(f"u{i}") for i in range(20)]
    assert manners != [voice_variation.Variation(4, ("a", "b", "c"), 0.2)(f"u{i}") for i in range(2000)]
    accents = Counter(manner.accent for manner in manners)
    assert 0.17 < 1 - accents[None] / 2000 < 0.23 and min(accents[name] for name in "abc") > 80
    for manner in manners[:200]:
        assert 0.85 <= manner.speed <= 1.2 and -2 <= manner.semitones <= 2
        # Synthesised slower and played faster, or the other way round: the tempo heard is the one drawn.
        tempo = manner.synthesis_speed(24000) * manner.playback_rate(24000) / 24000
        assert tempo == pytest.approx(manner.speed)
        pitch = 12 * np.log2(manner.playback_rate(24000) / 24000)
        assert pitch == pytest.approx(manner.semitones, abs=0.08)
    # Voices change nothing but who has an accent.
    alone = voice_variation.Variation(3)("u7")
    assert (alone.speed, alone.semitones) == (manners[7].speed, manners[7].semitones)


def test_voices_are_listed_without_the_one_held_out(tmp_path):
    for name in ("b.npy", "a.bin", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert list(voice_variation.list_voices(tmp_path)) == ["a", "b"]
    assert list(voice_variation.list_voices(tmp_path, without=["a"])) == ["b"]
    assert list(voice_variation.list_voices(tmp_path, only="b")) == ["b"]
    with pytest.raises(SystemExit, match=r"no voice c in .*there are: a b"):
        voice_variation.list_voices(tmp_path, only="c")
    with pytest.raises(SystemExit, match="--voices-dir"):
        voice_variation.list_voices(tmp_path, without=["a", "b"])


def test_noise_has_the_loudness_and_colour_asked_for():
    generator = np.random.default_rng(0)
    speech = generator.normal(size=32000) * 0.1
    for slope in (0.0, 2.0):
        noise = sounds.coloured_noise(32000, slope, generator)
        mixed = augmentation.add_noise(speech, noise, 12.0)
        ratio = 10 * np.log10(np.mean(speech**2) / np.mean((mixed - speech) ** 2))
        assert ratio == pytest.approx(12, abs=1e-6)
        power = np.abs(np.fft.rfft(noise)) ** 2
        frequencies = np.fft.rfftfreq(32000, 1 / 16000)
        octaves = [power[(frequencies >= f) & (frequencies < 2 * f)].mean() for f in (250, 500, 1000, 2000)]
        assert np.mean(np.diff(np.log2(octaves))) == pytest.approx(-slope, abs=0.2)


def test_an_echo_comes_after_the_sound_and_dies_away():
    click = np.zeros(16000)
    click[3000] = 1
    heard = augmentation.reverberate(click, 0.4, 6.0, np.random.default_rng(0))
    assert heard.shape == click.shape and heard[3000] == pytest.approx(1) and abs(heard[:3000]).max() < 1e-9
    echo = heard[3001:]
    assert 10 * np.log10(1 / np.sum(echo**2)) == pytest.approx(6, abs=0.1)
    early, late = np.mean(echo[:800] ** 2), np.mean(echo[3200:4000] ** 2)
    assert 10 * np.log10(early / late) == pytest.approx(60 * 0.2 / 0.4, abs=3)


def test_pauses_follow_the_speech_and_leave_it_as_it_was():
    speech = np.random.default_rng(0).normal(size=16000).astype(np.float32) * 0.1
    dry = {"room_share": 0.0, "noise_share": 0.0, "telephone_share": 0.0}
    always = augmentation.Surroundings(pause_share=1.0, **dry)
    lengths, quiet_db, loudness = set(), [], []
    for seed in range(60):
        heard = always(speech, np.random.default_rng(seed))
        pause = heard[16000:]
        assert 1 <= len(pause) / 16000 <= 8 and heard.dtype == np.float32 and np.abs(heard).max() <= 0.8
        assert np.corrcoef(heard[:16000], speech)[0, 1] > 0.9999
        lengths.add(len(pause))
        if np.any(pause):
            power = 10 * np.log10(np.mean(pause**2))
            (quiet_db if power < -44 else loudness).append(power)
    silent = 60 - len(quiet_db) - len(loudness)
    # Two of the five kinds are without a sound here, one is a quiet room, two are to be heard.
    assert len(lengths) > 50 and 12 < silent < 36 and 4 < len(quiet_db) < 22 and 12 < len(loudness) < 36
    assert min(quiet_db) < -65
    # Without them, and for those that get none, all is as before.
    never = augmentation.Surroundings(**dry)
    assert len(never(speech, np.random.default_rng(0))) == 16000


def test_telephone_leaves_its_band():
    seconds = np.arange(16000) / 16000
    levels = [np.std(augmentation.telephone(np.sin(2 * np.pi * f * seconds))[4000:]) for f in (100, 1000, 6000)]
    assert levels[1] > 0.6 and max(levels[0], levels[2]) < 0.05


def test_rooms_are_resumable_and_leave_the_test_alone(tmp_path, monkeypatch, capsys):
    generator = np.random.default_rng(1)
    lines = ["id\tsplit"]
    (tmp_path / "fr").mkdir()
    for index in range(12):
        name, split = f"u{index}", "test" if index == 0 else "train"
        lines.append(f"{name}\t{split}")
        soundfile.write(tmp_path / f"fr/{name}.wav", generator.normal(size=4000) * 0.1, 16000, subtype="PCM_16")
    (tmp_path / "pairs.tsv").write_text("\n".join(lines) + "\n")

    def augment(out: str, *options: object) -> str:
        where = ["--texts", tmp_path / "pairs.tsv", "--audio", tmp_path / "fr", "--out", tmp_path / out]
        command = ["augmentation.py", *where, "--only", "train", "--share", 0.6, *options]
        monkeypatch.setattr(sys, "argv", list(map(str, command)))
        augmentation.main()
        return capsys.readouterr().out

    assert "12 to be made" in augment("a", "--dry-run") and not (tmp_path / "a").exists()
    augment("a")
    recordings = {path.name: path.read_bytes() for path in (tmp_path / "fr").iterdir()}
    made = {path.name: path.read_bytes() for path in (tmp_path / "a").glob("*.wav")}
    changed = {name for name in made if made[name] != recordings[name]}
    assert made.keys() == recordings.keys() and 3 <= len(changed) <= 10 and "u0.wav" not in changed
    for shard in (0, 1):
        augment("b", "--num-shards", 2, "--shard", shard)
    assert made == {path.name: path.read_bytes() for path in (tmp_path / "b").glob("*.wav")}
    assert {len(read_speech(path)) for path in (tmp_path / "a").glob("*.wav")} == {4000}
    (tmp_path / "a/u3.wav").unlink()
    assert "a: 1 made, 11 already done" in augment("a")
    (tmp_path / "fr/u5.wav").unlink()
    with pytest.raises(SystemExit, match="run the earlier stages first"):
        augment("a")


def test_wrong_options_are_told_in_one_line(tmp_path):
    for options, message in (
        (["--unseen-voice", "em_alex"], "--unseen-voice needs --voices-dir"),
        (["--voices-dir", tmp_path / "none"], "no folder"),
        (["--test", "many"], "--test is a whole number"),
    ):
        command = [PHRASEBOOK / "run.sh", "--data-root", tmp_path / "data", "--python", sys.executable, *options]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1


def test_dry_run_writes_nothing(tmp_path):
    command = [PHRASEBOOK / "run.sh", "--data-root", tmp_path / "data", "--python", sys.executable, "--dry-run"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not any(tmp_path.iterdir()), done.stderr
    assert re.findall(r"stage (\d):", done.stdout) == list("123456")


@pytest.mark.integration
@needs_voices
def test_whole_recipe(tmp_path):
    table = np.load(VOICE_TABLE)
    (tmp_path / "voices").mkdir()
    for name, factor in (("first", 0.9), ("second", 1.1)):
        np.save(tmp_path / f"voices/{name}.npy", table * factor)
    root = tmp_path / "data"

    def recipe(*options):
        small = ["--train-sentences", "3", "--dev", "1", "--test", "1", "--unseen-templates", "2"]
        voices = ["--voices-dir", tmp_path / "voices", "--unseen-voice", "second", "--accent-share", "1"]
        units = ["--features", "mfcc", "--clusters", "20", "--jobs", "1", "--python", sys.executable]
        command = [PHRASEBOOK / "run.sh", "--data-root", root, *small, *voices, *units, *options]
        done = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, env=os.environ | {"TQDM_DISABLE": "1"}
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "fr: 6 spoken" in recipe("--stop-stage", "5")
    rows = read_table(root / "texts/pairs.tsv", "fr", "en", "split")
    assert Counter(row["set"] for row in rows) == {"train": 3, "dev": 1, "test_sentences": 1, "test_templates": 1}
    lengths = {row["id"]: len(read_speech(root / f"audio/fr/{row['id']}.wav")) / 16000 for row in rows}
    assert all(1 < seconds < 9 for seconds in lengths.values())
    assert len(read_table(root / "train.tsv")) == 3 and len(read_table(root / "test.tsv")) == 2
    phones = {row["id"]: row["phones"].split() for row in read_table(root / "source_phones.tsv")}
    assert all(abs(len(phones[name]) * 0.02 - seconds) < 0.021 for name, seconds in lengths.items())
    for folder, audio in (
        ("sentences", "fr"),
        ("templates", "fr"),
        ("noise", "fr_noise"),
        ("unseen_voice", "fr_unseen_voice"),
    ):
        source = Path((root / f"simuleval_{folder}/source.txt").read_text().strip())
        assert source.is_file() and source.parent == root / "audio" / audio
        assert (root / f"simuleval_{folder}/target.txt").read_text().count("\n") == 1
    tested = next(row["id"] for row in rows if row["set"] == "test_sentences")
    plain, other = (read_speech(root / f"audio/{folder}/{tested}.wav") for folder in ("fr", "fr_unseen_voice"))
    assert len(plain) != len(other) or np.abs(plain - other).max() > 0.05
    (root / f"audio/fr/{tested}.wav").unlink()  # as if the run had been stopped
    again = recipe("--stop-stage", "2")
    assert "texts: already done" in again and "fr: 1 spoken, 5 already done" in again
    np.testing.assert_array_equal(read_speech(root / f"audio/fr/{tested}.wav"), plain)


@pytest.mark.integration
@needs_voices
@with_every_recipe
def test_killed_in_every_stage(tmp_path):
    small = ["--train-sentences", "2", "--dev", "1", "--test", "1", "--unseen-templates", "1", "--noisy-share", "1"]
    units = ["--features", "mfcc", "--clusters", "10", "--jobs", "1", "--python", sys.executable]
    run_sh = str(PHRASEBOOK / "run.sh")
    check_killed_run(lambda root: [run_sh, "--data-root", str(root), *small, *units], tmp_path, last_stage=5)
