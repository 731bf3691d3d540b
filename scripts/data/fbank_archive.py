"""Log-mel features as fairseq's speech data loaders read them: uncompressed zips of .npy, addressed by byte."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import numpy as np

from scripts.files import atomic_path
from scripts.speech.audio import SAMPLE_RATE

MEL_BINS = 80
WINDOW_SAMPLES, HOP_SAMPLES = 400, 160
# A fixed date makes the same features give the same file.
DATE = (1980, 1, 1, 0, 0, 0)
# Below 2 GiB, up to which every tool and file system can address a file.
ARCHIVE_BYTES = 2**31 - 2**20
# A member's entries in a zip beside its name, which is there twice, and its data; and the end of the zip.
MEMBER_BYTES, END_BYTES = 30 + 46, 22


def log_mel_frames(count: int) -> int:
    """Frames that `log_mel` gives for that many samples at 16 kHz, at least 1."""
    return max(1, 1 + (count - WINDOW_SAMPLES) // HOP_SAMPLES)


def log_mel(samples: np.ndarray) -> np.ndarray:
    """Kaldi filter banks, 25 ms windows every 10 ms, no dither: float32 `(n,)` in [-1, 1] -> `(frames, 80)`.

    Kaldi expects the range of 16-bit integers.
    """
    # Imported here: who only stores features must not wait for torch.
    import torch
    from torchaudio.compliance import kaldi

    waveform = torch.from_numpy(samples)[None] * 2**15
    return kaldi.fbank(waveform, num_mel_bins=MEL_BINS, sample_frequency=SAMPLE_RATE).numpy()


def part_path(path: Path, number: int) -> Path:
    """Name of an archive's part: `x.zip`, `x.1.zip`, `x.2.zip` ..."""
    return path.with_name(f"{path.stem}.{number}{path.suffix}") if number else path


def write_members(path: Path, members: Iterable[tuple[str, bytes]], max_bytes: int = ARCHIVE_BYTES) -> list[str]:
    """Store files under their names, uncompressed, in as many archives as `max_bytes` each makes necessary.

    An archive is larger only if a single member is. Parts of an earlier run that are left over are removed.

    Returns the address of each, `<file name>:<offset>:<length>`, relative to the zip's folder.
    """
    addresses = []
    number, size = 0, END_BYTES
    with ExitStack() as parts:
        file, archive = _open_part(parts, path)
        for name, data in members:
            needed = len(data) + MEMBER_BYTES + 2 * len(name.encode())
            if size > END_BYTES and size + needed > max_bytes:
                parts.close()  # the part before is complete
                number, size = number + 1, END_BYTES
                file, archive = _open_part(parts, part_path(path, number))
            archive.writestr(zipfile.ZipInfo(name, DATE), data)
            size += needed
            # Nothing follows a stored member's data until the next member: it ends where the file ends now.
            addresses.append(f"{part_path(path, number).name}:{file.tell() - len(data)}:{len(data)}")
    while (left := part_path(path, number + 1)).exists():
        left.unlink()
        number += 1
    return addresses


def _open_part(parts: ExitStack, path: Path) -> tuple[BinaryIO, zipfile.ZipFile]:
    file = parts.enter_context(parts.enter_context(atomic_path(path)).open("wb"))
    return file, parts.enter_context(zipfile.ZipFile(file, "w", zipfile.ZIP_STORED))


def write_archive(
    path: Path, features: Iterable[tuple[str, np.ndarray]], max_bytes: int = ARCHIVE_BYTES
) -> dict[str, str]:
    """Store arrays; returns for each id its address, see `write_members`."""
    names: list[str] = []

    def members() -> Iterator[tuple[str, bytes]]:
        for name, array in features:
            buffer = io.BytesIO()
            np.save(buffer, np.asarray(array, np.float32))
            names.append(name)
            yield f"{name}.npy", buffer.getvalue()

    addresses = write_members(path, members(), max_bytes)
    return dict(zip(names, addresses, strict=True))


def read_archive(folder: Path, addresses: Iterable[str]) -> Iterator[np.ndarray]:
    """The arrays at these addresses, one after the other; `folder` is that of their zip files."""
    for address in addresses:
        name, offset, length = address.rsplit(":", 2)
        with (folder / name).open("rb") as file:
            file.seek(int(offset))
            yield np.load(io.BytesIO(file.read(int(length))), allow_pickle=False)


def write_cmvn(path: Path, features: Iterable[np.ndarray]) -> None:
    """Mean and standard deviation of each mel bin over all frames, as fairseq's `global_cmvn` transform reads them.

    Holds one array `(frames, 80)` at a time.
    """
    count, total, squares = 0, np.zeros(MEL_BINS), np.zeros(MEL_BINS)
    for array in features:
        frames = array.astype(np.float64)
        count, total, squares = count + len(frames), total + frames.sum(0), squares + (frames**2).sum(0)
    mean = total / max(count, 1)
    std = np.sqrt(np.maximum(squares / max(count, 1) - mean**2, 1e-8))
    with atomic_path(path) as temporary:
        np.savez(temporary, mean=mean.astype(np.float32), std=std.astype(np.float32))
