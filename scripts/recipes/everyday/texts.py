"""Stage 2: what is said, and by whom: sentence pairs, cleaned, split, and joined to recordings.

    python texts.py --tatoeba fra-eng.zip --phrasebook DIR/phrasebook/pairs.tsv --voices voices.tsv \\
        --hours 110 --out DIR

writes into DIR

- `sentences.tsv`: `id split set fr en`, every pair that is used, the French with its numbers in words
  (`spoken_french`), the English with case, punctuation and numbers in digits (`written_english`);
- `recordings.tsv`: `id split set voice fr en`, what each recording says; where it holds several sentences, they are
  separated by ` | ` in both languages;
- `references.tsv`: `id en`, all translations of the test sentences, one a line;
- `report.json`: what was dropped and why, hours, pairs, word types.

A sentence of dev or test occurs in no training pair, neither its French nor its English, nor is any pair taken that is
connected with it through a translation in common. Everything depends on the seed and the tables alone.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import random
import re
import unicodedata
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.command_line import require
from scripts.files import digest, write_text
from scripts.recipes.everyday.numbers_in_text import spoken_french, written_english
from scripts.recipes.everyday.voices import Voice, read_voices
from scripts.recipes.everyday.wordless import KINDS, MEAN_WORDLESS_S, WEIGHTS
from scripts.speech.speech_synthesis import read_table
from scripts.speech.text_normalization import normalize_text

SEPARATOR = " | "
MAX_WORDS = 25
# Characters of the longer text for each of the shorter, where both have at least RATIO_FROM of them.
MAX_RATIO, RATIO_FROM = 2.6, 20
# What a voice takes for a sentence, fitted to 400 sentences read by Pico: seconds = 0.18 + 0.045 a character.
SECONDS, SECONDS_PER_CHARACTER = 0.18, 0.045
JOINED_SHARE = 1 / 3  # of the hours
JOINED = (2, 4)  # sentences in one recording
MAX_CHARACTERS = 400  # of a recording: about 18 s, below the 30 s that the unit features can hear
MAX_COMPONENT = 12  # pairs that go with a test sentence and are lost to training
ARCHIVE_MEMBER, MAX_ARCHIVE_BYTES = "fra.txt", 200 * 2**20
SPACES = re.compile(r"\s+")
# Letters, digits, and what the two languages put between them.
ALLOWED = re.compile(r"[\w\s.,;:!?'\"()«»%$€£&/+-]+")


@dataclass(frozen=True)
class Pair:
    """A French sentence and a translation of it."""

    fr: str
    en: str
    source: str

    @property
    def keys(self) -> tuple[str, str]:
        """What makes two sentences the same: their words."""
        return f"fr {normalize_text(self.fr)}", f"en {normalize_text(self.en)}"


def read_tatoeba(path: Path) -> Iterator[tuple[str, str]]:
    """`(French, English)` of Tatoeba's pairs as manythings.org packs them: fra-eng.zip, or its fra.txt.

    Raises:
        SystemExit: no such file, or another archive.
    """
    if not path.is_file():
        raise SystemExit(f"error: no file {path} (--tatoeba)")
    if path.suffix == ".zip":
        try:
            with zipfile.ZipFile(path) as archive:
                if archive.getinfo(ARCHIVE_MEMBER).file_size > MAX_ARCHIVE_BYTES:
                    raise SystemExit(f"error: {ARCHIVE_MEMBER} in {path} is larger than {MAX_ARCHIVE_BYTES} bytes")
                text = archive.read(ARCHIVE_MEMBER).decode("utf-8")
        except (zipfile.BadZipFile, KeyError, UnicodeDecodeError) as error:
            raise SystemExit(f"error: {path} is no fra-eng.zip of Tatoeba's pairs ({error})") from error
    else:
        text = path.read_text(encoding="utf-8")
    for line in text.split("\n"):
        fields = line.split("\t")
        if len(fields) >= 2:  # newer archives have the attribution of each pair in a third column
            yield fields[1], fields[0]


def tidy(text: str) -> str:
    """One form for quotes, apostrophes, dashes and spaces; French keeps no space before its punctuation."""
    text = unicodedata.normalize("NFC", text)
    text = re.sub("[\u00ad\u200b-\u200d\ufeff]", "", text)
    for character, plain in (("’", "'"), ("‘", "'"), ("ʼ", "'"), ("“", '"'), ("”", '"'), ("…", "..."), ("‐", "-")):
        text = text.replace(character, plain)
    text = SPACES.sub(" ", text).strip()
    return re.sub(r" +([.,;:!?%»])", r"\1", text).replace("« ", "«")


class Cleaner:
    """Sorts out pairs that cannot be used, and counts why."""

    def __init__(self) -> None:
        self.dropped: Counter[str] = Counter()
        self._seen: set[tuple[str, str]] = set()
        self._fix = require("ftfy").fix_text
        langid = require("py3langid.langid")
        identifier = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
        identifier.set_languages(["fr", "en"])
        self._language = identifier.classify

    def __call__(self, fr: str, en: str, source: str) -> Pair | None:
        """The pair as it will be used, or None."""
        reason, pair = self._judge(fr, en, source)
        if reason:
            self.dropped[f"{source}: {reason}"] += 1
        return pair

    def _judge(self, fr: str, en: str, source: str) -> tuple[str, Pair | None]:
        if (
            any(self._fix(text, uncurl_quotes=False) != text and "Ã" in text for text in (fr, en))
            or "\ufffd" in fr + en
        ):
            return "broken characters", None
        fr, en = tidy(fr), tidy(en)
        words = [len(normalize_text(text).split()) for text in (fr, en)]
        if not all(words):
            return "empty", None
        if max(words) > MAX_WORDS:
            return f"more than {MAX_WORDS} words", None
        if not all(ALLOWED.fullmatch(text) and text == unicodedata.normalize("NFKC", text) for text in (fr, en)):
            return "characters that no voice reads", None
        longer, shorter = max(len(fr), len(en)), min(len(fr), len(en))
        if longer >= RATIO_FROM and longer > MAX_RATIO * max(shorter, 1):
            return "lengths too far apart", None
        if normalize_text(fr) == normalize_text(en) and words[0] > 2:
            return "not translated", None
        if (words[0] >= 4 and self._is_other_language(fr, "fr")) or (
            words[1] >= 4 and self._is_other_language(en, "en")
        ):
            return "another language", None
        try:
            pair = Pair(spoken_french(fr), written_english(en), source)
        except (ValueError, OverflowError):
            return "numbers that cannot be read", None
        if pair.keys in self._seen:
            return "double", None
        self._seen.add(pair.keys)
        return "", pair

    def _is_other_language(self, text: str, language: str) -> bool:
        found, probability = self._language(normalize_text(text))
        return found != language and probability > 0.99


def components(pairs: Iterable[Pair]) -> list[list[Pair]]:
    """Pairs connected by a sentence in common, in the order of their first pairs."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    pairs = list(pairs)
    for pair in pairs:
        french, english = pair.keys
        parent[root(english)] = root(french)
    groups: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        groups[root(pair.keys[0])].append(pair)
    return list(groups.values())


def seconds_of(text: str) -> float:
    """Estimated length of a French text read at normal speed."""
    return SECONDS + SECONDS_PER_CHARACTER * len(text)


def hold_out(groups: list[list[Pair]], dev: int, test: int, draw: random.Random) -> tuple[list, list, list[Pair]]:
    """Dev and test groups, of which one French sentence each is to be read, and the pairs that are left.

    Raises:
        SystemExit: there are not that many.
    """
    fit = [g for g in groups if len(g) <= MAX_COMPONENT and any(len(p.fr.split()) >= 3 for p in g)]
    if len(fit) < 2 * (dev + test):
        raise SystemExit(
            f"error: {len(fit)} groups of sentences are too few to hold out {dev} for dev and {test} for test"
        )
    chosen = draw.sample(fit, dev + test)
    out = {id(group) for group in chosen}
    return chosen[:dev], chosen[dev:], [pair for group in groups if id(group) not in out for pair in group]


def join(pairs: list[Pair], draw: random.Random) -> Iterator[list[Pair]]:
    """Groups of pairs, each of which becomes one recording; a third of the time in recordings of several."""
    rest = iter(pairs)
    # With n sentences a recording on average, this share of recordings is the share wanted of sentences.
    mean = sum(JOINED) / 2
    chance = JOINED_SHARE / (JOINED_SHARE + (1 - JOINED_SHARE) * mean)
    for pair in rest:
        group = [pair]
        if draw.random() < chance:
            wanted = draw.randint(*JOINED)
            while len(group) < wanted and sum(len(p.fr) for p in group) < MAX_CHARACTERS // 2:
                following = next(rest, None)
                if following is None:
                    break
                group.append(following)
        yield group


def choose(pairs: list[Pair], hours: float, draw: random.Random) -> tuple[list[Pair], int]:
    """Every pair, or as many as fit; where they don't fill the hours, a second round (and so on) of French sentences.

    Of a French sentence with several translations, a round takes one that was not taken before.
    """
    by_french: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        by_french[pair.keys[0]].append(pair)
    sentences = list(by_french.values())
    seconds, chosen, rounds = 0.0, [], 0
    while seconds < hours * 3600 and sentences:
        draw.shuffle(sentences)
        for translations in sentences:
            pair = translations[rounds % len(translations)]
            chosen.append(pair)
            seconds += seconds_of(pair.fr)
            if seconds >= hours * 3600:
                break
        rounds += 1
    return chosen, rounds


def shares_of(voices: list[Voice], slow_share: float | None) -> list[float]:
    """How much of the corpus each voice speaks; the slow ones together ``slow_share``, None: as their table says."""
    shares = [voice.share for voice in voices]
    slow = sum(voice.share for voice in voices if voice.speaks_slowly)
    others = sum(shares) - slow
    if slow_share is None or not slow or not others:
        return shares
    factor = slow_share / (1 - slow_share) * others / slow
    return [voice.share * (factor if voice.speaks_slowly else 1) for voice in voices]


def assign_voices(
    groups: list[list[Pair]], voices: list[Voice], shares: list[float], draw: random.Random
) -> Iterator[tuple[list[Pair], Voice]]:
    """A voice for each recording, by their shares.

    What a slow voice says is said again in another timbre of the same base, which costs next to nothing: the next
    recording, so that whoever makes them finds the speech still at hand.
    """
    for group in groups:
        voice = draw.choices(voices, shares)[0]
        yield group, voice
        others = [v for v in voices if v.speaks_slowly and v.speaks_as(voice) and v != voice]
        if others:
            yield group, draw.choice(others)


def wordless_row(name: str, split: str, draw: random.Random) -> tuple[str, str, str, str, str, str]:
    """A recording without French words; its kind stands in the place of the voice."""
    return name, split, "wordless", draw.choices(KINDS, WEIGHTS)[0], "", ""


def table(columns: list[str], rows: Iterable[Iterable[str]]) -> str:
    """A tab-separated table as a text."""
    out = io.StringIO()
    writer = csv.writer(out, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE, quotechar=None)
    writer.writerow(columns)
    writer.writerows(rows)
    return out.getvalue()


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """`(French, English)` of a table with the columns fr and en."""
    if not path.is_file():
        raise SystemExit(f"error: no table {path} (--pairs)")
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        if not {"fr", "en"} <= set(reader.fieldnames or ()):
            raise SystemExit(
                f"error: {path} has the columns {', '.join(reader.fieldnames or ())}, not fr and en (--pairs)"
            )
        return [(row["fr"] or "", row["en"] or "") for row in reader]


def main() -> None:
    parser = argparse.ArgumentParser(description="Choose what is said, by whom.")
    parser.add_argument("--tatoeba", type=Path, required=True, help="fra-eng.zip")
    parser.add_argument("--phrasebook", type=Path, help="pairs.tsv of the phrasebook's phrase_texts.py")
    parser.add_argument("--phrasebook-share", type=float, default=0.1, help="of the hours (default: %(default)s)")
    parser.add_argument("--pairs", type=Path, nargs="*", default=[], help="further tables with the columns fr and en")
    parser.add_argument("--tests", nargs="*", default=[], metavar="NAME=TABLE", help="further test sets, likewise")
    parser.add_argument("--voices", type=Path, required=True, help="voices.tsv, or the table of those that passed")
    parser.add_argument(
        "--slow-share",
        type=float,
        help="of the recordings, by voices that take as long as listening (default: as the table of voices says)",
    )
    parser.add_argument("--hours", type=float, required=True, help="of French speech to train on, estimated")
    parser.add_argument("--wordless-share", type=float, default=0.03, help="of the hours, without French words")
    parser.add_argument("--dev", type=int, default=500)
    parser.add_argument("--test", type=int, default=500)
    parser.add_argument("--unseen-voice-test", type=int, default=200, help="test sentences read by the held-out voices")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.slow_share is not None and not 0 <= args.slow_share < 1:
        parser.error(f"--slow-share is {args.slow_share:g}; it must be from 0 to below 1")

    def draw(purpose: str) -> random.Random:
        return random.Random(digest(args.seed, purpose))

    clean = Cleaner()
    everyday = [pair for fr, en in read_tatoeba(args.tatoeba) if (pair := clean(fr, en, "tatoeba"))]
    for path in args.pairs:
        everyday += [pair for fr, en in read_pairs(path) if (pair := clean(fr, en, path.stem))]
    tests: dict[str, list[Pair]] = {}
    for item in args.tests:
        name, _, path = item.partition("=")
        tests[name] = [Pair(spoken_french(tidy(fr)), tidy(en), name) for fr, en in read_pairs(Path(path))]
    phrases: dict[str, list[Pair]] = defaultdict(list)
    for row in read_table(args.phrasebook, "split", "fr", "en") if args.phrasebook else []:
        pair = Pair(spoken_french(tidy(row["fr"])), written_english(tidy(row["en"])), "phrasebook")
        phrases[
            "train" if row["split"] == "train" else f"phrasebook_{row['set'] if row['split'] == 'test' else 'dev'}"
        ].append(pair)

    dev_groups, test_groups, everyday = hold_out(components(everyday), args.dev, args.test, draw("held out"))
    held_out = {
        key
        for pairs in (*tests.values(), *(p for name, p in phrases.items() if name != "train"))
        for pair in pairs
        for key in pair.keys
    }
    before = len(everyday) + len(phrases["train"])
    everyday = [pair for pair in everyday if not held_out & set(pair.keys)]
    own_test = {key for group in (*dev_groups, *test_groups) for pair in group for key in pair.keys}
    phrase_train = [pair for pair in phrases.pop("train", []) if not (own_test | held_out) & set(pair.keys)]
    clean.dropped["sentences of a test set"] = before - len(everyday) - len(phrase_train)

    voices = read_voices(args.voices)
    seen, unseen = [v for v in voices if v.use == "train"], [v for v in voices if v.use == "test"]
    phrase_hours = args.hours * args.phrasebook_share if phrase_train else 0.0
    chosen, rounds = choose(everyday, args.hours - phrase_hours, draw("everyday"))
    chosen_phrases, _ = choose(phrase_train, phrase_hours, draw("phrases"))
    training = chosen + chosen_phrases
    draw("order").shuffle(training)

    sentences: dict[Pair, str] = {}
    sentence_rows, recording_rows, reference_rows = [], [], []

    def sentence(pair: Pair, split: str, group: str) -> None:
        if pair not in sentences:
            sentences[pair] = f"s{len(sentences):06d}"
            sentence_rows.append((sentences[pair], split, group, pair.fr, pair.en))

    def recording(name: str, split: str, group: str, voice: Voice, pairs: list[Pair]) -> None:
        for pair in pairs:
            sentence(pair, split, group)
        recording_rows.append(
            (name, split, group, voice.name, SEPARATOR.join(p.fr for p in pairs), SEPARATOR.join(p.en for p in pairs))
        )

    shares = shares_of(seen, args.slow_share)
    spoken = list(assign_voices(list(join(training, draw("joined"))), seen, shares, draw("voices")))
    spoken_s = sum(seconds_of(pair.fr) for pairs, _ in spoken for pair in pairs)
    every = max(1, round(len(spoken) * MEAN_WORDLESS_S / max(spoken_s * args.wordless_share, 1e-9)))
    wordless = draw("wordless")
    for number, (pairs, voice) in enumerate(spoken):
        recording(f"e{number:06d}", "train", "everyday", voice, pairs)
        if args.wordless_share and number % every == 0:
            recording_rows.append(wordless_row(f"n{number // every:06d}", "train", wordless))
    recording_rows.extend(wordless_row(f"nd{number:04d}", "dev", wordless) for number in range(args.dev // 10))
    voice_of_tests = draw("voices of tests")

    def held_out_set(split: str, group: str, prefix: str, items: list[list[Pair]], of: list[Voice]) -> None:
        for number, pairs in enumerate(items):
            pair = next((p for p in pairs if len(p.fr.split()) >= 3), pairs[0])
            name = f"{prefix}{number:04d}"
            voice = voice_of_tests.choices(of, [v.share for v in of])[0]
            recording(name, split, group, voice, [pair])
            others = [p.en for p in pairs if p.keys[0] == pair.keys[0] and p.en != pair.en]
            reference_rows.extend((name, text) for text in dict.fromkeys([pair.en, *others]))

    held_out_set("dev", "tatoeba_dev", "d", dev_groups, seen)
    held_out_set("test", "tatoeba", "t", test_groups, seen)
    held_out_set("test", "tatoeba_unseen_voice", "u", test_groups[: args.unseen_voice_test], unseen or seen)
    for name, items in sorted(phrases.items()):
        held_out_set("dev" if name.endswith("_dev") else "test", name, f"{name}_", [[p] for p in items], seen)
    for name, items in tests.items():
        held_out_set("test", name, f"{name}_", [[p] for p in items], unseen or seen)

    hours: Counter[str] = Counter()
    by_voice: Counter[str] = Counter()
    for _, split, group, voice_name, fr, _ in recording_rows:
        seconds = sum(map(seconds_of, fr.split(SEPARATOR))) if fr else MEAN_WORDLESS_S
        hours[group] += seconds / 3600
        if split == "train":
            by_voice[voice_name] += seconds / 3600
    train = [pair for pair, name in sentences.items() if sentence_rows[int(name[1:])][1] == "train"]
    report = {
        "recordings": Counter(row[2] for row in recording_rows),
        "of several sentences": sum(SEPARATOR in row[4] for row in recording_rows if row[1] == "train"),
        "hours (estimated)": {name: round(value, 2) for name, value in hours.items()},
        "hours by voice (estimated)": {name: round(value, 2) for name, value in sorted(by_voice.items())},
        "training pairs": len(train),
        "training pairs by source": Counter(pair.source for pair in train),
        "French word types": len({word for pair in train for word in normalize_text(pair.fr).split()}),
        "English word types": len({word for pair in train for word in normalize_text(pair.en).split()}),
        "rounds": rounds,
        "test references": len(reference_rows),
        "dropped": dict(sorted(clean.dropped.items())),
    }
    write_text(args.out / "sentences.tsv", table(["id", "split", "set", "fr", "en"], sentence_rows))
    write_text(args.out / "references.tsv", table(["id", "en"], reference_rows))
    write_text(args.out / "report.json", json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    write_text(args.out / "recordings.tsv", table(["id", "split", "set", "voice", "fr", "en"], recording_rows))
    print(f"texts: {len(recording_rows)} recordings, {len(train)} training pairs", flush=True)


if __name__ == "__main__":
    main()
