"""Mixing down loses nothing, whatever the phases of the channels, and does not depend on the pieces."""

import numpy as np
import pytest
import soundfile
from memory import little_memory  # noqa: F401  # of every test here

from echostream.audio.downmix import Downmix, mix_down
from echostream.audio.input import open_audio

RATE = 16_000


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """A sound with pauses."""
    time_s = np.arange(2 * RATE) / RATE
    noise = np.random.default_rng(0).normal(0, 0.2, time_s.size)
    return (noise * np.maximum(0, np.sin(2 * np.pi * 1.5 * time_s))).astype(np.float32)


def loudness(wave: np.ndarray) -> float:
    return float(np.sqrt(np.square(wave).mean()))


CHANNELS = {
    "in phase": lambda wave: [wave, wave],
    "in opposite phase": lambda wave: [wave, -wave],
    "in opposite phase, one quieter": lambda wave: [wave, -0.8 * wave],
    "three against three": lambda wave: [wave, -wave] * 3,
    "turning round half way": lambda wave: [wave, np.where(np.arange(wave.size) < wave.size // 2, wave, -wave)],
    "right alone": lambda wave: [0 * wave, wave],
    "unrelated": lambda wave: [wave, np.roll(wave, 4_321)],
    "silent": lambda wave: [0 * wave, 0 * wave],
}


@pytest.mark.parametrize("name", CHANNELS)
def test_nothing_is_lost_and_pieces_do_not_matter(speech, name):
    channels = np.stack(CHANNELS[name](speech), axis=1)
    mono = mix_down(channels, RATE)
    assert mono.dtype == np.float32 and mono.shape == speech.shape
    assert loudness(mono) >= 0.45 * max(loudness(channels[:, 0]), loudness(channels[:, 1]))
    if "opposite" in name or "against" in name or "turning" in name:
        assert np.abs(np.abs(mono) - np.abs(channels).mean(axis=1)).max() < 1e-6
    else:
        np.testing.assert_array_equal(mono, channels.mean(axis=1))
    cuts = np.sort(np.random.default_rng(1).integers(0, speech.size, 99))
    mixer = Downmix(channels.shape[1], RATE)
    pieces = [mixer.push(piece) for piece in np.split(channels, cuts)]
    np.testing.assert_array_equal(np.concatenate([*pieces, mixer.flush()]), mono)


def test_many_unrelated_channels_are_their_mean():
    channels = np.random.default_rng(0).normal(0, 0.1, (RATE, 64)).astype(np.float32)
    np.testing.assert_array_equal(mix_down(channels, RATE), channels.mean(axis=1))


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_recording_in_opposite_phase_keeps_its_speech(tmp_path, speech, rate):
    soundfile.write(tmp_path / "a.wav", np.stack([speech, -speech], axis=1), rate, subtype="FLOAT")
    soundfile.write(tmp_path / "mono.wav", speech, rate, subtype="FLOAT")
    heard, expected = (np.concatenate(list(open_audio(tmp_path / name))) for name in ("a.wav", "mono.wav"))
    np.testing.assert_allclose(heard, expected, atol=1e-5)
