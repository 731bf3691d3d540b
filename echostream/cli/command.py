"""The command line: its parser, and how every command ends."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import echostream
from echostream.audio.errors import AudioError
from echostream.cli import INTERRUPTED
from echostream.cli.arguments import (
    ASR_HELP,
    EXIT_STATUS,
    EXPORT_HELP,
    INFO_HELP,
    MIC_HELP,
    MODELS_HELP,
    SERVE_HELP,
    SPEAK_HELP,
    TRANSLATE_HELP,
    add_export_arguments,
    add_info_arguments,
    add_mic_arguments,
    add_models_arguments,
    add_serve_arguments,
    add_speak_arguments,
    add_translate_arguments,
)
from echostream.cli.console import Console
from echostream.cli.options import RAW_HELP, UsageError, UserError
from echostream.cli.parser import USAGE, CommandParser

EXAMPLES = """
examples:
  echostream translate talk.m4a
  echostream translate talk.mp4 -o talk.en.mp3 --srt talk.en.srt
  echostream asr talk.mp3 --text
  echostream mic --play
  echostream serve

echostream COMMAND --help says more.
"""
FAILED, PIPE_CLOSED, TERMINATED = 1, 141, 143


class Terminated(KeyboardInterrupt):
    """The process was asked to end; it ends as it does after Ctrl-C."""


# Where each command is carried out; imported when it is.
RUN = {
    "translate": "echostream.cli.translate",
    "asr": "echostream.cli.translate",
    "speak": "echostream.cli.speak",
    "mic": "echostream.cli.mic",
    "serve": "echostream.cli.serve",
    "info": "echostream.cli.info",
    "models": "echostream.cli.models",
    "export": "echostream.cli.export",
}


def build_parser() -> argparse.ArgumentParser:
    """Parser of the command line."""
    parser = CommandParser(
        prog="echostream",
        description="Simultaneous speech-to-speech translation: it speaks while the speaker still does.",
        epilog=EXAMPLES,
        formatter_class=RAW_HELP,
    )
    parser.add_argument("--version", action="version", version=f"echostream {echostream.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str, epilog: str) -> argparse.ArgumentParser:
        description = f"{text[0].upper()}{text[1:]}."
        return commands.add_parser(
            name, help=text, description=description, epilog=epilog + EXIT_STATUS, formatter_class=RAW_HELP
        )

    add_translate_arguments(add("translate", "translate recordings as they play", TRANSLATE_HELP))
    add_translate_arguments(add("asr", "transcribe recordings as they play", ASR_HELP), task="asr")
    add_speak_arguments(add("speak", "speak text in the target language, word by word", SPEAK_HELP))
    add_mic_arguments(add("mic", "translate what the microphone hears", MIC_HELP))
    add_serve_arguments(add("serve", "translate in the browser, for any number of speakers at once", SERVE_HELP))
    add_info_arguments(add("info", "say what a checkpoint holds", INFO_HELP))
    add_models_arguments(add("models", "list the models, and get more", MODELS_HELP))
    add_export_arguments(add("export", "write a model as ONNX files, for other languages and runtimes", EXPORT_HELP))
    return parser


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


def run_command(argv: Sequence[str] | None = None) -> int:
    """Carry out a command line; returns the exit status."""
    return carry_out(build_parser(), lambda args: importlib.import_module(RUN[args.command]).run(args), argv)


def carry_out(
    parser: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace], int | None],
    argv: Sequence[str] | None = None,
) -> int:
    """Parse and run; errors that the user can correct, Ctrl-C and SIGTERM end with a line and an exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    console = Console()
    try:
        args = parser.parse_args(arguments)
        console.quiet = getattr(args, "quiet", False)
        with orderly_end():
            status = run(args) or 0
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
