"""Slots of a template, and how they are written in one language once entries have been chosen for them.

A slot is `{[determiner ]name[#n][.form][@name[#n][.s]]}` or `{name?choice|choice}`:

    {le place}              la gare                the noun with its determiner
    {un object.s}           des lettres            .s: in the plural
    {un@object} {big@object} {object}              words that agree with another slot
    {subject} {activity.pres@subject}              a verb with the person of its subject
    {vouloir.cond@subject}                         a verb by its name instead of a slot
    {guest?arrivé|arrivée|arrivés|arrivées}        masculine, feminine(, masculine plural, feminine plural)
    {object?is|are}                                in English: singular, plural

`{drink}` and `{drink#2}` are different entries of the class `drink`. Entries of the class may hold slots of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from scripts.recipes.phrasebook import english_forms, french_forms
from scripts.recipes.phrasebook.lexicon import Entry, Lexicon

SLOT = re.compile(r"\{([^{}]*)\}")
PARTS = re.compile(
    r"(?:(?P<determiner>\w+) )?(?P<name>\w+)(?:#(?P<copy>\d))?(?:\.(?P<form>\w+))?"
    r"(?:@(?P<head>\w+(?:#\d)?)(?P<plural>\.s)?)?"
)
CHOICE = re.compile(r"(?P<name>\w+(?:#\d)?)\?(?P<choices>.*)")


@dataclass
class Filling:
    """Entries chosen for the slots of a text, and for the slots inside those entries."""

    entry: Entry
    inside: dict[str, Filling] = field(default_factory=dict)

    def entries(self) -> Iterator[Entry]:
        """This entry and all below it."""
        yield self.entry
        for filling in self.inside.values():
            yield from filling.entries()


def slot_names(text: str) -> list[str]:
    """Names (with copy numbers) that the slots of a text refer to, in order of appearance."""
    names = []
    for inner in SLOT.findall(text):
        choice = CHOICE.fullmatch(inner)
        if choice:
            names.append(choice["name"])
            continue
        parts = PARTS.fullmatch(inner)
        if not parts:
            raise ValueError(f"cannot read the slot {{{inner}}}")
        names.append(parts["name"] + (f"#{parts['copy']}" if parts["copy"] else ""))
        if parts["head"]:
            names.append(parts["head"])
    return list(dict.fromkeys(names))


def finish(sentence: str) -> str:
    """Capital at the beginning of each sentence, no stray spaces."""
    sentence = re.sub(r" +([.,])", r"\1", " ".join(sentence.split()))
    return re.sub(r"(?:^|(?<=[.?!] ))\w", lambda match: match[0].upper(), sentence)


class Writer:
    """Writes a text with slots in one language (`fr` or `en`)."""

    def __init__(self, lexicon: Lexicon, language: str):
        self._lexicon = lexicon
        self._french = language == "fr"

    def write(self, text: str, fillings: dict[str, Filling]) -> str:
        """Fill the slots of a text.

        Raises:
            ValueError: a slot that cannot be read or filled; the message quotes it.
        """

        def replace(match: re.Match[str]) -> str:
            try:
                return self._slot(match[1], fillings)
            except (KeyError, IndexError, AttributeError, ValueError) as error:
                raise ValueError(f"slot {{{match[1]}}} of {text!r}: {type(error).__name__} {error}") from error

        return SLOT.sub(replace, text)

    def _slot(self, inner: str, fillings: dict[str, Filling]) -> str:
        choice = CHOICE.fullmatch(inner)
        if choice:
            return self._choose(choice["choices"].split("|"), fillings[choice["name"]].entry)
        parts = PARTS.fullmatch(inner)
        if not parts:
            raise ValueError("not a slot")
        name = parts["name"] + (f"#{parts['copy']}" if parts["copy"] else "")
        head = fillings[parts["head"]] if parts["head"] else None
        plural = parts["form"] == "s"
        if name not in fillings:
            if head and parts["form"]:
                verb = f"se {name}" if parts["determiner"] == "se" else name
                return self._verb(self._named_verb(verb), parts["form"], head.entry)
            if not head:
                raise ValueError(f"no class {parts['name']} in the lexicon")
            return self._determiner(parts["name"], head.entry, bool(parts["plural"]))
        filling = fillings[name]
        if filling.entry.kind == "activity":
            return self._activity(filling, parts["form"], head.entry if head else None)
        word = self._word(filling, plural, head.entry if head else None, bool(parts["plural"]))
        determiner = self._determiner(parts["determiner"], filling.entry, plural) if parts["determiner"] else ""
        return f"{determiner} {word}".strip()

    def _choose(self, choices: list[str], entry: Entry) -> str:
        if self._french:
            return choices[(entry.gender == "f") + (2 * entry.plural if len(choices) == 4 else 0)]
        return choices[entry.en_number == "p"]

    def _named_verb(self, name: str) -> Entry:
        if self._french:
            reflexive = name.startswith("se ")
            verb = self._lexicon.verbs.get(name.removeprefix("se "))
            if verb is None:
                raise ValueError(f"neither a class nor a verb: {name}")
            if reflexive:
                verb = french_forms.FrenchVerb(name, verb.present, verb.future_stem, verb.participle, "être")
            return Entry("activity", "", "", verb=verb)
        return Entry("activity", "", "", en_verb=self._lexicon.english_verb(name))

    def _determiner(self, word: str, entry: Entry, plural: bool) -> str:
        if self._french:
            return french_forms.agree(french_forms.DETERMINERS[word], entry.gender, plural or entry.plural)
        number = "p" if plural and entry.en_number != "-" else entry.en_number
        return english_forms.DETERMINERS[word]["sp-".index(number)]

    def _word(self, filling: Filling, plural: bool, head: Entry | None, head_plural: bool) -> str:
        entry = filling.entry
        if entry.kind == "adjective":
            if not self._french:
                return entry.en
            return french_forms.agree(entry.fr_forms, head.gender, head_plural or head.plural) if head else entry.fr
        if entry.kind == "noun" and plural:
            form = entry.fr_forms[1] if self._french else entry.en_plural
            if not form:
                raise ValueError(f"write the plural of {entry.fr!r} in nouns.tsv")
            return form
        return self.write(entry.fr if self._french else entry.en, filling.inside)

    def _activity(self, filling: Filling, form: str, subject: Entry | None) -> str:
        entry = filling.entry
        words = self.write(entry.fr if self._french else entry.en, filling.inside)
        if subject:
            words = self._possessives(words, subject)
        elif "<" in words:
            raise ValueError(f"whose is it in {words!r}? name the subject with @")
        if form.endswith("neg"):
            words = self._none_of(words, entry)
        return f"{self._verb(entry, form, subject)} {words}".strip()

    def _none_of(self, words: str, entry: Entry) -> str:
        """The object of a negated verb: "pas de douche", but "ne joue pas du piano"; "not any bread"."""
        if not self._french:
            return re.sub(r"^some ", "any ", words)
        if entry.verb.infinitive == "jouer":
            return words
        return re.sub(r"^(une?|du|des|de la|de l'(?=\w)) *", "de ", words)

    def _possessives(self, words: str, subject: Entry) -> str:
        if self._french:
            forms = french_forms.DETERMINERS[french_forms.POSSESSIVES[subject.person][subject.plural]]
            for mark, form in zip(("<son>", "<sa>", "<ses>"), forms, strict=False):
                words = words.replace(mark, form)
            return words
        third = {"m": "his", "f": "her"}[subject.gender]
        singular, plural = {1: ("my", "our"), 2: ("your", "your"), 3: (third, "their")}[subject.person]
        return words.replace("<his>", plural if subject.en_number == "p" else singular)

    def _verb(self, entry: Entry, form: str, subject: Entry | None) -> str:
        write = self._french_verb if self._french else self._english_verb
        return write(entry, form, subject or Entry("person", "", ""))

    def _french_verb(self, entry: Entry, form: str, subject: Entry) -> str:
        verb = entry.verb
        index = subject.person - 1 + 3 * subject.plural
        reflexive = verb.infinitive.startswith(("se ", "s'"))
        pronoun = f"{french_forms.REFLEXIVES[subject.person][subject.plural]} " if reflexive else ""
        tense = form.removesuffix("neg")
        no, not_ = ("ne ", " pas") if tense != form else ("", "")
        if tense == "inf":
            infinitive = re.sub(r"^(se |s')", "", verb.infinitive)
            return f"ne pas {pronoun}{infinitive}" if no else f"{pronoun}{infinitive}"
        if tense != "past":
            return f"{no}{pronoun}{verb.tense(tense, index)}{not_}"
        auxiliary = self._lexicon.verbs[verb.auxiliary].present[index]
        participle = verb.participle
        # With an object after it, the participle of a reflexive verb stays as it is ("elle s'est lavé les mains").
        if verb.auxiliary == "être" and not (reflexive and re.match(r"(le|la|les|l'|<)", entry.fr)):
            participle = french_forms.agree(
                french_forms.adjective_forms(participle, participle + "e"), subject.gender, subject.plural
            )
        return f"{no}{pronoun}{auxiliary}{not_} {participle}"

    def _english_verb(self, entry: Entry, form: str, subject: Entry) -> str:
        verb = entry.en_verb
        number = (subject.person, subject.en_number == "p")
        be = self._lexicon.english_verb("be")
        do = self._lexicon.english_verb("do")
        forms = {
            "inf": lambda: verb.base,
            "pres": lambda: verb.present(*number),
            "prog": lambda: f"{be.present(*number)} {verb.ing}",
            "past": lambda: verb.simple_past(*number),
            "pastprog": lambda: f"{be.simple_past(*number)} {verb.ing}",
            "perf": lambda: f"{self._lexicon.english_verb('have').present(*number)} {verb.participle}",
            "fut": lambda: f"will {verb.base}",
            "cond": lambda: f"would {verb.base}",
            "impf": lambda: f"used to {verb.base}",
            "presneg": lambda: f"{do.present(*number)} not {verb.base}",
            "progneg": lambda: f"{be.present(*number)} not {verb.ing}",
            "pastneg": lambda: f"did not {verb.base}",
            "perfneg": lambda: f"{self._lexicon.english_verb('have').present(*number)} not {verb.participle}",
            "futneg": lambda: f"will not {verb.base}",
            "condneg": lambda: f"would not {verb.base}",
            "ing": lambda: verb.ing,
            "pp": lambda: verb.participle,
        }
        if form not in forms:
            raise ValueError(f"no English form {form!r}")
        return forms[form]()
