"""One-line error messages instead of SimulEval's tracebacks.

They cover source and target lists that are missing or don't match, an output folder that can't be written to, a full
disk, and unknown options. Utterances evaluated before an error stay in the output folder.
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

from echostream.evaluation.simuleval_metrics import check_metrics
from echostream.text import text_lines

MARK = "_echostream_error_messages"


@contextmanager
def exit_on_file_error(output: str | Path | None) -> Iterator[None]:
    """Turn file errors into an exit with a one-line message; ``output`` is SimulEval's output folder.

    Raises:
        SystemExit: instead of OSError and LibsndfileError.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        place = error.filename or output or "the standard output"
        raise SystemExit(f"error: cannot use {place}: {error.strerror or error}") from error
    except soundfile.LibsndfileError as error:  # from writing output speech: read errors of sources are handled before
        raise SystemExit(
            f"error: cannot write speech to {output}: {error.error_string.rstrip('.')} (is the disk full?)"
        ) from error


def check_lists(args: Namespace) -> None:
    """Check the lists ``--source`` and ``--target`` before SimulEval reads them.

    A text that is spoken needs no target, since it is its own reference.

    Raises:
        SystemExit: a list is missing, empty or not UTF-8 text, or the lists have different lengths.
    """
    source_type = getattr(args, "source_type", None)
    if source_type not in ("speech", "text") or getattr(args, "score_only", False):
        return
    counts = {}
    for option, path in (("--source", args.source), ("--target", args.target)):
        if source_type == "text" and option == "--target" and path is None:
            continue
        if path is None or not Path(path).is_file():
            raise SystemExit(f"error: {option} {path}: no such list, one {option[2:]} a line")
        try:
            counts[path] = len(text_lines(path))
        except UnicodeDecodeError as error:
            raise SystemExit(f"error: {option} {path} is not a list in UTF-8: {error.reason}") from error
    if len(set(counts.values())) > 1 or 0 in counts.values():
        lines = " and ".join(f"{path} {count}" for path, count in counts.items())
        raise SystemExit(f"error: the lists have different numbers of lines, or none: {lines}; they must match")


def install() -> None:
    """Make SimulEval's evaluator report errors in one line. Further calls have no effect."""
    if hasattr(SentenceLevelEvaluator, MARK):
        return
    setattr(SentenceLevelEvaluator, MARK, True)
    build, evaluate = SentenceLevelEvaluator.from_args.__func__, SentenceLevelEvaluator.__call__

    def from_args(cls: type[SentenceLevelEvaluator], args: Namespace) -> SentenceLevelEvaluator:
        with exit_on_file_error(args.output):
            check_metrics(args)
            check_lists(args)
            return build(cls, args)

    def call(self: SentenceLevelEvaluator, system: Any) -> None:
        with exit_on_file_error(self.output):
            evaluate(self, system)

    SentenceLevelEvaluator.from_args = classmethod(functools.wraps(build)(from_args))
    SentenceLevelEvaluator.__call__ = functools.wraps(evaluate)(call)


def shorten_usage_errors(parser: ArgumentParser) -> None:
    """Make the parser report errors in one line, without its long usage, and suggest the most similar known option."""

    def error(message: str) -> NoReturn:
        unknown = message.partition("unrecognized arguments: ")[2].split()
        known = [option for option in parser._option_string_actions if option.startswith("--")]
        near = difflib.get_close_matches(unknown[0], known, n=1) if unknown else []
        hint = f"; did you mean {near[0]}?" if near else ""
        parser.exit(2, f"error: {message}{hint}\n")

    parser.error = error  # type: ignore[method-assign]
