"""``echostream speak``: text in the target language as speech, word by word."""

from __future__ import annotations

import argparse
import codecs
import io
import sys
from collections.abc import Iterator
from typing import cast

from echostream.audio.output import SpeechWriter
from echostream.cli.console import Console
from echostream.cli.options import UsageError, UserError, load_translator, settle_threads
from echostream.cli.outputs import PIPE, Target, speech_target
from echostream.cli.translate import open_speech
from echostream.streaming.text_to_speech import TextToSpeech

CHUNK_BYTES = 4096


def run(args: argparse.Namespace) -> int:
    """Speak what the options say; returns the exit status.

    Raises:
        UserError: a model that can't be used, a word that the model can't say, or a place that can't be written to.
    """
    if args.output == PIPE and sys.stdout.isatty():
        raise UsageError("speech would go to the terminal as raw samples: give -o OUT.wav, or a pipe")
    target = speech_target(args.output)
    console = Console(args.quiet, args.verbose, text_to_stderr=True)
    translator = load_translator(args, "s2st")
    console.detail(f"threads: {settle_threads(args, translator)}")
    speaker = TextToSpeech(translator)
    state, spoken, words = speaker.init_state(), 0, 0
    writer = open_writer(target, speaker.output_sample_rate)
    try:
        for text, is_last in pieces(args.text):
            output, state = speaker.step(text, state, is_last)
            writer.write(output.samples)
            spoken, words = spoken + output.samples.size, words + len(output.words)
    except ValueError as error:  # of a word
        raise UserError(str(error)) from error
    finally:
        writer.close()
    place = "the pipe" if args.output == PIPE else args.output
    console.status(f"{words} words, {spoken / speaker.output_sample_rate:.1f} s of speech in {place}")
    return 0


def open_writer(target: Target, sample_rate: int) -> SpeechWriter:
    """Writer of speech to a file or the standard output.

    Raises:
        UserError: a place that can't be written to.
    """
    try:
        return open_speech(target, sample_rate)
    except OSError as error:
        raise UserError(f"cannot write {error.filename or target.path}: {error.strerror or error}") from error


def pieces(texts: list[str]) -> Iterator[tuple[str, bool]]:
    """The text, or for ``-`` what comes through the standard input as soon as it comes; True with the last piece."""
    if texts != [str(PIPE)]:
        yield " ".join(texts), True
        return
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    stdin = cast(io.BufferedReader, sys.stdin.buffer)  # whose read1 waits for nothing more once something is there
    while chunk := stdin.read1(CHUNK_BYTES):
        yield decoder.decode(chunk), False
    yield decoder.decode(b"", final=True), True
