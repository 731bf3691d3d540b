"""Which recordings are meant, and what of a folder is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import soundfile

from echostream.audio.output import SPEECH_SUFFIXES
from echostream.cli.options import UsageError
from echostream.cli.outputs import PIPE, SPEECH_MARK, TEXT_SUFFIXES

# libsndfile's names of formats, as far as they are suffixes, others in use for them, and what FFmpeg decodes.
AUDIO_SUFFIXES = {f".{name.lower()}" for name in soundfile.available_formats() if name not in ("RAW", "MAT4", "MAT5")}
AUDIO_SUFFIXES |= {".aif", ".aifc", ".oga", ".opus", ".snd", ".sph", ".wave"}
AUDIO_SUFFIXES |= {".aac", ".ac3", ".amr", ".ape", ".m4a", ".m4b", ".mka", ".mp2", ".tta", ".weba", ".wma", ".wv"}
VIDEO_SUFFIXES = {".3g2", ".3gp", ".asf", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts"}
VIDEO_SUFFIXES |= {".ogv", ".ts", ".webm", ".wmv"}
MAX_NAMES = 5  # of what was skipped, in one line


@dataclass
class Recordings:
    """What was asked for.

    Attributes:
        paths: the recordings, or ``-`` alone.
        skipped: of each folder, what in it is no recording; hidden files and what a translation wrote are not named.
    """

    paths: list[Path] = field(default_factory=list)
    skipped: dict[Path, list[Path]] = field(default_factory=dict)

    @property
    def notes(self) -> list[str]:
        """A line for each folder in which something was skipped."""
        lines = []
        for folder, paths in self.skipped.items():
            names = [f"{path.name}/" if path.is_dir() else path.name for path in paths]
            more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
            lines.append(f"{folder}: skipped {', '.join(names[:MAX_NAMES])}{more}: no recordings by their names")
        return lines


def find_recordings(inputs: Sequence[Path]) -> Recordings:
    """The recordings meant: a folder stands for those in it, its own translations left out.

    Raises:
        UsageError: ``-`` beside others, or one recording twice.
    """
    if PIPE in inputs and len(inputs) > 1:
        raise UsageError("- (standard input) can't be mixed with other recordings")
    found = Recordings()
    for path in inputs:
        if path.is_dir():
            _look_into(path, found)
        else:
            found.paths.append(path)
    if len(set(found.paths)) < len(found.paths):
        raise UsageError(f"{next(path for path in found.paths if found.paths.count(path) > 1)} is given twice")
    return found


def _look_into(folder: Path, found: Recordings) -> None:
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    recordings = [path for path in paths if _is_recording(path)]
    stems = {path.stem for path in recordings}
    skipped = [path for path in paths if path not in recordings and not _is_output(path, stems)]
    found.paths += recordings
    if skipped:
        found.skipped[folder] = skipped


def _is_recording(path: Path) -> bool:
    suffix = path.suffix.lower()
    return (suffix in AUDIO_SUFFIXES or suffix in VIDEO_SUFFIXES) and not _is_speech(path) and path.is_file()


def _is_speech(path: Path) -> bool:
    """Whether a translation wrote it."""
    stem = path.stem.removesuffix(".part")
    return path.suffix.lower() in SPEECH_SUFFIXES and stem.endswith(SPEECH_MARK)


def _is_output(path: Path, stems: set[str]) -> bool:
    """Whether it is what a translation of a recording with one of these stems writes."""
    return _is_speech(path) or (path.suffix.lower() in TEXT_SUFFIXES and path.stem.removesuffix(".part") in stems)
