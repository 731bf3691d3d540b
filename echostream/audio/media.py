"""Recordings that FFmpeg's libraries decode (PyAV): m4a, mp4, webm, aac, wma, the sound of videos, files in pipes.

Only the first sound track is decoded, packet by packet, so that memory grows neither with the file nor with what it
decodes to. Playlists and other formats that name further files are not opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from echostream.audio.errors import AudioError, UnknownFormatError

# FFmpeg's names of the formats that may be opened. Those that are left out read devices, lists of files or addresses.
FORMATS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dts,eac3,flac,flv,loas,m4v,matroska,mov,mp3,mpeg,mpegts,oga,ogg,"
    "tta,voc,w64,wav,webm,wv,3gp,3g2,mj2,m4a,mp4"
)
OPTIONS = {"format_whitelist": FORMATS, "protocol_whitelist": "none"}
# Formats whose header says how long the sound is, and how many seconds a complete recording may lack of that. Of other
# formats FFmpeg guesses the length from the bit rate.
SHORTFALLS_S = {"mov": 0.5, "matroska": 0.5, "wav": 0.1, "flac": 0.1, "aiff": 0.1, "caf": 0.1}
ANY_RECORDING = "wav, mp3, m4a, mp4, webm, flac, ogg and many others are read: is it a recording?"
MAX_DAMAGED = 0.1  # share of the packets that may be damaged, as joined files have some that are
MAX_DAMAGED_IN_A_ROW = 100
FULL_SCALE = {"u1": 2**7, "i2": 2**15, "i4": 2**31}


class Readable(Protocol):
    """A file or a pipe; with ``seek`` and ``tell``, formats can be read that need them."""

    def read(self, size: int, /) -> bytes: ...


class MediaFile:
    """A file or pipe that is being decoded.

    Args:
        source: path, or an open file or pipe; what can be closed is closed with the decoder.
        name: for messages.

    Attributes:
        rate: sample rate in Hz.
        channels: their number; if it changes on the way, their mean goes to each.
        duration_s: length in seconds, or a guess at it; None: nothing says.

    Raises:
        UnknownFormatError: no format that can be decoded.
        AudioError: it holds no sound, or is damaged from the beginning on.
    """

    def __init__(self, source: Path | BinaryIO | Readable, name: str) -> None:
        import av  # which takes 0.1 s, and most recordings don't need it

        self._name = name
        self._source = source.open("rb") if isinstance(source, Path) else source
        self._damaged: list[float] = []  # seconds at which something could not be decoded
        self._end: str | None = None  # why nothing follows, if that is no proper end
        self._frames = self._packets = 0
        try:
            self._container: Any = av.open(self._source, options=OPTIONS, metadata_errors="replace")
        except (av.FFmpegError, OSError, ValueError) as error:
            self._close_source()
            raise UnknownFormatError(name, _reason(error), ANY_RECORDING) from error
        try:
            self._stream: Any = self._container.streams.best("audio")
            if self._stream is None:
                raise AudioError(f"{name} has no sound track: is there another file with the sound?")
            self._decoded = self._decode()
            first = next(self._decoded, None)
            if first is None:
                raise AudioError(self._why_nothing())
        except BaseException:
            self.close()
            raise
        self._first: Any = first
        self.rate, self.channels = first.sample_rate, first.layout.nb_channels
        self.duration_s = self._length_s()

    def chunks(self) -> Iterator[np.ndarray]:
        """Chunks ``(n, channels)``, float32, as they are decoded.

        Raises:
            AudioError: once all that can be decoded was given: the rest is damaged or missing.
        """
        frame, self._first = self._first, None
        while frame is not None:
            if frame.sample_rate != self.rate:
                raise AudioError(
                    f"{self._name} changes from {self.rate} to {frame.sample_rate} Hz after "
                    f"{self._frames / self.rate:.2f} s: convert it to one sample rate"
                )
            chunk = _samples(frame)
            self._frames += len(chunk)
            if chunk.shape[1] != self.channels:  # AAC may become stereo on the way
                chunk = np.repeat(chunk.mean(axis=1, keepdims=True), self.channels, axis=1)
            yield chunk
            frame = next(self._decoded, None)
        at_s = self._frames / self.rate
        if len(self._damaged) > MAX_DAMAGED * self._packets:
            raise AudioError(
                f"{self._name} is damaged after {self._damaged[0]:.2f} s: {len(self._damaged)} of {self._packets} "
                "packets can't be decoded; copy it again"
            )
        if self._end is not None:
            raise AudioError(f"{self._name} is damaged or cut short after {at_s:.2f} s: {self._end}; copy it again")
        if self._shortfall_s and self.duration_s and self.duration_s - at_s > self._shortfall_s:
            raise AudioError(
                f"{self._name} is cut short after {at_s:.2f} s: it says to be {self.duration_s:.2f} s long; "
                "copy it again"
            )

    @property
    def warning(self) -> str | None:
        """What was wrong with the recording so far and does not prevent its use; None: nothing."""
        if not self._damaged:
            return None
        count = len(self._damaged)
        left_out = f"{count} packets were" if count > 1 else "1 packet was"
        return f"{self._name} is damaged after {self._damaged[0]:.2f} s: {left_out} left out"

    def close(self) -> None:
        """Close the decoder and its source."""
        self._container.close()
        self._close_source()

    def _close_source(self) -> None:
        if (close := getattr(self._source, "close", None)) is not None:
            close()

    def _decode(self) -> Iterator[Any]:
        """Frames of sound. What can't be decoded is left out and remembered."""
        import av

        in_a_row, failure = 0, ""
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    break
            except IndexError:  # of a track that wasn't there when the file was opened
                packets = self._container.demux(self._stream)
                continue
            except (av.FFmpegError, OSError) as error:
                self._end = _reason(error)
                return
            self._packets += 1
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                in_a_row, failure = in_a_row + 1, _reason(error)
                if in_a_row > MAX_DAMAGED_IN_A_ROW:
                    break
                if self._frames:  # a recording of a broadcast may well begin inside a packet
                    self._damaged.append(self._frames / self.rate)
                continue
            if packet.size:  # the last one is empty and flushes the decoder
                in_a_row = 0
            yield from (frame for frame in frames if frame.samples)
        if in_a_row:  # nothing that can be decoded comes after them
            self._end = failure

    def _why_nothing(self) -> str:
        if self._end is not None:
            return f"{self._name} is damaged or cut short, nothing in it can be decoded: {self._end}; copy it again"
        return f"{self._name} holds no samples"

    def _length_s(self) -> float | None:
        """Length of the sound track or, if only the file as a whole says it, of that."""
        stream, container = self._stream, self._container
        self._shortfall_s = SHORTFALLS_S.get(container.format.name.split(",")[0])
        if stream.duration is not None:
            return float(stream.duration * stream.time_base)
        if container.duration is None:
            return None
        if len(container.streams) > 1:  # pictures may last longer
            self._shortfall_s = None
        return container.duration / 1_000_000


def _samples(frame: Any) -> np.ndarray:
    """Samples of a frame, ``(n, channels)`` float32 in [-1, 1] but for clipping."""
    array = frame.to_ndarray()  # (channels, n), or (1, n * channels)
    array = array.T if frame.format.is_planar else array.reshape(-1, frame.layout.nb_channels)
    if (scale := FULL_SCALE.get(array.dtype.str[1:])) is None:
        return array.astype(np.float32, copy=False)
    zero = scale if array.dtype.kind == "u" else 0
    return ((array.astype(np.float64) - zero) / scale).astype(np.float32)


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).rstrip(".")
