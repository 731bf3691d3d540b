"""Stage 1 of the phrasebook: sample sentence pairs from the grammar into train, dev and two test sets.

Templates take turns, so every beginning of the list is balanced over them, and a longer list begins like a shorter
one. No sentence of dev or test, in either language, occurs in train. Some templates are kept out of training:

    test_sentences   new sentences from templates that are also in train
    test_templates   templates that training never saw, made of words that it did see

    python phrase_texts.py --out DIR/texts --hours 10
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from scripts.files import write_text, write_tsv
from scripts.recipes.phrasebook.bilingual_grammar import Sampler, Template, count_sentences, load_templates
from scripts.recipes.phrasebook.lexicon import Entry, Lexicon, load_lexicon
from scripts.recipes.phrasebook.slots import SLOT, slot_names
from scripts.speech.text_normalization import normalize_text

HERE = Path(__file__).resolve().parent
SPLITS = ("train", "dev", "test_sentences", "test_templates")
# Measured on the French voice at its usual speed, pauses at the ends included.
CHARACTERS_PER_SECOND = 18.3
# Templates with fewer sentences than this lend none to dev and test, and are never kept out of training.
VARIED = 500


@dataclass
class Corpus:
    """Rows drawn so far, and what may not be drawn again."""

    rows: list[dict[str, str]] = field(default_factory=list)
    used: Counter[Entry] = field(default_factory=Counter)
    reserved: set[str] = field(default_factory=set)  # both sides of dev and test
    spoken: set[str] = field(default_factory=set)  # French sentences of all splits

    def draw(self, samplers: Iterable[Sampler], split: str, count: int) -> None:
        """Add `count` rows, one template after the other; templates that run out of new sentences drop out."""
        turns = list(samplers)
        drawn = Counter()
        missing = count
        while missing and turns:
            for sampler in tuple(turns):
                pair = self._new_pair(sampler, reserve=split != "train")
                if pair is None:
                    turns.remove(sampler)
                    continue
                name = sampler.template.id
                row_id = f"{name}-{split[0] if split != 'train' else ''}{drawn[name]:04d}"
                drawn[name] += 1
                row = {"id": row_id, "split": split.split("_")[0], "set": split, "template": name}
                self.rows.append(row | {"fr": pair[0], "en": pair[1]})
                missing -= 1
                if not missing:
                    break
        if missing:
            raise SystemExit(f"error: the grammar has no {count} different sentences for {split}; ask for fewer")

    def _new_pair(self, sampler: Sampler, reserve: bool, tries: int = 100) -> tuple[str, str] | None:
        for _ in range(tries):
            french, english, entries = sampler()
            sides = {"fr " + normalize_text(french), "en " + normalize_text(english)}
            if french in self.spoken or (not reserve and sides & self.reserved):
                continue
            self.spoken.add(french)
            if reserve:
                self.reserved |= sides
            else:
                self.used.update(entries)
            return french, english
        return None


def literal_words(text: str) -> set[str]:
    """Words of a template outside its slots, and those that its slots choose between."""
    choices = " ".join(inner.split("?", 1)[1].replace("|", " ") for inner in SLOT.findall(text) if "?" in inner)
    return set(words(SLOT.sub(" ", text) + " " + choices))


def words(text: str) -> list[str]:
    """Words of a text in the form in which they are counted: elided words stand alone."""
    return normalize_text(text).replace("'", " ").split()


def keep_out(templates: list[Template], lexicon: Lexicon, count: int, seed: int) -> set[str]:
    """Ids of templates for the test alone: varied ones, whose words and classes all occur in other templates."""
    order = random.Random(f"{seed} templates").sample(templates, len(templates))
    parts = {template.id: _parts(template) for template in templates}
    spread = Counter(part for template in templates for part in parts[template.id])
    kept: set[str] = set()
    for template in order:
        if len(kept) == count:
            break
        elsewhere = all(spread[part] > 1 for part in parts[template.id])
        if elsewhere and count_sentences(template.fr, lexicon) >= VARIED:
            kept.add(template.id)
            spread.subtract(parts[template.id])
    if len(kept) < count:
        raise SystemExit(f"error: only {len(kept)} templates can be kept out of training, not {count}")
    return kept


def _parts(template: Template) -> set[str]:
    """Words of both sides and classes of the slots."""
    classes = {f"{{{_group(name)}}}" for name in slot_names(template.fr)}
    return {f"fr {w}" for w in literal_words(template.fr)} | {f"en {w}" for w in literal_words(template.en)} | classes


def _group(slot_name: str) -> str:
    return slot_name.split("#")[0]


def sample_corpus(
    templates: list[Template], lexicon: Lexicon, sizes: dict[str, int], unseen_templates: int, seed: int
) -> Corpus:
    """Rows of all splits, train last; `sizes` counts sentences."""
    kept_out = keep_out(templates, lexicon, unseen_templates, seed)

    def samplers(split: str, chosen: Iterable[Template]) -> list[Sampler]:
        order = random.Random(f"{seed} {split}").sample(list(chosen), len(list(chosen)))
        return [Sampler(template, lexicon, f"{seed} {split}") for template in order]

    trained = [template for template in templates if template.id not in kept_out]
    varied = [template for template in trained if count_sentences(template.fr, lexicon) >= VARIED]
    corpus = Corpus()
    corpus.draw(samplers("test_templates", [t for t in templates if t.id in kept_out]), "test_templates",
                sizes["test_templates"])  # fmt: skip
    corpus.draw(samplers("test_sentences", varied), "test_sentences", sizes["test_sentences"])
    corpus.draw(samplers("dev", varied), "dev", sizes["dev"])
    corpus.draw(samplers("train", trained), "train", sizes["train"])
    return corpus


def report(corpus: Corpus, templates: list[Template], lexicon: Lexicon) -> dict[str, object]:
    """What the corpus holds, in numbers."""
    by_split = {split: [row for row in corpus.rows if row["set"] == split] for split in SPLITS}
    types = {
        side: {split: set(words(" ".join(row[side] for row in rows))) for split, rows in by_split.items()}
        for side in ("fr", "en")
    }
    entries = {entry for members in lexicon.classes.values() for entry in members}
    return {
        "sentences": {split: len(rows) for split, rows in by_split.items()},
        "templates": {split: len({row["template"] for row in rows}) for split, rows in by_split.items()},
        "all_templates": len(templates),
        "sentences_possible": sum(count_sentences(template.fr, lexicon) for template in templates),
        "lexicon_entries": len(entries),
        "entries_not_in_train": sorted(entry.key for entry in entries - set(corpus.used)),
        "french_word_types_in_train": len(types["fr"]["train"]),
        "english_word_types_in_train": len(types["en"]["train"]),
        "french_words_not_in_train": {split: sorted(types["fr"][split] - types["fr"]["train"]) for split in SPLITS[1:]},
        "hours_estimated": {
            split: round(sum(len(row["fr"]) for row in rows) / CHARACTERS_PER_SECOND / 3600, 2)
            for split, rows in by_split.items()
        },
    }


def sentences_for(hours: float, templates: list[Template], lexicon: Lexicon) -> int:
    """How many sentences make `hours` of French speech at its usual speed."""
    samples = [Sampler(template, lexicon, "length")()[0] for template in templates for _ in range(3)]
    return math.ceil(hours * 3600 * CHARACTERS_PER_SECOND / (sum(map(len, samples)) / len(samples)))


def main() -> None:
    parser = argparse.ArgumentParser(description="Sample the phrasebook's sentence pairs.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the tables and report.json")
    parser.add_argument("--train-sentences", type=int, default=0, help="0: as many as --hours of speech need")
    parser.add_argument("--hours", type=float, default=10, help="French training speech, estimated (default 10)")
    parser.add_argument("--dev", type=int, default=300, help="sentences (default 300)")
    parser.add_argument("--test", type=int, default=300, help="sentences of each test set (default 300)")
    parser.add_argument("--unseen-templates", type=int, default=24, help="templates for the test only (default 24)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--grammar", type=Path, default=HERE, help="folder with lexicon/ and templates/")
    args = parser.parse_args()

    lexicon = load_lexicon(args.grammar / "lexicon")
    templates = load_templates(args.grammar / "templates")
    train = args.train_sentences or sentences_for(args.hours, templates, lexicon)
    sizes = {"train": train, "dev": args.dev, "test_sentences": args.test, "test_templates": args.test}
    try:
        corpus = sample_corpus(templates, lexicon, sizes, args.unseen_templates, args.seed)
    except ValueError as error:
        raise SystemExit(f"error: {args.grammar}: {error}") from error

    write_tsv(args.out / "pairs.tsv", corpus.rows)
    for name in SPLITS[2:]:
        write_tsv(args.out / f"{name}.tsv", [row for row in corpus.rows if row["set"] == name])
    numbers = report(corpus, templates, lexicon)
    write_text(args.out / "report.json", json.dumps(numbers, ensure_ascii=False, indent=1) + "\n")
    print(
        f"texts: {sizes['train']} pairs to train on (about {numbers['hours_estimated']['train']} h of French), "
        f"{len(templates)} templates, {numbers['french_word_types_in_train']} French word types, "
        f"{numbers['sentences_possible']:.3g} sentences possible",
        flush=True,
    )


if __name__ == "__main__":
    main()
