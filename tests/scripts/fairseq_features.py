"""Features as fairseq computes them, for tests that compare."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from fairseq.data.audio.audio_utils import _get_torchaudio_fbank

from scripts.speech.audio import read_speech


def fairseq_fbank(path: Path) -> np.ndarray:
    """What fairseq computes; its own reader of audio files needs a module that torchaudio no longer has."""
    return _get_torchaudio_fbank(read_speech(path)[None] * 2**15, 16000)
