"""Audio input in blocks of 16 kHz mono: equality with whole recordings, constant memory, and error messages."""

import io
import tracemalloc

import numpy as np
import pytest
import soundfile
import soxr
from encoded import Trickle
from memory import little_memory  # noqa: F401  # of every test here

from echostream.audio.errors import AudioError
from echostream.audio.input import open_audio, open_pcm

RATE = 44_100


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    """Two seconds of stereo, ``(n, 2)`` at 44.1 kHz."""
    return np.random.default_rng(0).normal(0, 0.1, (2 * RATE, 2)).astype(np.float32)


def joined(path, **options) -> np.ndarray:
    with open_audio(path, **options) as audio:
        return np.concatenate(list(audio))


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_streamed_equals_resampled_at_once(tmp_path, rate, channels):
    wave = np.random.default_rng(rate).normal(0, 0.1, (rate, channels)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", wave, rate, subtype="FLOAT")
    mono = wave[:, 0] if channels == 1 else wave.mean(axis=1)
    expected = soxr.resample(mono, rate, 16_000)
    for block_s in (0.0001, 0.04, 1.7):
        np.testing.assert_array_equal(joined(tmp_path / "a.wav", block_s=block_s), expected)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3", "a.aiff", "a.w64", "a.au", "a.caf"])
def test_formats_are_read_in_blocks_as_at_once(tmp_path, sound, name):
    soundfile.write(tmp_path / name, sound, RATE)
    whole, _ = soundfile.read(tmp_path / name, dtype="float32")
    expected = soxr.resample(whole.mean(axis=1), RATE, 16_000)
    np.testing.assert_allclose(joined(tmp_path / name), expected, atol=1e-6)


def test_blocks_have_the_requested_length(tmp_path, sound):
    soundfile.write(tmp_path / "a.flac", sound, RATE)
    with open_audio(tmp_path / "a.flac", block_s=0.3) as audio:
        assert audio.duration_s == 2 and audio.rate == RATE and audio.channels == 2
        sizes = [block.size for block in audio]
    assert sizes == [4800] * 6 + [3200]


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3", "a.aiff", "a.w64"])
def test_blocks_of_a_truncated_file_precede_the_error(tmp_path, sound, name):
    soundfile.write(tmp_path / name, sound, RATE)
    whole = joined(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    blocks = []
    with pytest.raises(AudioError, match=f"{name} is .*cut short after 0.[3-9]|{name} is .*cut short after 1.0"):
        blocks.extend(open_audio(tmp_path / name))
    got = np.concatenate(blocks)
    assert 5_000 < got.size < 20_000
    np.testing.assert_allclose(got[:-1000], whole[: got.size - 1000], atol=1e-4)


def test_wav_written_to_a_pipe_is_not_reported_as_truncated(tmp_path, sound):
    soundfile.write(tmp_path / "a.wav", sound, RATE)
    expected = joined(tmp_path / "a.wav")
    content = bytearray((tmp_path / "a.wav").read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = b"\xff\xff\xff\xff"
    (tmp_path / "a.wav").write_bytes(content)
    np.testing.assert_array_equal(joined(tmp_path / "a.wav"), expected)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.wav", b"", "is empty .0 bytes."),
        ("text.wav", b"no sound in here " * 99, "cannot read .*text.wav as audio: .*Format not recognised"),
        ("head.wav", b"RIFF\x24\x00\x00\x00WAVEfmt ", "cannot read .*head.wav as audio"),
    ],
)
def test_opening_rejects_files_that_are_not_audio(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AudioError, match=message):
        open_audio(tmp_path / name)


def test_missing_files_folders_and_empty_recordings_are_rejected(tmp_path):
    soundfile.write(tmp_path / "bare.wav", np.zeros(0), 16_000)
    for name, message in (("nowhere.wav", "no such file"), (".", "is not a file"), ("bare.wav", "holds no samples")):
        with pytest.raises(AudioError, match=message):
            open_audio(tmp_path / name)


@pytest.mark.parametrize(("value", "message"), [(np.nan, "NaN"), (-np.inf, "NaN"), (20_000.0, "up to 20000")])
def test_blocks_before_invalid_samples_precede_the_error(tmp_path, value, message):
    wave = np.full(16_000, 0.1, dtype=np.float32)
    wave[10_000] = value
    soundfile.write(tmp_path / "a.wav", wave, 16_000, subtype="FLOAT")
    blocks = []
    with pytest.raises(AudioError, match=f"{message}.* after 0.60 s"):
        blocks.extend(open_audio(tmp_path / "a.wav"))
    np.testing.assert_array_equal(np.concatenate(blocks), wave[:9600])


def test_clipping_gives_a_warning(tmp_path):
    tone = np.sin(np.arange(16_000) / 20)
    for gain, clipped in ((0.9, False), (1.5, True)):
        soundfile.write(tmp_path / "a.wav", np.clip(gain * tone, -1, 1), 16_000)
        with open_audio(tmp_path / "a.wav") as audio:
            assert sum(block.size for block in audio) == 16_000
            assert ("is clipped" in (audio.warning or "")) == clipped


def test_memory_does_not_grow_with_the_recording(tmp_path):
    peaks = []
    for seconds in (10, 120):
        with soundfile.SoundFile(tmp_path / "a.flac", "w", RATE, 2) as file:
            for _ in range(seconds):
                file.write(np.zeros((RATE, 2), dtype=np.int16))
        tracemalloc.start()
        with open_audio(tmp_path / "a.flac") as audio:
            assert sum(block.size for block in audio) == seconds * 16_000
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] < 2_000_000


@pytest.mark.parametrize("size", [1, 7, 5000])
@pytest.mark.parametrize("encoding", ["s16le", "f32le"])
def test_pipe_and_file_give_equal_blocks(sound, encoding, size):
    piece = sound[:3000]
    content = piece.astype("<f4") if encoding == "f32le" else np.round(piece * 32768).astype("<i2")
    expected = content.astype(np.float32) / (1 if encoding == "f32le" else 32768)
    with open_pcm(io.BufferedReader(Trickle(content.tobytes(), size)), RATE, 2, encoding) as audio:
        got = np.concatenate(list(audio))
    np.testing.assert_array_equal(got, soxr.resample(expected.mean(axis=1), RATE, 16_000))


def test_single_sample_is_accepted_and_incomplete_sample_rejected():
    assert [block.size for block in open_pcm(io.BytesIO(b"\0\1"), 16_000, 1, "s16le")] == [1]
    blocks = []
    with pytest.raises(AudioError, match="1 of 2 bytes"):
        blocks.extend(open_pcm(io.BytesIO(b"\0\1\0"), 16_000, 1, "s16le"))
    assert [block.size for block in blocks] == [1]


@pytest.mark.parametrize(("content", "message"), [(b"", "stdin is empty"), (b"RIFF" + bytes(99), "holds WAV, not raw")])
def test_pipe_without_raw_samples_is_rejected(content, message):
    with pytest.raises(AudioError, match=message):
        list(open_pcm(io.BytesIO(content), 16_000, 1, "s16le"))


def test_absurd_headers_are_rejected():
    with pytest.raises(AudioError, match="1 channels at 3 Hz"):
        open_pcm(io.BytesIO(b""), 3, 1, "s16le")


def test_speech_in_the_right_channel_alone_is_heard(tmp_path, sound):
    soundfile.write(tmp_path / "a.wav", sound * np.float32([0, 1]), RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "mono.wav", sound[:, 1], RATE, subtype="FLOAT")
    np.testing.assert_allclose(2 * joined(tmp_path / "a.wav"), joined(tmp_path / "mono.wav"), atol=1e-6)


def test_wav_whose_lengths_are_zero_is_not_taken_for_an_empty_recording(tmp_path, sound):
    soundfile.write(tmp_path / "a.wav", sound, RATE)
    content = bytearray((tmp_path / "a.wav").read_bytes())
    for at in (4, content.index(b"data") + 4):
        content[at : at + 4] = bytes(4)
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(AudioError, match="holds no samples; a recorder that was killed leaves such a header: sox"):
        open_audio(tmp_path / "a.wav")


def test_24_bit_extensible_is_read(tmp_path, sound):
    soundfile.write(tmp_path / "a.wav", sound, RATE, format="WAVEX", subtype="PCM_24")
    soundfile.write(tmp_path / "b.wav", sound, RATE, subtype="FLOAT")
    np.testing.assert_allclose(joined(tmp_path / "a.wav"), joined(tmp_path / "b.wav"), atol=1e-6)


def test_floating_point_above_full_scale_is_heard_with_a_warning(tmp_path, sound):
    loud = sound[:, 0] * (3.2 / np.abs(sound[:, 0]).max())
    soundfile.write(tmp_path / "a.wav", loud, 16_000, subtype="FLOAT")
    with open_audio(tmp_path / "a.wav") as audio:
        np.testing.assert_array_equal(np.concatenate(list(audio)), loud.astype(np.float32))
        assert audio.warning is not None and "is clipped" in audio.warning
