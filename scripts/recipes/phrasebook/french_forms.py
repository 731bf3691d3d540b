"""French word forms: determiners, adjectives, conjugation, and what a following vowel changes.

A form that depends on the next word is written `before_consonant~before_vowel` (`ce~cet`, `le~l'`); `join_words`
decides when the whole sentence is known. An asterisk before a word (`*haricot`, `*onze`) bars elision and liaison.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# masculine singular, feminine singular, masculine plural, feminine plural
DETERMINERS = {
    "un": ("un", "une", "des", "des"),
    "le": ("le~l'", "la~l'", "les", "les"),
    "du": ("du~de_l'", "de_la~de_l'", "des", "des"),
    "au": ("au~à_l'", "à_la~à_l'", "aux", "aux"),
    "ce": ("ce~cet", "cette", "ces", "ces"),
    "mon": ("mon", "ma~mon", "mes", "mes"),
    "ton": ("ton", "ta~ton", "tes", "tes"),
    "son": ("son", "sa~son", "ses", "ses"),
    "notre": ("notre", "notre", "nos", "nos"),
    "votre": ("votre", "votre", "vos", "vos"),
    "leur": ("leur", "leur", "leurs", "leurs"),
    "quel": ("quel", "quelle", "quels", "quelles"),
    "aucun": ("aucun", "aucune", "aucun", "aucune"),
    "tout": ("tout", "toute", "tous", "toutes"),
}
CONTRACTED = {"de": "du", "à": "au"}
POSSESSIVES = {1: ("mon", "notre"), 2: ("ton", "votre"), 3: ("son", "leur")}
REFLEXIVES = {1: ("me", "nous"), 2: ("te", "vous"), 3: ("se", "se")}
# Words that lose their vowel before another, wherever they stand in a template.
_ELIDABLE = ("je", "me", "te", "se", "ne", "de", "que", "jusque", "lorsque", "puisque", "le", "la")
ELIDED = {word: f"{word[:-1]}'" for word in _ELIDABLE}
VOWEL = re.compile(r"[aàâeéèêëiîïoôuùûüœæh]|y\b|y[^aeiouéèy]", re.IGNORECASE)

IMPERFECT = ("ais", "ais", "ait", "ions", "iez", "aient")
FUTURE = ("ai", "as", "a", "ons", "ez", "ont")
PRESENT_ER = ("e", "es", "e", "ons", "ez", "ent")


def agree(forms: tuple[str, ...], gender: str, plural: bool) -> str:
    """Pick from masculine, feminine, masculine plural, feminine plural."""
    return forms[(gender == "f") + 2 * plural]


def plural_of(noun: str) -> str:
    """Regular plural; irregular ones are written in the lexicon."""
    if noun[-1] in "sxz":
        return noun
    return noun + ("x" if noun.endswith(("eau", "eu")) else "s")


def adjective_forms(masculine: str, feminine: str = "", plural: str = "", before_vowel: str = "") -> tuple[str, ...]:
    """Four forms of an adjective; what is empty is regular. `=` as feminine: the adjective never changes."""
    if feminine == "=":
        return (masculine,) * 4
    feminine = feminine or (masculine if masculine.endswith("e") else masculine + "e")
    singular = f"{masculine}~{before_vowel}" if before_vowel else masculine
    return singular, feminine, plural or plural_of(masculine), plural_of(feminine)


@dataclass(frozen=True)
class FrenchVerb:
    """Principal parts from which all tenses in use follow."""

    infinitive: str
    present: tuple[str, ...]
    future_stem: str
    participle: str
    auxiliary: str

    @classmethod
    def from_parts(
        cls, infinitive: str, present: str = "", future_stem: str = "", participle: str = "", auxiliary: str = ""
    ) -> FrenchVerb:
        """Fill in what is regular: everything for most verbs in -er, the future stem for most others."""
        forms = tuple(present.split())
        if not forms:
            if not infinitive.endswith("er"):
                raise ValueError(f"{infinitive}: only verbs in -er have a regular present; write the six forms")
            stem = infinitive[:-2]
            soft = {"g": stem + "e", "c": stem[:-1] + "ç"}.get(stem[-1], stem)
            forms = tuple((soft if ending == "ons" else stem) + ending for ending in PRESENT_ER)
        if len(forms) != 6:
            raise ValueError(f"{infinitive}: {len(forms)} present forms, not six")
        if not participle:
            if not infinitive.endswith("er"):
                raise ValueError(f"{infinitive}: write its participle")
            participle = infinitive[:-2] + "é"
        return cls(infinitive, forms, future_stem or infinitive.removesuffix("e"), participle, auxiliary or "avoir")

    def tense(self, name: str, index: int) -> str:
        """One form: `name` is pres, impf, fut or cond; `index` counts je, tu, il, nous, vous, ils from 0."""
        if name == "pres":
            return self.present[index]
        if name == "fut":
            return self.future_stem + FUTURE[index]
        ending = IMPERFECT[index]
        if name == "cond":
            return self.future_stem + ending
        if name != "impf":
            raise ValueError(f"no French tense {name!r}")
        stem = "ét" if self.infinitive == "être" else self.present[3].removesuffix("ons")
        if ending.startswith("i"):
            stem = re.sub(r"ge$", "g", re.sub(r"ç$", "c", stem))
        return stem + ending


def _begins_with_vowel(word: str) -> bool:
    return bool(VOWEL.match(word.lstrip("«\"'")))


def _contract(words: list[str]) -> list[str]:
    """de le -> du, à les -> aux. A pronoun that must stay is written with an asterisk (`de *le faire`)."""
    result: list[str] = []
    for word in words:
        previous = result[-1].lower() if result else ""
        if previous in ("de", "à") and word in ("les", "le", "le~l'"):
            capital = result.pop()[0].isupper()
            form = {"de": "des", "à": "aux"}[previous] if word == "les" else DETERMINERS[CONTRACTED[previous]][0]
            word = form.capitalize() if capital else form
        result.append(word)
    return result


def join_words(text: str) -> str:
    """Resolve what depends on the next word and write the sentence without marks."""
    resolved: list[str] = []
    for word in reversed(_contract(text.split())):
        following = resolved[-1] if resolved else ""
        form = word
        if "~" in form:
            consonant, vowel = form.split("~")
            form = vowel if _begins_with_vowel(following) else consonant
        elif (form.lower() in ELIDED and _begins_with_vowel(following)) or (
            form.lower() == "si" and re.match(r"ils?\b", following)
        ):
            form = form[:-1] + "'"
        resolved.append(form)
    sentence = " ".join(reversed(resolved)).replace("_", " ")
    return re.sub(r"' +", "'", sentence).replace("*", "")
