"""Normalisation of text that sounds the same but is written differently, for scores of recognised speech.

Whisper writes "€760" or "at 8:30" where a reference has "seven hundred and sixty euros" or "at eight thirty": the
speech was correct, and only the spelling differs. For English, hypothesis and reference are both normalised with the
rules that Whisper's authors published for scoring (Radford et al. 2022, arXiv:2212.04356, appendix C): numbers become
digits, contractions are written out, and British spellings become American. Other languages are not changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

INSTALL = "pip install whisper-normalizer"
CLOCK = re.compile(r"\b(\d{1,2}):(\d\d)\b")
SPELLED_OUT = re.compile(r"(?<=\b\d)(?:, ?|-| )(?=\d\b)")  # single digits such as 9, 7, 1, 4


@lru_cache
def spoken_form(language: str) -> Callable[[str], str]:
    """The normalising function for a language, given by its two-letter code.

    Raises:
        ValueError: the package with the rules is not installed.
    """
    if language != "en":
        return str
    try:
        from whisper_normalizer.english import EnglishTextNormalizer  # optional: only scoring needs it
    except ImportError as error:
        raise ValueError(f"scores of English speech need whisper-normalizer ({error}): {INSTALL}") from error
    normalise = EnglishTextNormalizer()

    def normalise_digits(text: str) -> str:
        return normalise(SPELLED_OUT.sub("", CLOCK.sub(r"\1\2", text)))

    return normalise_digits
