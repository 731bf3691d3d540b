"""The model that ships, whichever it is: its folder, and the recordings that come with it.

What it says is compared with what is said in them, or with what it says another way; no test knows its words.
"""

from __future__ import annotations

import csv
import difflib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import soundfile

from echostream.checkpoints.model_folder import ModelSettings
from echostream.constants import SAMPLE_RATE
from echostream.text import word_errors

MODEL = Path(__file__).resolve().parents[1] / "models" / "fr-en"
WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Sample:
    """A recording that comes with the model, what is said in it, and what that means."""

    path: Path
    source: str
    target: str

    @cached_property
    def wave(self) -> np.ndarray:
        """Float32 ``(n,)`` at 16 kHz."""
        samples, rate = soundfile.read(self.path, dtype="float32")
        assert rate == SAMPLE_RATE and samples.ndim == 1, self.path
        return samples

    @property
    def seconds(self) -> float:
        return self.wave.size / SAMPLE_RATE


def samples() -> list[Sample]:
    """All of them, in the order of their list."""
    settings = ModelSettings.of(MODEL)
    with (MODEL / "samples" / "samples.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    folder = MODEL / "samples"
    return [Sample(folder / row["source_audio"], row[settings.source_lang], row[settings.target_lang]) for row in rows]


def short_samples(seconds: float, least_words: int = 1) -> list[Sample]:
    """As many as are not longer than this together, the shortest first; at least one.

    Those whose translation has fewer than ``least_words`` are passed over, unless all have.
    """
    known = samples()
    worded = [sample for sample in known if len(words_of(sample.target)) >= least_words]
    chosen: list[Sample] = []
    for sample in sorted(worded or known, key=lambda sample: sample.seconds):
        seconds -= sample.seconds
        if chosen and seconds < 0:
            break
        chosen.append(sample)
    return chosen


def words_of(text: str) -> list[str]:
    """In lower case, without punctuation."""
    return WORD.findall(text.lower())


def word_error_rate(found: Sequence[str], expected: Sequence[str]) -> float:
    """Errors of all texts together over the words that were expected."""
    errors, words = word_errors(*((" ".join(words_of(text)) for text in texts) for texts in (found, expected)))
    return errors / words


def word_recall(found: Sequence[str], expected: Sequence[str]) -> float:
    """Share of the words of all texts that was found, in any order: there is more than one good translation."""
    pairs = [(Counter(words_of(one)), Counter(words_of(other))) for one, other in zip(found, expected, strict=True)]
    return sum((one & other).total() for one, other in pairs) / sum(other.total() for _, other in pairs)


def is_alike(text: str, said: str) -> bool:
    """Whether most words are the same, as much as can be asked of another encoding of the same speech."""
    return difflib.SequenceMatcher(None, words_of(text), words_of(said)).ratio() > 0.5
