"""Audio input in blocks of 16 kHz mono, from any recording, or from a pipe with a recording or raw samples in it.

Recordings are read, mixed down and resampled (soxr) block by block, so that memory grows neither with their length nor
with what they decode to. The joined blocks equal the result of resampling the whole recording at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import soxr

from echostream.audio.downmix import Downmix
from echostream.audio.errors import AudioError, UnknownFormatError
from echostream.audio.media import ANY_RECORDING, MediaFile
from echostream.audio.pipe import Pipe, needs_seeking, on_disk
from echostream.audio.raw import PCM_TYPES, SampleFormat, pcm_chunks, read_wav_header
from echostream.audio.signatures import FRAMED_BYTES, HEAD_BYTES, container_kind, may_be_framed, other_kind
from echostream.audio.sndfile import open_sound_file, sound_file_chunks
from echostream.constants import FRAME_S, MAX_PEAK, SAMPLE_RATE

BLOCK_S = FRAME_S
RATES = range(4_000, 768_001)
MAX_CHANNELS = 64
FULL_SCALE = 0.999
CLIPPED_FRACTION = 0.005  # share of samples at full scale above which a warning is due; unclipped speech has fewer
UNKNOWN_FRAMES = 2**62  # libsndfile's number for a stream without a length is 2**63 - 1


class Source(Protocol):
    """What blocks come from, to be closed in the end."""

    def close(self) -> None: ...


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
        source: to close at the end.

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
        source: Source | None = None,
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
        return self._source.warning if isinstance(self._source, MediaFile) else None

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


def open_audio(path: str | Path, block_s: float = BLOCK_S, name: str | None = None) -> AudioStream:
    """Open a recording in any format, sample rate and number of channels that libsndfile or FFmpeg can decode.

    Args:
        path: the file; of a video, its sound is read.
        block_s: length of a block in seconds.
        name: name for messages; None: the path.

    Returns:
        An iterator of float32 blocks ``(n,)``, 16 kHz mono.

    Raises:
        AudioError: the file is missing, empty or not audio; or, during iteration and after all blocks before the fault,
            it is truncated or damaged, or contains NaN or infinity.
    """
    path = Path(path)
    name = name or str(path)
    try:
        file = open_sound_file(path, name)
    except UnknownFormatError as error:
        return _stream_of(_media_file(path, name, error), name, block_s)
    if not file.frames:
        file.close()
        raise AudioError(
            f"{name} holds no samples; a recorder that was killed leaves such a header: sox --ignore-length IN OUT"
        )
    duration_s = file.frames / file.samplerate
    try:
        return AudioStream(
            name, sound_file_chunks(name, file), file.samplerate, file.channels, block_s, duration_s, file
        )
    except ValueError:
        file.close()
        raise


def open_pipe(stream: BinaryIO, block_s: float = BLOCK_S, name: str = "stdin") -> AudioStream:
    """Read a recording from a pipe, in any format that is recognised by its beginning, or else raw samples.

    What comes is decoded as it comes; only an MP4 with its index at the end is first kept on disk. Raw samples are
    taken for 16-bit little-endian, 16 kHz, one channel; :func:`open_pcm` reads others.

    Args:
        stream: buffered binary reader.
        block_s: length of a block in seconds.
        name: name for messages.

    Raises:
        AudioError: it is a file without sound; or, during iteration, as :func:`open_audio` and :func:`open_pcm`.
    """
    pipe = Pipe(stream)
    kind = _container_in(pipe, name)
    if kind is None:
        return _raw_stream(pipe, SampleFormat(SAMPLE_RATE, 1, PCM_TYPES["s16le"]), block_s, name)
    if kind == "WAV" and (samples := read_wav_header(pipe)) is not None:
        return _raw_stream(pipe, samples, block_s, name)
    source = on_disk(pipe, name) if kind == "MP4" and needs_seeking(pipe) else pipe
    try:
        media = MediaFile(source, name)
    except UnknownFormatError as error:
        raise AudioError(f"{name} is a damaged or unusual {kind} file: {error.reason}; copy it again") from error
    return _stream_of(media, name, block_s)


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
        AudioError: the sample rate or the number of channels is out of range, or it is a file; or, during iteration,
            the stream is empty, ends inside a sample, or contains NaN or infinity.
        ValueError: the encoding is unknown.
    """
    if encoding not in PCM_TYPES:
        raise ValueError(f"unknown PCM encoding '{encoding}': choose one of {', '.join(PCM_TYPES)}")
    samples = SampleFormat(rate, channels, PCM_TYPES[encoding])
    pipe = Pipe(stream)
    if kind := _container_in(pipe, name):
        raise AudioError(
            f"{name} holds {kind}, not raw PCM: it says itself what it holds, leave the format of samples out"
        )
    return _raw_stream(pipe, samples, block_s, name)


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
    with open_sound_file(path, name) as file:
        chunks, frames = [np.zeros((0, file.channels), dtype=np.float32)], 0
        for chunk in sound_file_chunks(name, file):
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
    with open_sound_file(path, name or str(source)) as file:
        return file.frames / file.samplerate if 0 <= file.frames < UNKNOWN_FRAMES else math.nan


def _media_file(path: Path, name: str, unknown: UnknownFormatError) -> MediaFile:
    """A recording that libsndfile doesn't know.

    Raises:
        AudioError: FFmpeg doesn't know it either, or can't use it.
    """
    try:
        return MediaFile(path, name)
    except UnknownFormatError as error:
        with path.open("rb") as file:
            kind = container_kind(file.read(FRAMED_BYTES))
        if kind is None or kind == "WAV":
            raise UnknownFormatError(name, unknown.reason, ANY_RECORDING) from error
        raise AudioError(f"{name} is a damaged or unusual {kind} file: {error.reason}; copy it again") from error


def _stream_of(media: MediaFile, name: str, block_s: float) -> AudioStream:
    try:
        return AudioStream(name, media.chunks(), media.rate, media.channels, block_s, media.duration_s, media)
    except ValueError:
        media.close()
        raise


def _raw_stream(pipe: Pipe, samples: SampleFormat, block_s: float, name: str) -> AudioStream:
    return AudioStream(name, pcm_chunks(pipe, samples, name), samples.rate, samples.channels, block_s)


def _container_in(pipe: Pipe, name: str) -> str | None:
    """The kind of file that a pipe holds; None: raw samples.

    Raises:
        AudioError: it is a file without sound.
    """
    head = pipe.peek(HEAD_BYTES)
    kind = container_kind(head)
    if kind is None and may_be_framed(head):
        kind = container_kind(pipe.peek(FRAMED_BYTES))
    if kind is None and (other := other_kind(head)):
        raise AudioError(f"{name} is {other}, not audio: pipe a recording or raw samples into it")
    return kind


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
