"""Sentence pairs from templates with slots: one choice of lexicon entries, written in both languages.

`slots.py` explains the slots, `lexicon.py` the entries.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from pathlib import Path

from scripts.recipes.phrasebook import english_forms, french_forms
from scripts.recipes.phrasebook.lexicon import Entry, Lexicon, read_rows
from scripts.recipes.phrasebook.slots import SLOT, Filling, Writer, finish, slot_names


@dataclass(frozen=True)
class Template:
    """A sentence with slots in both languages."""

    id: str
    fr: str
    en: str


def load_templates(folder: Path) -> list[Template]:
    """Templates of all tables `<topic>.tsv` (columns id, fr, en) in a folder, sorted by topic.

    Raises:
        SystemExit: no tables, an id that occurs twice, an empty cell, or a brace alone.
    """
    templates: dict[str, Template] = {}
    for path in sorted(folder.glob("*.tsv")):
        for row in read_rows(path):
            name = f"{path.stem}-{row['id']}"
            if name in templates or not all(row.values()):
                raise SystemExit(f"error: {path}: template {row['id']!r} occurs twice or lacks a side")
            for text in (row["fr"], row["en"]):
                if re.search(r"[{}]", SLOT.sub("", text)):
                    raise SystemExit(f"error: {path}: a brace without its other one in {text!r}")
            templates[name] = Template(name, row["fr"], row["en"])
    if not templates:
        raise SystemExit(f"error: no templates in {folder}")
    return list(templates.values())


class Deck:
    """Entries of a class in random order, dealt one by one and shuffled again when used up."""

    def __init__(self, entries: list[Entry], generator: random.Random):
        self._entries = entries
        self._generator = generator
        self._pile: list[Entry] = []

    def deal(self, taken: list[Entry]) -> Entry:
        """The next entry that is not among `taken`."""
        for _ in range(2):
            for index, entry in enumerate(self._pile):
                if entry not in taken:
                    return self._pile.pop(index)
            self._pile = self._generator.sample(self._entries, len(self._entries))
        raise ValueError(f"a class of {len(self._entries)} entries is too small for its slots")


class Sampler:
    """Random sentence pairs of one template, the same for the same seed; classes are gone through evenly."""

    def __init__(self, template: Template, lexicon: Lexicon, seed: str):
        self.template = template
        self._lexicon = lexicon
        self._generator = random.Random(f"{seed} {template.id}")
        self._decks: dict[str, Deck] = {}

    def _fill(self, texts: tuple[str, str]) -> dict[str, Filling]:
        chosen: dict[str, Filling] = {}
        taken: dict[str, list[Entry]] = {}
        for name in dict.fromkeys(slot_names(texts[0]) + slot_names(texts[1])):
            group = name.split("#")[0]
            if group not in self._lexicon.classes:
                continue  # a determiner, or a verb by name
            if group not in self._decks:
                self._decks[group] = Deck(self._lexicon.classes[group], self._generator)
            entry = self._decks[group].deal(taken.setdefault(group, []))
            taken[group].append(entry)
            chosen[name] = Filling(entry, self._fill((entry.fr, entry.en)))
        return chosen

    def __call__(self) -> tuple[str, str, list[Entry]]:
        """French, English, and the entries used."""
        fillings = self._fill((self.template.fr, self.template.en))
        french = finish(french_forms.join_words(Writer(self._lexicon, "fr").write(self.template.fr, fillings)))
        english = finish(english_forms.join_words(Writer(self._lexicon, "en").write(self.template.en, fillings)))
        return french, english, [entry for filling in fillings.values() for entry in filling.entries()]


def count_sentences(text: str, lexicon: Lexicon) -> int:
    """Fillings of the slots of a text: an upper bound on its different sentences."""
    total = 1
    used: dict[str, int] = {}
    for name in slot_names(text):
        group = name.split("#")[0]
        if group in lexicon.classes:
            entries = lexicon.classes[group]
            fillings = sum(count_sentences(entry.fr, lexicon) for entry in entries)
            total *= max(1, fillings - used.get(group, 0))
            used[group] = used.get(group, 0) + 1
    return total
