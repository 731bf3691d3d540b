"""Which phone is spoken when: forced alignment of English speech with its text, by PocketSphinx.

Two passes of the Viterbi search: the first places the words, the second the phones inside them.
"""

from __future__ import annotations

import re

import numpy as np

from echostream.constants import SAMPLE_RATE, UNIT_SAMPLES
from scripts.command_line import require

WORD = re.compile(r"[a-z']+")
SILENCE = "SIL"
# PocketSphinx counts in frames of 10 ms, units in frames of 20 ms.
ALIGNER_FRAMES_PER_UNIT = 2


class PhoneAligner:
    """Aligns one utterance at a time; the acoustic model and a pronouncing dictionary come with the package."""

    def __init__(self) -> None:
        self._decoder = require("pocketsphinx").Decoder(loglevel="FATAL", bestpath=False, samprate=SAMPLE_RATE, lm=None)

    def __call__(self, samples: np.ndarray, text: str) -> list[str] | None:
        """Phone of each 20 ms frame of `samples` (float32 `(n,)`, 16 kHz); `n // 320` names.

        Returns None where a word has no known pronunciation or the search finds no path.
        """
        words = WORD.findall(text.lower())
        if not words or any(self._decoder.lookup_word(word) is None for word in words):
            return None
        pcm = np.round(samples * 32767).astype("<i2").tobytes()
        # The front end adapts to what it has heard; an alignment must not depend on the utterances before it.
        self._decoder.reinit_feat()
        try:
            self._decoder.set_align_text(" ".join(words))
            self._decode(pcm)
            self._decoder.set_alignment()
            self._decode(pcm)
            alignment = self._decoder.get_alignment()
        except RuntimeError:
            return None
        if alignment is None:
            return None
        labels = [SILENCE] * (len(samples) // UNIT_SAMPLES)
        for phone in (phone for word in alignment for phone in word):
            # A unit frame belongs to the phone at its middle.
            first = phone.start // ALIGNER_FRAMES_PER_UNIT
            last = (phone.start + phone.duration) // ALIGNER_FRAMES_PER_UNIT
            labels[first:last] = [phone.name] * len(labels[first:last])
        return labels

    def _decode(self, pcm: bytes) -> None:
        self._decoder.start_utt()
        self._decoder.process_raw(pcm, full_utt=True)
        self._decoder.end_utt()
