"""The ``echostream`` command: simultaneous translation of files, pipes and the microphone."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from echostream.audio.input import AudioError
from echostream.cli import info, mic, translate
from echostream.cli.console import Console
from echostream.cli.options import RAW_HELP, UsageError, UserError
from echostream.cli.parser import USAGE, CommandParser

EXAMPLES = """
examples:
  echostream translate talk.mp3 --model models/fr-en -o talk.en.wav
  echostream asr talk.mp3 --model models/fr-en --text
  echostream mic --model models/fr-en
  echostream serve --model models/fr-en
  echostream info models/fr-en

echostream COMMAND --help says more.
"""
FAILED, INTERRUPTED, PIPE_CLOSED, TERMINATED = 1, 130, 141, 143


class Terminated(KeyboardInterrupt):
    """The process was asked to end; it ends as it does after Ctrl-C."""


def build_parser(with_serve: bool = False) -> argparse.ArgumentParser:
    """Parser of the command line; ``with_serve`` imports the server for its options.

    Raises:
        UserError: the server's packages are not installed.
    """
    parser = CommandParser(
        prog="echostream",
        description="Simultaneous speech-to-speech translation: it speaks while the speaker still does.",
        epilog=EXAMPLES,
        formatter_class=RAW_HELP,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str, epilog: str | None = None) -> argparse.ArgumentParser:
        return commands.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=epilog, formatter_class=RAW_HELP
        )

    command = add("translate", "translate recordings as they play", translate.TRANSLATE_HELP + translate.EXIT_STATUS)
    translate.add_arguments(command)
    command.set_defaults(run=translate.run)
    command = add("asr", "transcribe recordings as they play", translate.ASR_HELP + translate.EXIT_STATUS)
    translate.add_arguments(command, task="asr")
    command.set_defaults(run=translate.run)
    command = add("mic", "translate what the microphone hears", mic.MIC_HELP)
    mic.add_arguments(command)
    command.set_defaults(run=mic.run)
    command = add("serve", "translate in the browser, for any number of speakers at once")
    if with_serve:
        add_serve(command)
    command = add("info", "say what a checkpoint holds", info.INFO_HELP)
    info.add_arguments(command)
    command.set_defaults(run=info.run)
    return parser


def add_serve(parser: argparse.ArgumentParser) -> None:
    """Options of the server, whose packages are needed only for itself."""
    try:
        from echostream.serve.command import add_arguments, run
    except ModuleNotFoundError as error:
        raise UserError(f"the server needs the package {error.name}: pip install 'echostream[serve]'") from error
    add_arguments(parser)
    parser.set_defaults(run=run)


@contextmanager
def orderly_end() -> Iterator[None]:
    """End on SIGTERM as on Ctrl-C, with everything closed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry of the console command; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    console = Console()
    try:
        args = build_parser(with_serve=arguments[:1] == ["serve"]).parse_args(arguments)
        console.quiet = getattr(args, "quiet", False)
        with orderly_end():
            status = args.run(args) or 0
            if not status:
                sys.stdout.flush()
            return status
    except (UserError, AudioError) as error:
        console.error(error)
        return USAGE if isinstance(error, UsageError) else FAILED
    except Terminated:
        console.status("stopped")
        return TERMINATED
    except KeyboardInterrupt:
        console.status("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        return PIPE_CLOSED
    except OSError as error:
        console.error(f"cannot use {error.filename or 'the standard output'}: {error.strerror or error}")
        return FAILED
    finally:
        drop_standard_output()


def drop_standard_output() -> None:
    """Forget what can't be written of the text: Python would try again on its way out, and complain."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
