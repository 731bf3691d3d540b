"""Audio in, in blocks: any file that libsndfile reads, or raw PCM from a pipe, as 16 kHz mono.

Files are read, mixed down and resampled (soxr) block by block, so memory does not grow with their length, and the
blocks joined together are what resampling the whole recording at once gives.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from echostream.audio.errors import AudioError
from echostream.constants import PCM_FORMATS, SAMPLE_RATE

BLOCK_S = 0.04  # an encoder frame
PCM_TYPES: dict[str, np.dtype] = dict(zip(PCM_FORMATS, (np.dtype("<i2"), np.dtype("<f4")), strict=True))
RATES = range(4_000, 768_001)
MAX_CHANNELS = 64
FULL_SCALE = 0.999
CLIPPED_FRACTION = 0.005  # speech that is not clipped touches full scale now and then at most
MAX_PEAK = 16.0  # floats beyond are integers that nobody scaled
FILE_MARKS = {b"RIFF": "WAV", b"RF64": "WAV", b"fLaC": "FLAC", b"OggS": "Ogg", b"ID3": "MP3"}
# libsndfile's note of a chunk that says to be longer than the file holds; recorders that write to a pipe put a
# length of about 2 or 4 GiB there, which promises nothing.
SHORT_CHUNK = re.compile(r"^\s*(data|SSND|riff) : (\d+) \(should be (\d+)\)", re.MULTILINE)
UNKNOWN_LENGTH = 0x7FFFF000


class _SequentialFile(soundfile.SoundFile):
    """A file that is read from its start to its end.

    A seekable one is put to its place again after every read, which an MP3 decoder pays for with clicks.
    """

    def seekable(self) -> bool:
        return False


class AudioStream(Iterator[np.ndarray]):
    """Blocks of a recording, float32 ``(n,)`` at 16 kHz: ``block_s`` long but for the last one.

    A context manager; it also keeps count of what a warning may be due for.

    Args:
        name: of the recording, for messages.
        chunks: float arrays ``(n, channels)`` at ``rate``.
        rate: of the source in Hz.
        channels: of the source, mixed down by their mean.
        block_s: length of a block in seconds.
        duration_s: of the source if it is known.
        source: what to close in the end.

    Raises:
        AudioError: while iterating, samples that can't be used, once the blocks before have been given out.
    """

    def __init__(
        self,
        name: str,
        chunks: Iterator[np.ndarray],
        rate: int,
        channels: int,
        block_s: float = BLOCK_S,
        duration_s: float | None = None,
        source: soundfile.SoundFile | None = None,
    ) -> None:
        if rate not in RATES or not 1 <= channels <= MAX_CHANNELS:
            raise AudioError(
                f"{name} says it has {channels} channels at {rate} Hz: {RATES.start} to {RATES.stop - 1} Hz and up to "
                f"{MAX_CHANNELS} channels can be read"
            )
        if block_s <= 0:
            raise ValueError(f"block_s must be positive, got {block_s}")
        self.name, self.rate, self.channels, self.duration_s = name, rate, channels, duration_s
        self._chunks, self._source = chunks, source
        self._read = self._clipped = 0  # samples of all channels
        self._blocks = self._cut(max(round(block_s * SAMPLE_RATE), 1))

    def __next__(self) -> np.ndarray:
        return next(self._blocks)

    def __enter__(self) -> AudioStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._source is not None:
            self._source.close()

    @property
    def warning(self) -> str | None:
        """What is wrong with the audio read so far without making it useless."""
        if self._clipped > CLIPPED_FRACTION * max(self._read, 1):
            return (
                f"{self.name} is clipped: {100 * self._clipped / self._read:.1f} % of its samples are at full scale; "
                "expect mistakes, and record at a lower level"
            )
        return None

    def _cut(self, size: int) -> Iterator[np.ndarray]:
        """Blocks of ``size`` samples out of pieces of any sizes."""
        waiting: list[np.ndarray] = []
        length = 0
        failure = None
        pieces = self._resampled()
        while True:
            try:
                piece = next(pieces, None)
            except AudioError as error:
                piece, failure = None, error
            if piece is None:
                break
            waiting.append(piece)
            length += len(piece)
            if length >= size:
                audio = np.concatenate(waiting)
                whole = length - length % size
                yield from audio[:whole].reshape(-1, size)
                waiting, length = [audio[whole:]], length - whole
        if length:
            yield np.concatenate(waiting)
        if failure is not None:
            raise failure

    def _resampled(self) -> Iterator[np.ndarray]:
        """Mono pieces at 16 kHz."""
        if self.rate == SAMPLE_RATE:
            yield from self._mono()
            return
        resampler = soxr.ResampleStream(self.rate, SAMPLE_RATE, 1, dtype="float32")
        try:
            for piece in self._mono():
                yield resampler.resample_chunk(piece)
        except AudioError:
            yield resampler.resample_chunk(np.zeros(0, dtype=np.float32), last=True)
            raise
        yield resampler.resample_chunk(np.zeros(0, dtype=np.float32), last=True)

    def _mono(self) -> Iterator[np.ndarray]:
        frames = 0
        for chunk in self._chunks:
            chunk = chunk.astype(np.float32, copy=False)
            magnitude = np.abs(chunk)
            _check_samples(self.name, magnitude, frames / self.rate)
            self._read += magnitude.size
            self._clipped += int((magnitude >= FULL_SCALE).sum())
            frames += len(chunk)
            yield chunk[:, 0] if chunk.shape[1] == 1 else chunk.mean(axis=1)


def open_audio(path: str | Path, block_s: float = BLOCK_S) -> AudioStream:
    """Blocks of a recording in any format, sample rate and channel count that libsndfile reads.

    Args:
        path: of the file.
        block_s: length of a block in seconds.

    Returns:
        an iterator of float32 blocks ``(n,)``, 16 kHz mono.

    Raises:
        AudioError: a file that is missing, empty or no audio; and, while iterating, when the blocks up to there
            have been given out: one that is cut short or damaged, or holds NaN or infinity.
    """
    path = Path(path)
    file = _open(path, str(path))
    if not file.frames:
        file.close()
        raise AudioError(
            f"{path} holds no samples; a recorder that was killed leaves such a header: sox --ignore-length IN OUT"
        )
    duration_s = file.frames / file.samplerate
    try:
        return AudioStream(
            str(path), _file_chunks(str(path), file), file.samplerate, file.channels, block_s, duration_s, file
        )
    except ValueError:
        file.close()
        raise


def read_audio(source: str | Path | BinaryIO, name: str | None = None) -> tuple[np.ndarray, int]:
    """A whole recording as it is.

    Args:
        source: a file, or its content.
        name: for messages; that of the file where it is left out.

    Returns:
        float32 ``(n, channels)`` and the sample rate in Hz.

    Raises:
        AudioError: as :func:`open_audio`, but at once; no samples are none.
    """
    path = Path(source) if isinstance(source, str | Path) else source
    name = name or str(source)
    with _open(path, name) as file:
        chunks, frames = [np.zeros((0, file.channels), dtype=np.float32)], 0
        for chunk in _file_chunks(name, file):
            _check_samples(name, np.abs(chunk), frames / file.samplerate)
            frames += len(chunk)
            chunks.append(chunk)
        return np.concatenate(chunks), file.samplerate


def _open(source: Path | BinaryIO, name: str) -> soundfile.SoundFile:
    """The decoder of a file, or of its content.

    Raises:
        AudioError: there is none.
    """
    try:
        if isinstance(source, Path):
            if not source.is_file():
                raise AudioError(f"{name} is not a file" if source.exists() else f"no such file: {name}")
            if not source.stat().st_size:
                raise AudioError(f"{name} is empty (0 bytes)")
        file = _SequentialFile(source)
    except PermissionError as error:
        raise AudioError(f"cannot read {name}: permission denied") from error
    except (OSError, TypeError, soundfile.LibsndfileError) as error:
        reason = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
        raise AudioError(
            f"cannot read {name} as audio: {reason.rstrip('.')}; wav, flac, ogg, mp3, aiff and the like are read, "
            "convert others"
        ) from error
    return file


def _check_samples(name: str, magnitude: np.ndarray, at_s: float) -> None:
    """Refuse samples that can't be used, given their magnitudes and where they begin."""
    if not np.isfinite(magnitude).all():
        raise AudioError(f"{name} holds NaN or infinity after {at_s:.2f} s: repair the recording")
    if magnitude.size and (peak := magnitude.max()) > MAX_PEAK:
        raise AudioError(
            f"{name} holds samples up to {peak:.0f} after {at_s:.2f} s: floating point must lie in [-1, 1]; "
            "divide integers by 32768"
        )


def _file_chunks(name: str, file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    """Chunks ``(n, channels)`` of 40 ms to the end of the file, which must be where it was said to be."""
    size = max(round(file.samplerate * BLOCK_S), 1)
    frames = 0
    while True:
        try:
            chunk = file.read(size, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise AudioError(
                f"{name} is damaged or cut short after {frames / file.samplerate:.2f} s of "
                f"{file.frames / file.samplerate:.2f} s: {error.error_string.rstrip('.')}; copy it again"
            ) from error
        if not len(chunk):
            break
        frames += len(chunk)
        yield chunk
    if reason := _cut_short(file, frames):
        raise AudioError(f"{name} is cut short after {frames / file.samplerate:.2f} s: {reason}; copy it again")


def _cut_short(file: soundfile.SoundFile, frames: int) -> str | None:
    """Why a file that was read to its end, ``frames`` long, is not whole."""
    if file.frames - frames > file.samplerate // 10:
        return f"it says to be {file.frames / file.samplerate:.2f} s long"
    for _, said, held in SHORT_CHUNK.findall(file.extra_info):
        if int(held) < int(said) < UNKNOWN_LENGTH:
            return f"its header promises {int(said) - int(held)} bytes more"
    if "lacks an end-of-stream bit" in file.extra_info:
        return "its last page is missing"
    return None


def open_pcm(
    stream: BinaryIO, rate: int, channels: int, encoding: str, block_s: float = BLOCK_S, name: str = "stdin"
) -> AudioStream:
    """Blocks of raw PCM from a pipe, each given out as soon as it has come.

    Args:
        stream: buffered binary reader.
        rate: in Hz.
        channels: interleaved.
        encoding: ``s16le`` or ``f32le``.
        block_s: length of a block in seconds.
        name: for messages.

    Raises:
        AudioError: while iterating, a stream that is empty, has a file header or holds NaN or infinity.
    """
    if encoding not in PCM_TYPES:
        raise ValueError(f"unknown PCM encoding '{encoding}': choose one of {', '.join(PCM_TYPES)}")
    return AudioStream(name, _pcm_chunks(stream, rate, channels, PCM_TYPES[encoding], name), rate, channels, block_s)


def _pcm_chunks(stream: BinaryIO, rate: int, channels: int, dtype: np.dtype, name: str) -> Iterator[np.ndarray]:
    frame_bytes = channels * dtype.itemsize
    most = frame_bytes * max(round(rate * BLOCK_S), 1)
    scale = np.float32(32768 if dtype.kind == "i" else 1)
    data = stream.read(4)  # enough to know a file's header
    if not data:
        raise AudioError(f"{name} is empty: no audio came")
    for mark, kind in FILE_MARKS.items():
        if data.startswith(mark):
            raise AudioError(
                f"{name} is a {kind} file, not raw PCM: give the file's name instead of -, "
                "or convert it: sox IN -t s16 -r 16000 -c 1 -"
            )
    rest = b""
    while data:
        data = rest + data
        whole = len(data) - len(data) % frame_bytes
        rest = data[whole:]
        if whole:
            yield np.frombuffer(data[:whole], dtype).reshape(-1, channels).astype(np.float32) / scale
        data = stream.read1(most)  # type: ignore[attr-defined]  # buffered readers have it
    if rest:
        raise AudioError(f"{name} ended inside a sample, {len(rest)} of {frame_bytes} bytes: check format and channels")
