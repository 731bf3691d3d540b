"""English word forms: determiners, plurals, verbs, and a or an."""

from __future__ import annotations

import re
from dataclasses import dataclass

# before a countable singular, a plural, and a word that has no plural
DETERMINERS = {
    "a": ("a", "some", "some"),
    "this": ("this", "these", "this"),
    "that": ("that", "those", "that"),
    **{word: (word,) * 3 for word in ["the", "its", "my", "your", "his", "her", "our", "their", "which", "no", "any"]},
    "some": ("some",) * 3,
    "each": ("each",) * 3,
}
CONSONANT_SOUND = re.compile(r"uni|us[eu]|eu|one\b|once\b|ukr", re.IGNORECASE)
VOWEL_SOUND = re.compile(r"[aeiou]|hour|honest", re.IGNORECASE)


def plural_of(noun: str) -> str:
    """Regular plural of the last word; irregular ones are written in the lexicon."""
    if re.search(r"(s|x|z|ch|sh)$", noun):
        return noun + "es"
    return re.sub(r"([^aeiou])y$", r"\1ie", noun) + "s"


@dataclass(frozen=True)
class EnglishVerb:
    """Base, third person, past, participle and -ing form."""

    base: str
    third: str
    past: str
    participle: str
    ing: str

    @classmethod
    def from_parts(cls, base: str, past: str = "", participle: str = "", ing: str = "", third: str = "") -> EnglishVerb:
        """Fill in what is regular. Doubled consonants are written in the lexicon."""
        past = past or (base + "d" if base.endswith("e") else re.sub(r"([^aeiou])y$", r"\1i", base) + "ed")
        ing = ing or (re.sub(r"ie$", "y", base) if base.endswith("ie") else re.sub(r"(?<=[^eoy])e$", "", base)) + "ing"
        third = third or (base + "es" if base.endswith("o") else plural_of(base))
        return cls(base, third, past, participle or past, ing)

    def present(self, person: int, plural: bool) -> str:
        """Present for `person` 1 to 3."""
        if self.base == "be":
            return "are" if plural or person == 2 else ("am", "", "is")[person - 1]
        return self.third if person == 3 and not plural else self.base

    def simple_past(self, person: int, plural: bool) -> str:
        """Past for `person` 1 to 3."""
        if self.base == "be":
            return "were" if plural or person == 2 else "was"
        return self.past


def join_words(text: str) -> str:
    """Choose between a and an, and write the sentence."""
    words = text.split()
    for index in range(len(words) - 1):
        if words[index] in ("a", "A"):
            following = words[index + 1]
            if VOWEL_SOUND.match(following) and not CONSONANT_SOUND.match(following):
                words[index] += "n"
    return " ".join(words)
