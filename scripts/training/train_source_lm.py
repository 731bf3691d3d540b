"""A language model of the source's subwords (`source_lm` in model.yaml): it spells what the ASR CTC hears, and parts
sentences.

    python scripts/training/train_source_lm.py --texts runs/everyday/source_unigram/train.tsv \\
        --dictionary runs/everyday/source_unigram/dict.txt --output runs/everyday/source_lm.arpa.gz

Interpolated Witten-Bell estimates (Witten and Bell 1991, method C), written as a back-off model in ARPA's format, so
that one made by KenLM or SRILM from the same subwords serves as well.
"""

from __future__ import annotations

import argparse
import gzip
import math
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from echostream.decoding.ngram import BEGIN, END, UNKNOWN
from echostream.tasks.manifests import ManifestError, read_rows
from echostream.text import text_lines
from scripts.command_line import positive
from scripts.files import atomic_path

NEVER = -99.0  # ARPA's log10 of what never follows


def estimate(sentences: Iterable[list[str]], vocabulary: list[str], order: int, min_count: int = 1) -> list[list[str]]:
    """Lines of the sections of an ARPA file, of the 1-grams first.

    An n-gram's probability is ``(count + types * lower) / (total + types)``, where ``total`` and ``types`` count what
    follows its context, and ``lower`` is the probability after the shorter context; ``types / (total + types)`` is
    what is left for all that was never seen there. N-grams of three symbols and more that occur less than ``min_count``
    times are left out, and what they had goes to the shorter ones.
    """
    followers: list[dict[tuple[str, ...], Counter[str]]] = [defaultdict(Counter) for _ in range(order)]
    for sentence in sentences:
        symbols = [BEGIN, *sentence, END]
        for place in range(1, len(symbols)):
            for length in range(min(order - 1, place) + 1):
                followers[length][tuple(symbols[place - length : place])][symbols[place]] += 1
    known: dict[tuple[str, ...], float] = {}
    weights: dict[tuple[str, ...], float] = {}
    words = sorted({END, UNKNOWN, *vocabulary})

    def probability(context: tuple[str, ...], word: str) -> float:
        ngram = (*context, word)
        return known[ngram] if ngram in known else weights.get(context, 1.0) * probability(context[1:], word)

    for length, contexts in enumerate(followers):
        for context, counts in sorted(contexts.items()):
            kept = words if not length else sorted(word for word in counts if length == 1 or counts[word] >= min_count)
            unseen = len(counts) / (counts.total() + len(counts))
            lower = {word: probability(context[1:], word) if length else 1 / len(words) for word in kept}
            for word in kept:
                known[(*context, word)] = (1 - unseen) * counts[word] / counts.total() + unseen * lower[word]
            if length and kept:
                left = 1 - math.fsum(known[(*context, word)] for word in kept)
                # Where nothing is left out this is what is unseen, but for rounding.
                weights[context] = unseen if len(kept) == len(counts) else left / (1 - math.fsum(lower.values()))
    sections: list[list[str]] = [[] for _ in range(order)]
    for ngram, share in [*known.items(), ((BEGIN,), 0.0)]:
        fields = [f"{math.log10(share) if share else NEVER:.4f}", " ".join(ngram)]
        if ngram in weights:
            fields.append(f"{math.log10(weights[ngram]):.4f}")
        sections[len(ngram) - 1].append("\t".join(fields))
    return sections


def main() -> None:
    parser = argparse.ArgumentParser(description="Train an n-gram model of the source's subwords.")
    parser.add_argument("--texts", type=Path, required=True, help="source_unigram/train.tsv of a data set")
    parser.add_argument("--dictionary", type=Path, required=True, help="source_unigram/dict.txt of the same")
    parser.add_argument("--output", type=Path, required=True, help="ARPA file, gzipped if its name ends in .gz")
    parser.add_argument("--order", type=positive, default=4, help="length of the longest n-grams (default 4)")
    parser.add_argument(
        "--min-count", type=positive, default=1, help="n-grams of 3 and more that occur less are left out (default 1)"
    )
    args = parser.parse_args()
    try:
        sentences = [row["tgt_text"].split() for _, row in read_rows(args.texts, ("id", "tgt_text"))]
        vocabulary = [entry.split()[0] for entry in text_lines(args.dictionary)]
    except (ManifestError, OSError) as error:
        sys.exit(f"error: {error}")
    known = set(vocabulary)
    if strange := next((symbol for sentence in sentences for symbol in sentence if symbol not in known), None):
        sys.exit(
            f"error: {args.texts} has the subword '{strange}', {args.dictionary} has not: take two of one data set"
        )
    sections = estimate(sentences, vocabulary, args.order, args.min_count)
    lines = ["\\data\\", *(f"ngram {length}={len(section)}" for length, section in enumerate(sections, 1))]
    for length, section in enumerate(sections, 1):
        lines += ["", f"\\{length}-grams:", *section]
    data = ("\n".join([*lines, "", "\\end\\"]) + "\n").encode()
    # Without the time, so that the same texts give the same bytes.
    with atomic_path(args.output) as temporary:
        temporary.write_bytes(gzip.compress(data, mtime=0) if args.output.suffix == ".gz" else data)
    sizes = ", ".join(f"{len(section)} {length}-grams" for length, section in enumerate(sections, 1))
    print(f"{args.output}: {sizes} of {len(sentences)} sentences", flush=True)


if __name__ == "__main__":
    main()
