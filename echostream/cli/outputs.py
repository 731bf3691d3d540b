"""Which recordings are meant, and where what comes of them goes."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from echostream.audio.output import SPEECH_SUFFIXES
from echostream.cli.options import UsageError

PIPE = Path("-")
SPEECH_MARK = ".translated"  # in names of speech that are derived from a recording's
SPEECH_SUFFIX = f"{SPEECH_MARK}.wav"
TEXT_SUFFIXES = (".vtt", ".srt", ".json")  # of the options with these names


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
    """A recording and its files; ``speech`` may be ``-``, the standard output, and ``texts`` end in TEXT_SUFFIXES."""

    source: Path
    speech: Target | None = None
    texts: tuple[Target, ...] = ()

    @property
    def name(self) -> str:
        """Of the recording, for messages and files of text; bytes that are no text are written out."""
        return "stdin" if self.source == PIPE else str(self.source).encode("utf-8", "backslashreplace").decode()

    @property
    def targets(self) -> list[Target]:
        """The files to write."""
        speech = [self.speech] if self.speech is not None and self.speech.path != PIPE else []
        return [*speech, *self.texts]


def plan(
    sources: Sequence[Path], speech: Path | None, texts: Sequence[Path | None], with_speech: bool, is_batch: bool
) -> list[Job]:
    """Where everything goes.

    Args:
        sources: recordings, or ``-``.
        speech: ``-o``: a file for one recording, a folder for several.
        texts: of the options ``--vtt``, ``--srt`` and ``--json``, in this order; None: not asked for.
        with_speech: there is speech to write.
        is_batch: several recordings or a folder were given.

    Raises:
        UsageError: two recordings with one output, an output that is an input, or a name of another format.
    """
    wishes = [(wish, suffix) for wish, suffix in zip(texts, TEXT_SUFFIXES, strict=True) if wish is not None]
    jobs = [
        Job(
            source,
            _target(source, speech, SPEECH_SUFFIX, SPEECH_SUFFIXES, is_batch) if with_speech else None,
            tuple(_target(source, wish, suffix, (suffix,), is_batch) for wish, suffix in wishes),
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


def _target(source: Path, wish: Path | None, suffix: str, endings: Sequence[str], is_batch: bool) -> Target:
    """The file for a wish; ``suffix``: of derived names, ``endings``: that a name may have."""
    if wish is None:
        return Target(PIPE, is_derived=False) if source == PIPE else Target(source.with_suffix(suffix), is_derived=True)
    if wish != PIPE and (is_batch or wish.is_dir()):
        if (wish.exists() and not wish.is_dir()) or wish.suffix.lower() in endings:
            raise UsageError(f"{wish} must be a folder, as there are several recordings")
        return Target(wish / f"{'stdin' if source == PIPE else source.stem}{suffix}", is_derived=True)
    return speech_target(wish) if suffix == SPEECH_SUFFIX else text_target(wish, suffix)


def speech_target(wish: Path) -> Target:
    """The very file of speech that was asked for, or the standard output.

    Raises:
        UsageError: its name is that of another format, or of a folder.
    """
    return Target(PIPE, is_derived=False) if wish == PIPE else _named_target(wish, SPEECH_SUFFIXES)


def text_target(wish: Path, suffix: str) -> Target:
    """The very file that was asked for, which ends in ``suffix``.

    Raises:
        UsageError: its name is that of another format, or of a folder.
    """
    return _named_target(wish, (suffix,))


def _named_target(wish: Path, endings: Sequence[str]) -> Target:
    if wish.suffix.lower() not in endings or wish.is_dir():
        formats = "the format that is written" if len(endings) == 1 else "the formats that are written"
        raise UsageError(f"{wish} must be a file that ends in {', '.join(endings)}, {formats}")
    return Target(wish, is_derived=False)


def drop_existing(job: Job) -> Job | None:
    """The job without derived files that are there already; None if nothing is left to do."""
    if not job.targets:
        return job

    def is_left(target: Target) -> bool:
        return not (target.is_derived and target.path.exists())

    speech = job.speech if job.speech is not None and is_left(job.speech) else None
    left = replace(job, speech=speech, texts=tuple(target for target in job.texts if is_left(target)))
    return left if left.speech is not None or left.texts else None
