"""Stage 1 of the quickstart: the sentence pairs, and English lines that only the vocoder learns from.

The extra lines come from a small grammar: many different words in many orders, because a vocoder needs sounds and
their neighbours, not sense. They are the same at each run.
"""

from __future__ import annotations

import argparse
import random
import re
from pathlib import Path

from scripts.files import write_text
from scripts.speech.speech_synthesis import read_table

SENTENCES = Path(__file__).with_name("sentences.tsv")

# A template's slot {name} is filled with a random choice; choices may hold slots themselves.
GRAMMAR = {
    "line": (
        "{Person} {did} {thing} {where}.",
        "{Person} {will} {do} {thing} {when}, {and_then}.",
        "{when_first}, {person} {did} {thing} {where}.",
        "Could you {do} {thing} {when}, please?",
        "Why did {person} {do} {thing} {where}?",
        "{Thing} and {thing} are {state} {when}.",
        "{Person} thinks that {thing} is {state}.",
        "What {quality} weather, {thing} will be {state} {when}!",
        "If you {do} {thing}, {person} {will} {do} {thing}.",
        "There is {a_thing} {where}, {and_then}.",
    ),
    "person": (
        "my uncle", "the young nurse", "our neighbour", "a tall soldier", "the old judge", "your cousin", "the chef",
        "George", "Catherine", "the shy girl", "his wife", "a French tourist", "the engineer", "that boy", "the king",
        "her grandfather", "the museum guide", "Doctor Hughes", "the youngest player", "each visitor",
    ),
    "did": (
        "found", "bought", "carried", "watched", "measured", "pushed", "forgot", "described", "enjoyed", "caught",
        "chose", "threw away", "painted", "showed me", "asked about", "dreamed of", "shouted at", "put down",
        "joined", "fixed", "brought", "washed", "heard", "judged",
    ),
    "do": (
        "find", "buy", "carry", "watch", "measure", "push", "forget", "describe", "enjoy", "catch", "choose",
        "throw away", "paint", "bring", "ask about", "fetch", "join", "repair", "hear", "use", "move", "hold",
        "finish", "change",
    ),
    "will": ("will", "may", "can", "should", "would never", "used to", "wants to", "has to", "might", "must"),
    "thing": (
        "the {quality} {noun}", "a {quality} {noun}", "this {noun}", "every {noun}", "the {noun} and the {noun}",
        "another {noun}", "their {noun}", "the {noun} of the {noun}",
    ),
    "a_thing": ("a {quality} {noun}", "no {noun}", "only one {noun}", "some kind of {noun}"),
    "quality": (
        "green", "heavy", "beautiful", "usual", "yellow", "broken", "huge", "quiet", "cheap", "strange", "thick",
        "smooth", "sharp", "royal", "foreign", "purple", "loose", "famous", "cold", "wooden", "average", "genuine",
    ),
    "noun": (
        "kitchen", "bicycle", "orange", "village", "picture", "garage", "mouth", "feather", "guitar", "shoe",
        "newspaper", "treasure", "voice", "umbrella", "yard", "machine", "giraffe", "weather report", "bathroom",
        "question", "hospital", "thumb", "zoo", "language", "journey", "engine", "choice", "hour", "leather bag",
        "fish", "pleasure boat", "cushion", "wheel", "sandwich", "cloud", "television", "house key", "bridge",
        "towel", "uniform", "boiled egg", "measure", "wolf", "path", "clothes", "church", "judge", "ear", "fair",
    ),
    "where": (
        "near the river", "in the south of Europe", "behind the theatre", "on the other side of the road", "outdoors",
        "under the kitchen table", "at the top of the tower", "between the two houses", "beyond the village",
        "in a small shop", "along the beach", "in the basement", "without any help", "through the forest",
    ),
    "when": (
        "before lunch", "on Thursday", "this evening", "after the show", "in February", "sooner or later", "tonight",
        "at half past four", "once a year", "during the journey", "on Wednesday morning", "in the autumn", "at noon",
    ),
    "when_first": (
        "Last year", "Yesterday", "Early in the morning", "A few hours later", "In eighteen ninety six",
        "On the fourth of July", "While we were away", "As usual", "Three days ago",
    ),
    "and_then": (
        "which was rather unusual", "but nobody noticed", "so we went home", "as far as I know", "and then it rained",
        "because of the noise", "though it was late", "just like the others", "and everyone laughed",
    ),
    "state": (
        "ready", "expensive", "on the shelf", "far away", "easy to choose", "worth seeing", "made of glass", "enough",
        "very long", "rather loud", "quite old", "out of order", "all right", "a mystery", "good for you", "unusual",
    ),
}  # fmt: skip
SLOT = re.compile(r"\{(\w+)\}")


def make_line(generator: random.Random, template: str = "{line}") -> str:
    """Fill all slots of a template; a slot written with a capital starts with one."""

    def fill(match: re.Match[str]) -> str:
        name = match[1]
        text = make_line(generator, generator.choice(GRAMMAR[name.lower()]))
        return text if name.islower() else text[0].upper() + text[1:]

    return SLOT.sub(fill, template)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the quickstart's texts.")
    parser.add_argument("--out", type=Path, required=True, help="folder for pairs.tsv and extra.tsv")
    parser.add_argument("--sentences", type=Path, default=SENTENCES, help="tab-separated pairs: id, fr, en")
    parser.add_argument("--limit", type=int, default=0, help="use only the first N pairs (0: all)")
    parser.add_argument("--extra-lines", type=int, default=260, help="English lines for the vocoder alone")
    args = parser.parse_args()

    pairs = read_table(args.sentences, "fr", "en")[: args.limit or None]
    rows = ["id\tfr\ten", *(f"{pair['id']}\t{pair['fr']}\t{pair['en']}" for pair in pairs)]
    write_text(args.out / "pairs.tsv", "\n".join(rows) + "\n")

    generator = random.Random(0)
    lines = [make_line(generator) for _ in range(args.extra_lines)]
    rows = ["id\ten", *(f"extra{i:04d}\t{line}" for i, line in enumerate(lines))]
    write_text(args.out / "extra.tsv", "\n".join(rows) + "\n")
    print(f"texts: {len(pairs)} pairs, {len(lines)} lines for the vocoder", flush=True)


if __name__ == "__main__":
    main()
