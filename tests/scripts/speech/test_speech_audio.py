"""Recordings of speech as the tools write them."""

import numpy as np
import pytest

from scripts.speech.audio import read_speech, write_speech


def test_speech_file_is_whole_units_at_16_khz(tmp_path):
    silence, tone = np.zeros(12000), np.sin(np.arange(24000) / 20)
    count = write_speech(tmp_path / "x.wav", np.concatenate([silence, tone, silence]), 24000, multiple=320)
    samples = read_speech(tmp_path / "x.wav")
    assert count == len(samples) and count % 320 == 0
    # 1 s of tone and a margin of 0.1 s on either side, cut to whole units
    assert 1.17 < count / 16000 < 1.21
    assert abs(samples).max() == pytest.approx(0.8, abs=1e-3)
    with pytest.raises(ValueError, match="silent"):
        write_speech(tmp_path / "y.wav", silence, 24000)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.wav"]
