"""Which recordings are meant, and where what comes of them goes."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import soundfile

from echostream.cli.options import UsageError

PIPE = Path("-")
SPEECH_SUFFIX, SUBTITLE_SUFFIX = ".translated.wav", ".vtt"
# libsndfile's names of formats, as far as they are suffixes, and others in use for them.
AUDIO_SUFFIXES = {f".{name.lower()}" for name in soundfile.available_formats() if name not in ("RAW", "MAT4", "MAT5")}
AUDIO_SUFFIXES |= {".aif", ".aifc", ".oga", ".opus", ".snd", ".sph", ".wave"}


@dataclass(frozen=True)
class Target:
    """A file to write.

    One that the user named is written in place. A name derived from the recording's is taken once the file is
    whole; until then, and if the work is interrupted, it has ``.part`` in it, so that a second run sees what is
    still to do.
    """

    path: Path
    is_derived: bool

    @property
    def working_path(self) -> Path:
        return self.path.with_name(f"{self.path.stem}.part{self.path.suffix}") if self.is_derived else self.path

    def finish(self) -> None:
        """The file is whole."""
        if self.is_derived:
            self.working_path.replace(self.path)

    def discard(self) -> None:
        """Nothing came of it."""
        if self.is_derived:
            self.working_path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Job:
    """A recording and its files; ``speech`` may be ``-``, the standard output."""

    source: Path
    speech: Target | None = None
    subtitles: Target | None = None

    @property
    def name(self) -> str:
        """Of the recording, for messages."""
        return "stdin" if self.source == PIPE else str(self.source)

    @property
    def targets(self) -> list[Target]:
        """The files to write."""
        return [target for target in (self.speech, self.subtitles) if target is not None and target.path != PIPE]


def find_recordings(inputs: Sequence[Path]) -> list[Path]:
    """The recordings meant: a folder stands for those in it, its own translations left out.

    Raises:
        UsageError: ``-`` beside others, or one recording twice.
    """
    if PIPE in inputs and len(inputs) > 1:
        raise UsageError("- (standard input) can't be mixed with other recordings")
    found: list[Path] = []
    for path in inputs:
        found += sorted(_recordings_in(path)) if path.is_dir() else [path]
    if len(set(found)) < len(found):
        raise UsageError(f"{next(path for path in found if found.count(path) > 1)} is given twice")
    return found


def _recordings_in(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        own = path.name.endswith((SPEECH_SUFFIX, ".translated.part.wav"))
        if path.suffix.lower() in AUDIO_SUFFIXES and not own and path.is_file():
            yield path


def plan(
    sources: Sequence[Path], speech: Path | None, subtitles: Path | None, with_speech: bool, is_batch: bool
) -> list[Job]:
    """Where everything goes.

    Args:
        sources: recordings, or ``-``.
        speech, subtitles: ``-o`` and ``--vtt``: a file for one recording, a folder for several.
        with_speech: there is speech to write.
        is_batch: several recordings or a folder were given.

    Raises:
        UsageError: two recordings with one output, an output that is an input, or a name of another format.
    """
    jobs = [
        Job(
            source,
            _target(source, speech, SPEECH_SUFFIX, is_batch) if with_speech else None,
            _target(source, subtitles, SUBTITLE_SUFFIX, is_batch) if subtitles is not None else None,
        )
        for source in sources
    ]
    recordings = {identity for source in sources for identity in _identities(source)}
    taken: dict[object, Path] = {}
    for job in jobs:
        for target in job.targets:
            places = _identities(target.path) | _identities(target.working_path)
            if places & recordings:
                raise UsageError(f"{target.path} is both a recording and an output: choose another output")
            if other := next((taken[place] for place in places if place in taken), None):
                raise UsageError(
                    f"{other} and {job.source} would both be written to {target.path}: translate them one by one"
                )
            taken |= dict.fromkeys(places, job.source)
    return jobs


def _identities(path: Path) -> set[object]:
    """What tells a file from others: where it is and, if it exists, its number in the file system, as a hard link has
    another name for the same file. The standard input may be a file as well."""
    found: set[object] = set() if path == PIPE else {Path(os.path.realpath(path))}
    try:
        state = os.fstat(0) if path == PIPE else path.stat()
    except OSError:  # it is still to be written, or can't be
        return found
    return found | {(state.st_dev, state.st_ino)} if stat.S_ISREG(state.st_mode) else found


def _target(source: Path, wish: Path | None, suffix: str, is_batch: bool) -> Target:
    if wish is None:
        return Target(PIPE, is_derived=False) if source == PIPE else Target(source.with_suffix(suffix), is_derived=True)
    if wish != PIPE and (is_batch or wish.is_dir()):
        if (wish.exists() and not wish.is_dir()) or wish.suffix.lower() == _ending(suffix):
            raise UsageError(f"{wish} must be a folder, as there are several recordings")
        return Target(wish / f"{'stdin' if source == PIPE else source.stem}{suffix}", is_derived=True)
    return named_target(wish, suffix)


def named_target(wish: Path, suffix: str) -> Target:
    """The very file that was asked for.

    Raises:
        UsageError: its name is that of another format, or of a folder.
    """
    if wish == PIPE and suffix == SPEECH_SUFFIX:
        return Target(PIPE, is_derived=False)
    if wish.suffix.lower() != _ending(suffix) or wish.is_dir():
        raise UsageError(f"{wish} must be a file that ends in {_ending(suffix)}, the format that is written")
    return Target(wish, is_derived=False)


def _ending(suffix: str) -> str:
    """Of the format: the last part of the suffix that derived names have."""
    return suffix[suffix.rindex(".") :]


def drop_existing(job: Job) -> Job | None:
    """The job without derived files that are there already; None if nothing is left to do."""
    if not job.targets:
        return job
    speech, subtitles = (
        None if target is not None and target.is_derived and target.path.exists() else target
        for target in (job.speech, job.subtitles)
    )
    left = Job(job.source, speech, subtitles)
    return left if left.speech is not None or left.subtitles is not None else None
