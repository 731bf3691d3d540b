"""The form in which texts are modelled and scored: lower case, no punctuation."""

from __future__ import annotations

import re
import unicodedata

APOSTROPHES = str.maketrans({"’": "'", "ʼ": "'", "`": "'"})
# Letters, marks, digits and the apostrophe inside a word ("l'hôtel", "o'clock") stay; all else separates words.
NOT_WORD = re.compile(r"[^\w']|_")
LOOSE_APOSTROPHE = re.compile(r"(?<!\w)'|'(?!\w)")


def normalize_text(text: str) -> str:
    """Lower-case `text` and replace its punctuation by single spaces; letters keep their accents (NFC)."""
    text = unicodedata.normalize("NFC", text).translate(APOSTROPHES).lower()
    return " ".join(LOOSE_APOSTROPHE.sub(" ", NOT_WORD.sub(" ", text)).split())
