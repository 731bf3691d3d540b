"""Raw samples in a pipe, by themselves or behind the header of a WAV file: each is there as soon as it has arrived."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from echostream.audio.errors import AudioError
from echostream.audio.pipe import Pipe
from echostream.constants import FRAME_S, PCM_FORMATS

PCM_TYPES: dict[str, np.dtype] = dict(zip(PCM_FORMATS, (np.dtype("<i2"), np.dtype("<f4")), strict=True))
# Format tags of WAV: integers, floating point, and those of which the first two bytes of a GUID say it.
WAV_PCM, WAV_FLOAT, WAV_EXTENSIBLE = 1, 3, 0xFFFE
WAV_TYPES: dict[tuple[int, int], np.dtype] = {
    (WAV_PCM, 16): np.dtype("<i2"),
    (WAV_PCM, 32): np.dtype("<i4"),
    (WAV_FLOAT, 32): np.dtype("<f4"),
}
MAX_HEADER_BYTES = 65_536


@dataclass(frozen=True)
class SampleFormat:
    """What interleaved samples are.

    Attributes:
        rate: in Hz.
        channels: number of them.
        dtype: of a sample.
    """

    rate: int
    channels: int
    dtype: np.dtype


def pcm_chunks(pipe: Pipe, samples: SampleFormat, name: str) -> Iterator[np.ndarray]:
    """Chunks ``(n, channels)`` of at most 40 ms.

    Raises:
        AudioError: there is none, the last one is not whole, or there are fewer than a header promised.
    """
    frame_bytes = samples.channels * samples.dtype.itemsize
    max_bytes = frame_bytes * max(round(samples.rate * FRAME_S), 1)
    scale = np.float32(2 ** (8 * samples.dtype.itemsize - 1) if samples.dtype.kind == "i" else 1)
    data = pipe.read(max_bytes)
    if not data:
        raise AudioError(f"{name} is empty: no audio came")
    rest = b""
    while data:
        data = rest + data
        whole = len(data) - len(data) % frame_bytes
        rest = data[whole:]
        if whole:
            chunk = np.frombuffer(data[:whole], samples.dtype)
            yield chunk.reshape(-1, samples.channels).astype(np.float32) / scale
        data = pipe.read(max_bytes)
    if pipe.missing_bytes:
        raise AudioError(f"{name} is cut short: its header promises {pipe.missing_bytes} bytes more; copy it again")
    if rest:
        raise AudioError(f"{name} ended inside a sample, {len(rest)} of {frame_bytes} bytes: check format and channels")


def read_wav_header(pipe: Pipe) -> SampleFormat | None:
    """What the samples of a WAV file are, which the pipe gives next.

    None, with nothing taken from the pipe, stands for samples that others must decode. They can do so with all of them,
    but FFmpeg wants 64 KiB before it decodes a WAV file, which is two seconds of a microphone.
    """
    offset, found = 12, None
    while offset < MAX_HEADER_BYTES:
        head = pipe.peek(offset + 8)
        if len(head) < offset + 8:
            return None
        kind, size = struct.unpack_from("<4sI", head, offset)
        offset += 8
        if kind == b"data":
            if found is not None:
                pipe.skip(offset)
                pipe.limit(size)
            return found
        if kind == b"fmt ":
            found = _wav_format(pipe.peek(offset + size)[offset : offset + size])
            if found is None:
                return None
        offset += size + size % 2
    return None


def _wav_format(chunk: bytes) -> SampleFormat | None:
    """The content of a chunk ``fmt``; None if it is not of plain samples."""
    if len(chunk) < 16:
        return None
    tag, channels, rate, _, frame_bytes, bits = struct.unpack_from("<HHIIHH", chunk)
    if tag == WAV_EXTENSIBLE and len(chunk) >= 26:
        tag = struct.unpack_from("<H", chunk, 24)[0]
    dtype = WAV_TYPES.get((tag, bits))
    if dtype is None or not channels or frame_bytes != channels * dtype.itemsize:
        return None
    return SampleFormat(rate, channels, dtype)
