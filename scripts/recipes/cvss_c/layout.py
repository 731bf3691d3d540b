"""Where Common Voice 4, CoVoST 2 and CVSS-C have their files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "dev", "test")
# CoVoST 2 adds clips of Common Voice to its training set that Common Voice itself does not train on.
COVOST_SPLITS = {"train": "train", "train_covost": "train", "dev": "dev", "test": "test"}
HUBERT_NAME = "mhubert_base_vp_en_es_fr_it3.pt"
KMEANS_NAME = "mhubert_base_vp_en_es_fr_it3_L11_km1000.bin"


@dataclass(frozen=True)
class CorpusLayout:
    """Paths under `root` for one source language; the target is English."""

    root: Path
    lang: str

    @property
    def common_voice(self) -> Path:
        """Folder with `validated.tsv` and `clips/*.mp3`."""
        return self.root / "cv-corpus-4" / self.lang

    @property
    def covost(self) -> Path:
        """Table `path, translation, split`, as published."""
        return self.root / f"covost_v2.{self.lang}_en.tsv"

    def covost_split(self, split: str) -> Path:
        """Table of one split, as CoVoST's own script writes it."""
        return self.root / f"covost_v2.{self.lang}_en.{split}.tsv"

    @property
    def has_covost_splits(self) -> bool:
        return all(self.covost_split(split).is_file() for split in SPLITS)

    @property
    def cvss(self) -> Path:
        """Folder with `{train,dev,test}.tsv` (clip, normalised translation) and `{train,dev,test}/<clip>.wav`."""
        return self.root / f"cvss_c_{self.lang}_en_v1.0"

    @property
    def hubert(self) -> Path:
        return self.root / HUBERT_NAME

    @property
    def kmeans(self) -> Path:
        return self.root / KMEANS_NAME

    def clip(self, name: str) -> Path:
        """Source recording of the clip `<id>.mp3`."""
        return self.common_voice / "clips" / name

    def target(self, split: str, name: str) -> Path:
        """Spoken translation of the clip `<id>.mp3`."""
        return self.cvss / split / f"{name}.wav"


def read_columns(path: Path, *columns: str) -> Iterator[tuple[str, ...]]:
    """These columns of a tab-separated table with a header; rows with too few fields are left out.

    Raises:
        SystemExit: no such table, or a column is missing from it.
    """
    if not path.is_file():
        raise SystemExit(f"error: no table {path}; run the download stage, or see README.md for the layout")
    # Not the csv module: Common Voice has lone quotes, and a quote would swallow the lines up to the next one.
    with path.open(encoding="utf-8", newline="\n") as file:
        header = file.readline().rstrip("\r\n").split("\t")
        missing = [column for column in columns if column not in header]
        if missing:
            raise SystemExit(f"error: {path} has no column {missing[0]!r}, only {', '.join(header)}")
        where = [header.index(column) for column in columns]
        for line in file:
            fields = line.rstrip("\r\n").split("\t")
            if len(fields) > max(where):
                yield tuple(fields[index] for index in where)
