"""One way of writing for everything that sounds the same, before a recogniser's words are compared with a reference.

Whisper writes "€760" or "at 8:30" where a reference has "seven hundred and sixty euros" or "at eight thirty": the
speech was right, and only the spelling differs. English goes through the normalisation that Whisper's authors published
for scoring it (Radford et al. 2022, arXiv:2212.04356, appendix C), hypothesis and reference alike: numbers as digits,
contractions written out, British spellings as American ones. Other languages are left as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

INSTALL = "pip install whisper-normalizer"
CLOCK = re.compile(r"\b(\d{1,2}):(\d\d)\b")
SPELLED_OUT = re.compile(r"(?<=\b\d)(?:, ?|-| )(?=\d\b)")  # 9, 7, 1, 4


@lru_cache
def spoken_form(language: str) -> Callable[[str], str]:
    """What writes a text of ``language`` in that one way.

    Raises:
        ValueError: the package that knows how is missing.
    """
    if language != "en":
        return str
    try:
        from whisper_normalizer.english import EnglishTextNormalizer  # optional: only scoring needs it
    except ImportError as error:
        raise ValueError(f"scores of English speech need whisper-normalizer ({error}): {INSTALL}") from error
    normalise = EnglishTextNormalizer()

    def write(text: str) -> str:
        return normalise(SPELLED_OUT.sub("", CLOCK.sub(r"\1\2", text)))

    return write
