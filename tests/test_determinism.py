"""Equal audio gives identical output in every process, for any pushes and on any thread; in batches up to rounding."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_translator import VOCODERS, make_translator, noise

from echostream.audio.output import to_s16le

TESTS = Path(__file__).parent
ROUNDING = 2e-6  # of samples in [-1, 1]: a matrix product of a batch, or of two threads, may add in another order
STREAMS = [(0.9 + 0.23 * seed, seed) for seed in range(5)]


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run(translator, wave, push=None):
    """Samples, words and source words of a stream."""
    state, outs = translator.init_state(), []
    for at in range(0, wave.size, push or wave.size):
        end = at + (push or wave.size)
        outs.append(translator.step(wave[at:end], state, is_last=end >= wave.size))
    return merge(outs)


def merge(outs):
    samples = np.concatenate([out.samples for out in outs])
    return samples, [word for out in outs for word in out.words], [word for out in outs for word in out.source_words]


def digest() -> str:
    """Digest of all output of a fixed stream with either vocoder; a separate process prints it below."""
    torch.set_num_threads(1)
    made = hashlib.sha256()
    for kind in VOCODERS:
        samples, words, source = run(make_translator(kind), noise(1.3), push=1_111)
        assert samples.size and words and source
        made.update(samples.tobytes() + repr(words + source).encode())
    return made.hexdigest()


def test_output_is_identical_in_another_process(tmp_path):
    """The other process has another hash seed, folder, clock and memory addresses."""
    code = "import test_determinism; print(test_determinism.digest())"
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "LC_ALL": "C", "TZ": "Asia/Tokyo", "PYTHONPATH": str(TESTS)}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-2_000:]
    assert result.stdout.split()[-1] == digest()


def test_output_does_not_depend_on_earlier_computations():
    translator, wave = make_translator("istft"), noise(1.0)
    first = run(translator, wave)
    torch.manual_seed(99)
    np.random.seed(99)
    run(translator, noise(0.7, 3), push=100)
    again = run(translator, wave)
    assert first[1:] == again[1:]
    np.testing.assert_array_equal(first[0], again[0])


@pytest.mark.parametrize("push", [160, 1_024, 16_000])
@pytest.mark.parametrize("kind", VOCODERS)
def test_output_is_identical_for_any_pushes(kind, push):
    translator, wave = make_translator(kind, segment_ms=80), noise(1.2, 2)
    whole, cut = run(translator, wave), run(translator, wave, push)
    assert whole[1:] == cut[1:]
    np.testing.assert_array_equal(whole[0], cut[0])


@pytest.mark.parametrize("kind", VOCODERS)
def test_batching_changes_rounding_only(kind, record_property):
    """Compare a stream alone with the same stream in batches of 2 to 5 with changing other streams."""
    translator, waves = make_translator(kind), [noise(seconds, seed) for seconds, seed in STREAMS]
    alone = [run(translator, wave) for wave in waves]
    worst = 0.0
    for size in range(2, len(waves) + 1):
        states, outs = [translator.init_state() for _ in waves[:size]], [[] for _ in waves[:size]]
        for at in range(0, max(wave.size for wave in waves), 4_000):
            live = [index for index in range(size) if not states[index].finished]
            pieces = [waves[index][at : at + 4_000] for index in live]
            ends = [at + 4_000 >= waves[index].size for index in live]
            for index, out in zip(live, translator.step_batch(pieces, [states[i] for i in live], ends), strict=True):
                outs[index].append(out)
        for expected, got in zip(alone, map(merge, outs), strict=False):
            assert got[1:] == expected[1:]
            worst = max(worst, float(np.abs(got[0] - expected[0]).max()))
            pcm, wanted = (np.frombuffer(to_s16le(one[0]), "<i2").astype(int) for one in (got, expected))
            assert np.abs(pcm - wanted).max() <= 1
    record_property(f"largest difference in a batch, {kind}", f"{worst:.1e}")
    assert worst <= ROUNDING


def test_number_of_threads_changes_rounding_only(record_property):
    translator, wave = make_translator("code_hifigan"), noise(1.5, 1)
    one = run(translator, wave)
    torch.set_num_threads(2)
    two = run(translator, wave)
    assert one[1:] == two[1:]
    worst = float(np.abs(one[0] - two[0]).max())
    record_property("largest difference between 1 and 2 threads", f"{worst:.1e}")
    assert worst <= ROUNDING
