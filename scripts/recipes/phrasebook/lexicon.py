"""The lexicon: tab-separated tables of entries in both languages, grouped in classes.

Every table begins with a header line; empty cells are regular forms. Lines that start with # are comments.

| table | columns |
|---|---|
| nouns.tsv | class, fr, gender, en, fr_plural, en_plural (`-`: has no plural, `=`: is one) |
| adjectives.tsv | class, fr, en, feminine (`=`: invariable), plural, before_vowel |
| people.tsv | class, fr, en, gender, person, number (s or p) |
| activities.tsv | class, verb, object, en_verb, en_object; `<son>`, `<sa>`, `<ses>`, `<his>` follow the subject |
| phrases.tsv | class, fr, en; may hold slots as templates do |
| verbs.tsv | infinitive, present, future_stem, participle, auxiliary |
| english_verbs.tsv | base, past, participle, ing, third |
"""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from scripts.recipes.phrasebook import english_forms, french_forms
from scripts.recipes.phrasebook.english_forms import EnglishVerb
from scripts.recipes.phrasebook.french_forms import FrenchVerb


@dataclass(frozen=True)
class Entry:
    """One meaning in two languages, with what agreement needs to know about it."""

    kind: str  # noun, adjective, person, activity or phrase
    fr: str
    en: str
    gender: str = "m"
    person: int = 3
    plural: bool = False  # grammatical number in French
    en_number: str = "s"  # s, p, or - for what cannot be counted
    fr_forms: tuple[str, ...] = ()  # noun: singular, plural; adjective: see french_forms.adjective_forms
    en_plural: str = ""
    verb: FrenchVerb | None = None
    en_verb: EnglishVerb | None = None

    @property
    def key(self) -> str:
        """Name of the entry in reports and errors."""
        return f"{self.verb.infinitive} {self.fr}".strip() if self.verb else self.fr


@dataclass
class Lexicon:
    """Entries by class, and the verbs that templates may use by name."""

    classes: dict[str, list[Entry]] = field(default_factory=lambda: defaultdict(list))
    verbs: dict[str, FrenchVerb] = field(default_factory=dict)
    english_verbs: dict[str, EnglishVerb] = field(default_factory=dict)

    def english_verb(self, base: str) -> EnglishVerb:
        """Forms of an English verb; one that isn't in the table is regular."""
        return self.english_verbs.get(base) or EnglishVerb.from_parts(base)


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a table, without comments and empty lines; missing cells are empty.

    Raises:
        SystemExit: no such table, or a row with more cells than columns.
    """
    if not path.is_file():
        raise SystemExit(f"error: no table {path}")
    with path.open(encoding="utf-8", newline="") as file:
        lines = [line for line in file if line.strip() and not line.startswith("#")]
    rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE, restval=""))
    for row in rows:
        if None in row:
            raise SystemExit(f"error: {path}: too many cells in {row}")
    return [{column: cell.strip() for column, cell in row.items()} for row in rows]


def _regular_plural(noun: str) -> str:
    """Of a noun in several words nobody knows which ones change: where its plural is needed it has to be written."""
    return "" if " " in noun else french_forms.plural_of(noun)


def _noun(row: dict[str, str]) -> Entry:
    if row["gender"] not in ("m", "f"):
        raise ValueError(f"gender {row['gender']!r} is neither m nor f")
    number = row["en_plural"] if row["en_plural"] in ("-", "=") else "s"
    return Entry(
        "noun",
        row["fr"],
        row["en"],
        row["gender"],
        en_number={"=": "p"}.get(number, number),
        fr_forms=(row["fr"], row["fr_plural"] or _regular_plural(row["fr"])),
        en_plural=row["en"] if number != "s" else row["en_plural"] or english_forms.plural_of(row["en"]),
    )


def _adjective(row: dict[str, str]) -> Entry:
    forms = french_forms.adjective_forms(row["fr"], row["feminine"], row["plural"], row["before_vowel"])
    return Entry("adjective", row["fr"], row["en"], fr_forms=forms)


def _person(row: dict[str, str]) -> Entry:
    plural = row["number"] == "p"
    person = int(row["person"] or 3)
    return Entry("person", row["fr"], row["en"], row["gender"] or "m", person, plural, "p" if plural else "s")


def _phrase(row: dict[str, str]) -> Entry:
    return Entry("phrase", row["fr"], row["en"])


def load_lexicon(folder: Path) -> Lexicon:
    """Read all tables of a folder.

    Raises:
        SystemExit: a table is missing or an entry is malformed; the message names both.
    """
    lexicon = Lexicon()
    for row in read_rows(folder / "verbs.tsv"):
        lexicon.verbs[row["infinitive"]] = FrenchVerb.from_parts(*row.values())
    for row in read_rows(folder / "english_verbs.tsv"):
        lexicon.english_verbs[row["base"]] = EnglishVerb.from_parts(*row.values())

    def activity(row: dict[str, str]) -> Entry:
        name = row["verb"].removeprefix("se ").removeprefix("s'")
        if name not in lexicon.verbs:
            # Only verbs in -er may be missing from the table: they are regular.
            lexicon.verbs[name] = FrenchVerb.from_parts(name)
        verb = lexicon.verbs[name]
        if name != row["verb"]:
            verb = FrenchVerb(row["verb"], verb.present, verb.future_stem, verb.participle, "être")
        return Entry(
            "activity", row["object"], row["en_object"], verb=verb, en_verb=lexicon.english_verb(row["en_verb"])
        )

    readers = {
        "nouns": _noun,
        "adjectives": _adjective,
        "people": _person,
        "activities": activity,
        "phrases": _phrase,
    }
    for table, reader in readers.items():
        for row in read_rows(folder / f"{table}.tsv"):
            try:
                entry = reader(row)
            except (ValueError, KeyError) as error:
                raise SystemExit(f"error: {folder / table}.tsv: {row.get('fr') or row.get('verb')}: {error}") from error
            for name in row["class"].split(","):
                if entry not in lexicon.classes[name]:
                    lexicon.classes[name].append(entry)
    lexicon.classes = dict(lexicon.classes)
    return lexicon
