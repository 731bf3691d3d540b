"""The parser of the command line: what is wrong with it is said in one line, with what was probably meant."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from typing import NoReturn

from echostream.printing import one_printable_line

USAGE = 2


class CommandParser(argparse.ArgumentParser):
    """An ArgumentParser, also of subcommands, that doesn't print its whole usage over an error."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and end with status 2."""
        self.exit(USAGE, f"error: {one_printable_line(message)} ({self.prog} --help says more)\n")

    def parse_known_args(  # type: ignore[override]  # argparse's also takes any other object as the namespace
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse's, but an unknown long option is an error, and comes before that of a missing one."""
        if args is not None and self._subparsers is None:
            self._refuse_unknown_options(args)
        return super().parse_known_args(args, namespace)

    def _refuse_unknown_options(self, args: Sequence[str]) -> None:
        known = [option for option in self._option_string_actions if option.startswith("--")]
        for argument in args:
            if argument == "--":
                return
            name = argument.partition("=")[0]
            if name.startswith("--") and not any(option.startswith(name) for option in known):
                near = difflib.get_close_matches(name, known, n=1)
                self.error(f"unknown option {name}" + (f"; did you mean {near[0]}?" if near else ""))
