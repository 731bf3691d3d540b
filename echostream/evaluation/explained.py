"""What can go wrong around an evaluation, in one line instead of SimulEval's traceback.

Lists that are missing or don't match, a source that can't be used, an output folder that can't be written to, a full
disk. What was evaluated before stays in the output folder.
"""

from __future__ import annotations

import difflib
import functools
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import soundfile
from simuleval.evaluator import SentenceLevelEvaluator

MARK = "_echostream_explained"


@contextmanager
def explained(output: str | Path | None) -> Iterator[None]:
    """Trouble with files as an exit with one line; ``output`` is the folder that is written to.

    Raises:
        SystemExit: instead of the OSError, or of libsndfile's.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        place = error.filename or output or "the standard output"
        raise SystemExit(f"error: cannot use {place}: {error.strerror or error}") from error
    except soundfile.LibsndfileError as error:  # of output speech: sources are checked when they are read
        raise SystemExit(
            f"error: cannot write speech to {output}: {error.error_string.rstrip('.')} (is the disk full?)"
        ) from error


def check_lists(args: Namespace) -> None:
    """Look at ``--source`` and ``--target`` of speech sources before SimulEval does.

    Raises:
        SystemExit: a list that is missing, empty or no text, or two that don't match.
    """
    if getattr(args, "source_type", None) != "speech" or getattr(args, "score_only", False):
        return
    counts = {}
    for option, path in (("--source", args.source), ("--target", args.target)):
        if path is None or not Path(path).is_file():
            raise SystemExit(f"error: {option} {path}: no such list, one {option[2:]} a line")
        try:
            counts[path] = len(Path(path).read_text(encoding="utf-8").splitlines())
        except UnicodeDecodeError as error:
            raise SystemExit(f"error: {option} {path} is not a list in UTF-8: {error.reason}") from error
    if len(set(counts.values())) > 1 or 0 in counts.values():
        said = " and ".join(f"{path} {count}" for path, count in counts.items())
        raise SystemExit(f"error: the lists have different numbers of lines, or none: {said}; they must match")


def install() -> None:
    """Make SimulEval's evaluator say what is wrong in one line. May be called again."""
    if hasattr(SentenceLevelEvaluator, MARK):
        return
    setattr(SentenceLevelEvaluator, MARK, True)
    build, evaluate = SentenceLevelEvaluator.from_args.__func__, SentenceLevelEvaluator.__call__

    def from_args(cls: type[SentenceLevelEvaluator], args: Namespace) -> SentenceLevelEvaluator:
        with explained(args.output):
            check_lists(args)
            return build(cls, args)

    def call(self: SentenceLevelEvaluator, system: Any) -> None:
        with explained(self.output):
            evaluate(self, system)

    SentenceLevelEvaluator.from_args = classmethod(functools.wraps(build)(from_args))
    SentenceLevelEvaluator.__call__ = functools.wraps(evaluate)(call)


def say_what_was_meant(parser: ArgumentParser) -> None:
    """Errors of SimulEval's parser in one line, without the usage of all its options; with the nearest known one."""

    def error(message: str) -> NoReturn:
        unknown = message.partition("unrecognized arguments: ")[2].split()
        known = [option for option in parser._option_string_actions if option.startswith("--")]
        near = difflib.get_close_matches(unknown[0], known, n=1) if unknown else []
        hint = f"; did you mean {near[0]}?" if near else ""
        parser.exit(2, f"error: {message}{hint}\n")

    parser.error = error  # type: ignore[method-assign]
