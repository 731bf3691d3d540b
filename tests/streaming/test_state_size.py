"""The state of a stream of the model that ships is small, and takes no room for what has not been said."""

from pathlib import Path

import numpy as np
import pytest
from shipped_model import MODEL, short_samples

from echostream.streaming import StreamingTranslator

MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def translator() -> StreamingTranslator:
    return StreamingTranslator.from_checkpoint(Path(MODEL), segment_ms=320)


def test_a_stream_that_speaks_stays_under_six_megabytes(translator):
    gap = np.zeros(8_000, dtype=np.float32)
    wave = np.concatenate([part for sample in short_samples(9) for part in (sample.wave, gap)])
    state, sizes, words = translator.init_state(), [], 0
    for start in range(0, wave.size, 5_120):
        words += len(translator.step(wave[start : start + 5_120], state).words)
        sizes.append(state.nbytes)
    assert words > 5
    assert max(sizes) < 6 * MEGABYTE


def test_what_a_state_may_take_at_most_is_bounded(translator):
    """By the windows: 3.2 s of the encoder, 20 s of frames and 64 subwords of a sentence, 8 of them in units."""
    model, state = translator.model, translator.init_state()
    frames = model.mt_decoder.window_frames * model.cfg.encoder_dim * 4
    windows = [
        model.st_head.stack,
        model.mt_decoder.stack,
        model.unit_decoder.text_stack,
        model.unit_decoder.unit_stack,
    ]
    full = sum(stack.full_state().nbytes for stack in windows)
    assert state.nbytes < 4.3 * MEGABYTE
    assert state.encoder.nbytes + full + frames < 7.7 * MEGABYTE
