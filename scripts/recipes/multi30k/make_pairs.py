"""Stage 1: Multi30k's French-English sentences as a table of pairs, from a folder or fetched.

    python make_pairs.py --text-dir DIR --out ROOT/texts --limit-train 1000

writes pairs.tsv (id, split, fr, en). A pair with nothing on one side is left out, and so is a training pair whose
sentence, in either language, is also in dev or test. A limit takes the first pairs that are left.
"""

from __future__ import annotations

import argparse
import gzip
import urllib.error
import urllib.request
from pathlib import Path

from scripts.files import atomic_path, write_text
from scripts.speech.text_normalization import normalize_text

LANGUAGES = ("fr", "en")
# What the published archives call the splits.
NAMES = {"train": ("train",), "dev": ("val",), "test": ("test_2016_flickr", "test2016", "flickr2016")}


def find(folder: Path, split: str, language: str) -> Path | None:
    """The split's file in a folder, plain or gzipped."""
    for name in NAMES[split]:
        for path in (folder / f"{name}.{language}", folder / f"{name}.{language}.gz"):
            if path.is_file():
                return path
    return None


def read_lines(path: Path) -> list[str]:
    """Sentences of a file, each with single spaces.

    Raises:
        SystemExit: not UTF-8, or a damaged archive.
    """
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise SystemExit(f"error: cannot read {path}: {error}; delete it and fetch it again") from error
    return [" ".join(line.split()) for line in text.rstrip("\n").split("\n")]


def fetch(url: str, folder: Path) -> None:
    """Put the files that are missing into `folder`.

    Raises:
        SystemExit: the network or the file isn't there; the message says how to go on without.
    """
    for split, names in NAMES.items():
        for language in LANGUAGES:
            if find(folder, split, language):
                continue
            address = f"{url.rstrip('/')}/{names[0]}.{language}.gz"
            print(f"fetching {address}", flush=True)
            try:
                with (
                    urllib.request.urlopen(address, timeout=60) as answer,  # noqa: S310  whoever runs it names the address
                    atomic_path(folder / f"{names[0]}.{language}.gz") as path,
                ):
                    path.write_bytes(answer.read())
            except (OSError, ValueError, urllib.error.URLError) as error:
                wanted = ", ".join(f"{name[0]}.{language}" for name in NAMES.values() for language in LANGUAGES)
                raise SystemExit(
                    f"error: cannot fetch {address}: {error}; fetch {wanted} elsewhere and give their folder with "
                    "--text-dir, or give another --url"
                ) from error


def read_pairs(folder: Path, split: str) -> list[tuple[str, str, str]]:
    """(id, French, English) of the lines that have both; the number in the id is that of the line.

    Raises:
        SystemExit: a file is missing, or the two have different numbers of lines.
    """
    paths = {language: find(folder, split, language) for language in LANGUAGES}
    for language, path in paths.items():
        if path is None:
            wanted = " or ".join(f"{name}.{language}" for name in NAMES[split])
            raise SystemExit(f"error: {folder} has no {wanted} (or .gz)")
    french, english = (read_lines(path) for path in paths.values() if path)
    if len(french) != len(english):
        raise SystemExit(
            f"error: {paths['fr']} has {len(french)} lines, {paths['en']} has {len(english)}; they are no translations"
        )
    return [
        (f"{split}{number:05d}", fr, en)
        for number, (fr, en) in enumerate(zip(french, english, strict=True), start=1)
        if normalize_text(fr) and normalize_text(en)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the table of Multi30k's pairs.")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--text-dir", type=Path, help="folder with train, val and test_2016_flickr, .fr and .en")
    source.add_argument("--url", help="folder on the net with the same files, gzipped")
    parser.add_argument("--out", type=Path, required=True)
    for split in NAMES:
        parser.add_argument(f"--limit-{split}", type=int, default=0, help="pairs to take (0: all)")
    args = parser.parse_args()

    folder = args.text_dir
    if folder is None:
        folder = args.out / "multi30k"
        fetch(args.url, folder)
    elif not folder.is_dir():
        raise SystemExit(f"error: no folder {folder} (--text-dir)")

    pairs = {split: read_pairs(folder, split) for split in NAMES}
    held_out = {normalize_text(text) for split in ("dev", "test") for _, *texts in pairs[split] for text in texts}
    everything = len(pairs["train"])
    pairs["train"] = [pair for pair in pairs["train"] if not {normalize_text(text) for text in pair[1:]} & held_out]
    left_out = everything - len(pairs["train"])
    rows = ["id\tsplit\tfr\ten"]
    for split in NAMES:
        pairs[split] = pairs[split][: getattr(args, f"limit_{split}") or None]
        rows += [f"{name}\t{split}\t{fr}\t{en}" for name, fr, en in pairs[split]]
    write_text(args.out / "pairs.tsv", "\n".join(rows) + "\n")
    sizes = ", ".join(f"{len(pairs[split])} {split}" for split in NAMES)
    print(f"texts: {sizes}; {left_out} training pairs left out, being in dev or test", flush=True)


if __name__ == "__main__":
    main()
