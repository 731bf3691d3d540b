"""Audio input in blocks of 16 kHz mono, from any file that libsndfile supports or as raw PCM from a pipe.

Files are read, mixed down and resampled (soxr) block by block, so that memory does not grow with their length. The
joined blocks equal the result of resampling the whole recording at once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from echostream.audio.downmix import Downmix
from echostream.audio.errors import AudioError
from echostream.constants import MAX_PEAK, PCM_FORMATS, SAMPLE_RATE

BLOCK_S = 0.04  # one encoder frame
PCM_TYPES: dict[str, np.dtype] = dict(zip(PCM_FORMATS, (np.dtype("<i2"), np.dtype("<f4")), strict=True))
RATES = range(4_000, 768_001)
MAX_CHANNELS = 64
FULL_SCALE = 0.999
CLIPPED_FRACTION = 0.005  # share of samples at full scale above which a warning is due; unclipped speech has fewer
FILE_SIGNATURES = {b"RIFF": "WAV", b"RF64": "WAV", b"fLaC": "FLAC", b"OggS": "Ogg", b"ID3": "MP3"}
# libsndfile's log line for a chunk that is shorter than its header says. Recorders that write to a pipe don't know the
# length and write about 2 or 4 GiB instead, which is no sign of a truncated file.
SHORT_CHUNK = re.compile(r"^\s*(data|SSND|riff) : (\d+) \(should be (\d+)\)", re.MULTILINE)
UNKNOWN_LENGTH = 0x7FFFF000
UNKNOWN_FRAMES = 2**62  # libsndfile's number for a stream without a length is 2**63 - 1


class _SequentialFile(soundfile.SoundFile):
    """A file for sequential reading.

    soundfile seeks in a seekable file after every read, which makes the MP3 decoder produce clicks.
    """

    def seekable(self) -> bool:
        return False


class AudioStream(Iterator[np.ndarray]):
    """Iterator over blocks of a recording, float32 ``(n,)`` at 16 kHz; the last block may be shorter than ``block_s``.

    It is also a context manager, and counts clipped samples for :attr:`warning`.

    Args:
        name: name of the recording for messages.
        chunks: float arrays ``(n, channels)`` at ``rate``.
        rate: sample rate of the source in Hz.
        channels: number of channels of the source; they are mixed down, see :class:`Downmix`.
        block_s: length of a block in seconds.
        duration_s: duration of the source in seconds, if it is known.
        source: file to close at the end.

    Raises:
        AudioError: the sample rate or the number of channels is out of range; or, during iteration, samples can't be
            used. All blocks before them are returned first.
        ValueError: ``block_s`` is not positive.
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
        self._read = self._clipped = 0  # number of samples over all channels
        self._blocks = self._split_into_blocks(max(round(block_s * SAMPLE_RATE), 1))

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
        """Problem of the audio read so far that does not prevent its use; None if there is none."""
        if self._clipped > CLIPPED_FRACTION * max(self._read, 1):
            return (
                f"{self.name} is clipped: {100 * self._clipped / self._read:.1f} % of its samples are at full scale; "
                "expect mistakes, and record at a lower level"
            )
        return None

    def _split_into_blocks(self, size: int) -> Iterator[np.ndarray]:
        """Blocks of ``size`` samples from pieces of any sizes."""
        pending: list[np.ndarray] = []
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
            pending.append(piece)
            length += len(piece)
            if length >= size:
                audio = np.concatenate(pending)
                whole = length - length % size
                yield from audio[:whole].reshape(-1, size)
                pending, length = [audio[whole:]], length - whole
        if length:
            yield np.concatenate(pending)
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
                yield _within_peak(resampler.resample_chunk(piece))
        except AudioError:
            yield resampler.resample_chunk(np.zeros(0, dtype=np.float32), last=True)
            raise
        yield resampler.resample_chunk(np.zeros(0, dtype=np.float32), last=True)

    def _mono(self) -> Iterator[np.ndarray]:
        if self.channels == 1:
            for chunk in self._checked():
                yield chunk[:, 0]
            return
        mixer = Downmix(self.channels, self.rate)
        try:
            for chunk in self._checked():
                yield mixer.push(chunk)
        except AudioError:
            yield mixer.flush()
            raise
        yield mixer.flush()

    def _checked(self) -> Iterator[np.ndarray]:
        """Chunks ``(n, channels)`` whose samples can be used."""
        frames = 0
        for chunk in self._chunks:
            chunk = chunk.astype(np.float32, copy=False)
            magnitude = np.abs(chunk)
            _check_samples(self.name, magnitude, frames / self.rate)
            self._read += magnitude.size
            self._clipped += int((magnitude >= FULL_SCALE).sum())
            frames += len(chunk)
            yield chunk


def open_audio(path: str | Path, block_s: float = BLOCK_S) -> AudioStream:
    """Open a recording in any format, sample rate and number of channels that libsndfile supports.

    Args:
        path: the file.
        block_s: length of a block in seconds.

    Returns:
        An iterator of float32 blocks ``(n,)``, 16 kHz mono.

    Raises:
        AudioError: the file is missing, empty or not audio; or, during iteration and after all blocks before the fault,
            it is truncated or damaged, or contains NaN or infinity.
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
    """Read a whole recording without mixing or resampling.

    Args:
        source: the path of a file, or an open binary file.
        name: name for messages; None: the path.

    Returns:
        Samples, float32 ``(n, channels)``, and the sample rate in Hz. A file without samples gives ``n = 0``.

    Raises:
        AudioError: the file is missing, empty, not audio, truncated or damaged, or contains NaN or infinity.
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


def duration_s(source: str | Path | BinaryIO, name: str | None = None) -> float:
    """Length of a recording in seconds from its header, without decoding it; NaN if the header doesn't say.

    Args:
        source: the path of a file, or an open binary file.
        name: name for messages; None: the path.

    Raises:
        AudioError: the file is missing, empty or not audio.
    """
    path = Path(source) if isinstance(source, str | Path) else source
    with _open(path, name or str(source)) as file:
        return file.frames / file.samplerate if 0 <= file.frames < UNKNOWN_FRAMES else math.nan


def _open(source: Path | BinaryIO, name: str) -> soundfile.SoundFile:
    """Open the decoder of a file.

    Raises:
        AudioError: the file is missing or empty, or libsndfile can't decode it.
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
    """Check the magnitudes of samples that start at ``at_s`` seconds.

    Raises:
        AudioError: they contain NaN, infinity or values that are too large.
    """
    if not np.isfinite(magnitude).all():
        raise AudioError(f"{name} holds NaN or infinity after {at_s:.2f} s: repair the recording")
    if magnitude.size and (peak := magnitude.max()) > MAX_PEAK:
        raise AudioError(
            f"{name} holds samples up to {peak:.0f} after {at_s:.2f} s: floating point must lie in [-1, 1]; "
            "divide integers by 32768"
        )


def _within_peak(samples: np.ndarray) -> np.ndarray:
    """A resampler may go beyond what it was given, which was checked."""
    return np.clip(samples, -MAX_PEAK, MAX_PEAK, out=samples)


def _file_chunks(name: str, file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    """Chunks ``(n, channels)`` of 40 ms.

    Raises:
        AudioError: the file is damaged, or ends earlier than its header says.
    """
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
    """Why a file is truncated if reading it to its end gave ``frames`` frames; None if it is complete."""
    if file.frames - frames > file.samplerate // 10:
        return f"it says to be {file.frames / file.samplerate:.2f} s long"
    for _, declared, actual in SHORT_CHUNK.findall(file.extra_info):
        if int(actual) < int(declared) < UNKNOWN_LENGTH:
            return f"its header promises {int(declared) - int(actual)} bytes more"
    if "lacks an end-of-stream bit" in file.extra_info:
        return "its last page is missing"
    return None


def open_pcm(
    stream: BinaryIO, rate: int, channels: int, encoding: str, block_s: float = BLOCK_S, name: str = "stdin"
) -> AudioStream:
    """Read raw PCM from a pipe; every block is available as soon as its samples have arrived.

    Args:
        stream: buffered binary reader.
        rate: sample rate in Hz.
        channels: number of interleaved channels.
        encoding: ``s16le`` or ``f32le``.
        block_s: length of a block in seconds.
        name: name for messages.

    Raises:
        AudioError: the sample rate or the number of channels is out of range; or, during iteration, the stream is
            empty, starts with a file header, ends inside a sample, or contains NaN or infinity.
        ValueError: the encoding is unknown.
    """
    if encoding not in PCM_TYPES:
        raise ValueError(f"unknown PCM encoding '{encoding}': choose one of {', '.join(PCM_TYPES)}")
    return AudioStream(name, _pcm_chunks(stream, rate, channels, PCM_TYPES[encoding], name), rate, channels, block_s)


def _pcm_chunks(stream: BinaryIO, rate: int, channels: int, dtype: np.dtype, name: str) -> Iterator[np.ndarray]:
    frame_bytes = channels * dtype.itemsize
    max_bytes = frame_bytes * max(round(rate * BLOCK_S), 1)
    scale = np.float32(32768 if dtype.kind == "i" else 1)
    data = stream.read(4)  # enough to recognise the header of a file
    if not data:
        raise AudioError(f"{name} is empty: no audio came")
    for signature, kind in FILE_SIGNATURES.items():
        if data.startswith(signature):
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
        data = stream.read1(max_bytes)  # type: ignore[attr-defined]  # buffered readers have this method
    if rest:
        raise AudioError(f"{name} ended inside a sample, {len(rest)} of {frame_bytes} bytes: check format and channels")
