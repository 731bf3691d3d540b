"""Recordings of telephones, browsers and cameras, from files and pipes: FFmpeg decodes what libsndfile can't."""

import io
import tempfile
import tracemalloc

import numpy as np
import pytest
import soundfile
from encoded import FORMATS, RATE, Trickle, encode, encoded, pipe_of
from memory import little_memory  # noqa: F401  # of every test here

from echostream.audio.errors import AudioError
from echostream.audio.input import AudioStream, open_audio, open_pcm, open_pipe
from echostream.audio.signatures import FRAMED_BYTES, HEAD_BYTES, container_kind, other_kind


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """Two seconds with the spectrum of speech, which any codec keeps, and loud in places only."""
    rng = np.random.default_rng(0)
    time_s = np.arange(2 * RATE) / RATE
    tones = sum(np.sin(2 * np.pi * hertz * time_s + rng.uniform(0, 6)) for hertz in (130, 410, 900, 1700))
    return (0.1 * tones * (1.2 + np.sin(2 * np.pi * 3 * time_s))).astype(np.float32)


@pytest.fixture(scope="module")
def files(speech) -> dict[str, bytes]:
    """The recording in every format, as bytes."""
    return {suffix: encoded(speech, suffix) for suffix in FORMATS}


def joined(audio: AudioStream) -> np.ndarray:
    with audio:
        return np.concatenate(list(audio))


def likeness(got: np.ndarray, speech: np.ndarray) -> float:
    """Correlation at the best shift: decoders begin a little later or earlier."""
    size = 2 * max(len(got), len(speech))
    product = np.fft.irfft(np.fft.rfft(got, size) * np.conj(np.fft.rfft(speech, size)), size)
    return product.max() / np.linalg.norm(got) / np.linalg.norm(speech)


@pytest.mark.parametrize("suffix", FORMATS)
def test_any_format_is_read_from_a_file_and_from_a_pipe(files, speech, tmp_path, suffix):
    (tmp_path / f"talk{suffix}").write_bytes(files[suffix])
    from_file = joined(open_audio(tmp_path / f"talk{suffix}"))
    from_pipe = joined(open_pipe(pipe_of(files[suffix])))
    for got in (from_file, from_pipe):
        assert abs(len(got) - len(speech)) < 0.1 * RATE
        assert likeness(got, speech) > 0.9
    assert likeness(from_pipe, from_file) > 0.999


@pytest.mark.parametrize(
    ("subtype", "channels"), [("PCM_16", 2), ("PCM_32", 1), ("FLOAT", 1), ("PCM_24", 1), ("ULAW", 6)]
)
def test_wav_through_a_pipe_gives_the_samples_of_the_file(tmp_path, subtype, channels):
    wave = np.random.default_rng(1).normal(0, 0.1, (4000, channels))
    soundfile.write(tmp_path / "a.wav", wave, RATE, subtype=subtype)
    expected = joined(open_audio(tmp_path / "a.wav"))
    content = (tmp_path / "a.wav").read_bytes()
    np.testing.assert_allclose(joined(open_pipe(pipe_of(content, 7))), expected, atol=1e-7)
    at = content.index(b"data") + 4
    endless = content[:at] + b"\xff\xff\xff\xff" + content[at + 4 :]  # as a recorder writes that can't know the length
    np.testing.assert_allclose(joined(open_pipe(pipe_of(endless))), expected, atol=1e-7)


@pytest.mark.parametrize(("suffix", "bytes_before"), [(".wav16", 8192), (".webm", 16_384), (".mp3", 65_536)])
def test_a_pipe_is_decoded_while_it_comes(speech, suffix, bytes_before):
    long = np.tile(speech, 15)
    if suffix == ".wav16":
        file = io.BytesIO()
        soundfile.write(file, long, RATE, format="WAV")
        content = file.getvalue()
    else:
        content = encoded(long, suffix)
    source = Trickle(content, 512)
    assert len(content) > 2 * bytes_before
    with open_pipe(io.BufferedReader(source, 512)) as audio:
        assert next(audio).size and source.given <= bytes_before


def test_an_mp4_with_its_index_at_the_end_is_kept_on_disk_and_others_are_not(speech, files, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(AudioError, match=r"cannot keep stdin in .*nowhere"):
        open_pipe(pipe_of(files[".m4a"]))
    encode(speech, tmp_path / "first.m4a", ".m4a", options={"movflags": "faststart"})
    assert likeness(joined(open_pipe(pipe_of((tmp_path / "first.m4a").read_bytes()))), speech) > 0.9


def test_videos_give_their_sound(speech, tmp_path):
    for suffix in (".mp4", ".mkv"):
        encode(speech, tmp_path / f"a{suffix}", suffix, with_video=True)
        with open_audio(tmp_path / f"a{suffix}") as audio:
            assert audio.duration_s == pytest.approx(2, abs=0.1)
            assert likeness(np.concatenate(list(audio)), speech) > 0.9


def test_files_without_sound_are_named_for_what_they_are(files, tmp_path):
    import av

    with av.open(str(tmp_path / "silent.mp4"), "w") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        file.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        file.mux(stream.encode(None))
    (tmp_path / "list.m3u8").write_text(f"#EXTM3U\n#EXTINF:2,\n{tmp_path}/a.ts\n#EXT-X-ENDLIST\n")
    (tmp_path / "a.ts").write_bytes(files[".ts"])
    (tmp_path / "half.m4a").write_bytes(files[".m4a"][: len(files[".m4a"]) // 2])
    for name, message in (
        ("silent.mp4", "silent.mp4 has no sound track"),
        ("list.m3u8", "Format not recognised"),  # it would read other files
        ("half.m4a", "is a damaged or unusual MP4 file: .*; copy it again"),
    ):
        with pytest.raises(AudioError, match=message):
            open_audio(tmp_path / name)
    for content, message in (
        (b"", "stdin is empty"),
        (b"bonjour tout le monde, comment allez-vous ?\n", "stdin is text, not audio"),
        (b"PK\x03\x04" + bytes(99), "stdin is a ZIP archive"),
        (files[".m4a"][:900], "stdin is a damaged or unusual MP4 file"),
        (b"fLaC" + bytes(99), "stdin is a damaged or unusual FLAC file"),
    ):
        with pytest.raises(AudioError, match=message):
            list(open_pipe(pipe_of(content)))
    for suffix in (".mp3", ".m4a", ".webm", ".flac"):
        with pytest.raises(AudioError, match="not raw PCM"):
            open_pcm(pipe_of(files[suffix]), RATE, 1, "s16le")


@pytest.mark.parametrize(
    ("suffix", "message"), [(".mkv", "is cut short after"), (".aac", "damaged or cut short after")]
)
def test_blocks_of_a_truncated_recording_precede_the_error(files, speech, suffix, message):
    content = files[suffix][: len(files[suffix]) // 2]
    blocks = []
    with pytest.raises(AudioError, match=message):
        blocks.extend(open_pipe(pipe_of(content)))
    got = np.concatenate(blocks)
    assert 0.5 * RATE < got.size < 1.5 * RATE and likeness(got, speech[: got.size]) > 0.9


def test_a_wav_that_ends_too_early_is_reported(tmp_path, speech):
    soundfile.write(tmp_path / "a.wav", speech, RATE)
    with pytest.raises(AudioError, match="promises 20000 bytes more"):
        list(open_pipe(pipe_of((tmp_path / "a.wav").read_bytes()[:-20_000])))


def test_a_damaged_place_is_left_out_with_a_warning_and_many_are_an_error(files, speech):
    content = bytearray(encoded(np.tile(speech, 5), ".aac"))
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    with open_pipe(pipe_of(bytes(content))) as audio:
        size = sum(block.size for block in audio)
        assert size > 9 * RATE and "left out" in audio.warning
    for at in range(2000, len(content) - 2000, 600):
        content[at : at + 60] = bytes(60)
    with pytest.raises(AudioError, match="packets can't be decoded; copy it again"):
        list(open_pipe(pipe_of(bytes(content))))


def test_a_small_file_that_decodes_to_much_is_never_in_memory_as_a_whole():
    peaks, sizes = [], []
    for seconds in (30, 300):
        content = encoded(np.zeros(seconds * RATE, dtype=np.float32), ".mkv")
        sizes.append(len(content))
        tracemalloc.start()
        with open_pipe(io.BufferedReader(io.BytesIO(content))) as audio:
            assert sum(block.size for block in audio) == seconds * RATE
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert sizes[1] < 100_000  # of 19 MB of samples
    assert peaks[1] < 1.5 * peaks[0] < 2_000_000


def test_raw_samples_are_never_taken_for_a_file():
    rng = np.random.default_rng(2)
    for loudness in (0.001, 0.01, 0.1, 0.5, 2):
        noise = np.clip(rng.normal(0, loudness, 400_000), -1, 1)
        raw = np.round(noise * 32767).astype("<i2").tobytes()
        for at in range(0, 100_000, 2):
            head = raw[at : at + FRAMED_BYTES]
            if head[0] != 0xFF and at % 64:  # most beginnings can't be one of frames; a part of them is enough
                continue
            assert container_kind(head) is None and other_kind(head[:HEAD_BYTES]) is None
    # A tone that begins as the header of an MP3 frame does is no MP3.
    assert container_kind(b"\xff\xfb\x90\x00" + bytes(FRAMED_BYTES)) is None


@pytest.mark.parametrize("suffix", [".m4a", ".webm", ".wma", ".ts", ".wav"])
def test_whatever_is_damaged_ends_with_samples_or_in_one_line(files, suffix):
    rng = np.random.default_rng(3)
    results = set()
    for _ in range(25):
        content = bytearray(files[suffix])
        for at in rng.integers(0, rng.choice([64, 1000, len(content)]), rng.choice([1, 20])):
            content[min(at, len(content) - 1)] = rng.integers(256)
        try:
            results.add(np.isfinite(joined(open_pipe(pipe_of(bytes(content))))).all())
        except AudioError as error:
            results.add("\n" not in str(error) and "stdin" in str(error))
    assert results == {True}


def test_titles_in_another_encoding_do_no_harm():
    content = encoded(np.zeros(RATE), ".flac", title="Caf\xe9")
    assert b"Caf\xc3\xa9" in content
    latin = content.replace(b"Caf\xc3\xa9", b"Caf\xe9\xe9")
    assert joined(open_pipe(pipe_of(latin))).size == RATE
