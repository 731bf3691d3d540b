"""Stage 2: what is said in which recording: Common Voice, CoVoST 2 and CVSS-C joined by the name of the clip.

    python texts.py --lang fr --corpora corpora --out DIR/texts

writes all.tsv (`id split clip <lang> en`) and skipped.tsv (`id split reason`). The texts are the sentence of Common
Voice and the translation of CVSS-C, which is spelled as it is spoken; CVSS-C says which split a clip is in, and CoVoST
2 has to agree: a clip in another split there would be training and test data at once.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from scripts.files import write_text
from scripts.recipes.cvss_c.layout import COVOST_SPLITS, SPLITS, CorpusLayout, read_columns
from scripts.speech.text_normalization import normalize_text


def covost_splits(layout: CorpusLayout) -> dict[str, str]:
    """Split of each clip in CoVoST 2; splits that are neither train, dev nor test are left out."""
    if layout.has_covost_splits:
        return {path: split for split in SPLITS for (path,) in read_columns(layout.covost_split(split), "path")}
    rows = read_columns(layout.covost, "path", "split")
    return {path: COVOST_SPLITS[split] for path, split in rows if split in COVOST_SPLITS}


def cvss_rows(path: Path) -> list[tuple[str, str]]:
    """Clip and translation of each line of a table of CVSS-C, which has no header.

    Raises:
        SystemExit: no such table, or a line that isn't two fields.
    """
    if not path.is_file():
        raise SystemExit(f"error: no table {path}; run the download stage, or see README.md for the layout")
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        fields = line.rstrip("\r").split("\t")
        if len(fields) == 2:
            rows.append((fields[0], fields[1]))
        elif fields != [""]:
            raise SystemExit(f"error: {path}, line {number}: {len(fields)} fields, expected a clip and its translation")
    return rows


def join(layout: CorpusLayout, limit: int) -> tuple[list[tuple[str, ...]], list[tuple[str, str, str]]]:
    """Rows `(id, split, clip, source text, target text)` in CVSS-C's order, and `(id, split, reason)` of the others."""
    sentences = dict(read_columns(layout.common_voice / "validated.tsv", "path", "sentence"))
    covost = covost_splits(layout)
    kept: list[tuple[str, ...]] = []
    skipped, seen = [], {}
    for split in SPLITS:
        count = 0
        for clip, translation in cvss_rows(layout.cvss / f"{split}.tsv"):
            name = clip.removesuffix(".mp3")
            reason = ""
            if Path(clip).name != clip:
                reason = "its name is a path"
            elif name in seen:
                reason = f"twice, already in {seen[name]}"
            elif clip not in sentences:
                reason = "not in validated.tsv of Common Voice"
            elif covost.get(clip) != split:
                reason = f"in {covost[clip]} of CoVoST 2" if clip in covost else "not in CoVoST 2"
            elif not normalize_text(sentences[clip]):
                reason = "no words in the source text"
            elif not normalize_text(translation):
                reason = "no words in the translation"
            if reason:
                skipped.append((name, split, reason))
                continue
            seen[name] = split
            kept.append((name, split, clip, " ".join(sentences[clip].split()), " ".join(translation.split())))
            count += 1
            if count == limit:
                break
    return kept, skipped


def write_rows(path: Path, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Write a tab-separated table."""
    write_text(path, "\n".join("\t".join(row) for row in [header, *rows]) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Join the texts of Common Voice 4, CoVoST 2 and CVSS-C.")
    parser.add_argument("--lang", required=True, help="source language: fr, es or de")
    parser.add_argument("--corpora", type=Path, required=True, help="folder of download.py")
    parser.add_argument("--limit", type=int, default=0, help="only the first N pairs of each split (0: all)")
    parser.add_argument("--out", type=Path, required=True, help="folder for all.tsv and skipped.tsv")
    args = parser.parse_args()
    kept, skipped = join(CorpusLayout(args.corpora, args.lang), args.limit)
    counts = Counter(row[1] for row in kept)
    empty = [split for split in SPLITS if not counts[split]]
    if empty:
        example = f", e.g. {skipped[0][0]}: {skipped[0][2]}" if skipped else ""
        raise SystemExit(f"error: no pair is left in {', '.join(empty)} ({len(skipped)} are left out{example})")
    write_rows(args.out / "all.tsv", ("id", "split", "clip", args.lang, "en"), kept)
    write_rows(args.out / "skipped.tsv", ("id", "split", "reason"), skipped)
    sizes = ", ".join(f"{counts[split]} {split}" for split in SPLITS)
    print(f"texts: {sizes}; {len(skipped)} left out, see {args.out / 'skipped.tsv'}", flush=True)


if __name__ == "__main__":
    main()
