"""``echostream translate`` and ``echostream asr``: recordings, or a pipe, as they would be heard live."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from echostream.audio.errors import AudioError
from echostream.audio.input import AudioStream, open_audio, open_pcm, open_pipe
from echostream.audio.output import PcmWriter, SpeechWriter, open_speech_file
from echostream.cli.console import Console, faint
from echostream.cli.options import UsageError, UserError, load_translator, settle_threads
from echostream.cli.outputs import PIPE, Job, Target, drop_existing, plan
from echostream.cli.recordings import find_recordings
from echostream.cli.session import Session, TextWriter, View
from echostream.constants import SAMPLE_RATE
from echostream.streaming.live import LiveView, PlainText
from echostream.streaming.subtitles import SubtitleWriter
from echostream.streaming.words_json import JsonLines, JsonWriter

if TYPE_CHECKING:
    from echostream.streaming import StreamingTranslator


def run(args: argparse.Namespace) -> int:
    """Translate what the options say; returns the exit status."""
    found = find_recordings(args.audio)
    sources = found.paths
    is_batch = len(args.audio) > 1 or any(path.is_dir() for path in args.audio)
    json_lines = args.json == PIPE
    task = args.task or ("s2tt" if (args.text or json_lines) and args.output is None else "s2st")
    texts = (args.vtt, args.srt, None if json_lines else args.json)
    jobs = plan(sources, args.output, texts, task == "s2st", is_batch)
    into_pipe = any(job.speech is not None and job.speech.path == PIPE for job in jobs)
    check_outputs(args, task, into_pipe)
    check_inputs(args)
    console = Console(args.quiet, args.verbose, text_to_stderr=into_pipe)
    if not jobs:
        console.error("; ".join([f"no recordings in {args.audio[0]}", *found.notes]))
        return 1
    for note in found.notes:
        console.status(note)
    todo, durations_s, failed = prepare(jobs, args.force, console)
    if not todo:
        return int(failed)
    start = time.perf_counter()
    if sys.stderr.isatty():  # somebody waits; a log needn't know
        console.status(f"loading {args.model}")
    translator = load_translator(args, task)
    console.detail(f"{args.model}: loaded in {time.perf_counter() - start:.1f} s on {args.device}")
    console.detail(f"threads: {settle_threads(args, translator)}")
    writes_files = any(job.targets for job in todo)
    make_view = choose_view(args, translator, console, is_batch and writes_files)
    if sources != [PIPE] and (is_batch or make_view is None or not console.shows_text_in_terminal):
        console.start_bar(sum(durations_s))
    try:
        for number, job in enumerate(todo):
            if is_batch and args.text:
                console.text(f"{chr(10) if number else ''}==> {job.name} <==\n")
            elif make_view is not None and not args.text:
                console.status(job.name)
            console.show_current(job.source.name)
            try:
                translate(job, args, translator, make_view(job.name) if make_view else None, console)
            except (AudioError, UserError) as error:
                console.error(error)
                failed = True
    finally:
        console.close()
    return int(failed)


def check_outputs(args: argparse.Namespace, task: str, into_pipe: bool) -> None:
    """Refuse outputs that don't go together.

    Raises:
        UsageError: with what and why.
    """
    if args.output is not None and task != "s2st":
        raise UsageError(f"-o is for speech, which --task {task} doesn't make: leave one of them out")
    if args.vtt_clock == "speech" and task != "s2st":
        raise UsageError(f"--vtt-clock speech needs speech, which --task {task} doesn't make")
    on_stdout = [name for name, is_there in (("--text", args.text), ("--json -", args.json == PIPE)) if is_there]
    if len(on_stdout) > 1:
        raise UsageError("--text and --json - can't both go to the standard output: give --json OUT.json")
    if into_pipe and on_stdout:
        raise UsageError(f"{on_stdout[0]} and raw speech can't both go to the standard output: give -o OUT.wav")
    if into_pipe and sys.stdout.isatty():
        raise UsageError("speech would go to the terminal as raw samples: give -o OUT.wav, --text, or a pipe")


def check_inputs(args: argparse.Namespace) -> None:
    """Refuse options of a pipe without one, and a pipe that is a keyboard.

    Raises:
        UsageError: with what and why.
    """
    if PIPE in args.audio:
        if sys.stdin.isatty():
            raise UsageError("- reads the standard input, which is a terminal: pipe a recording or raw samples in")
        return
    for name in ("input_format", "input_rate", "input_channels"):
        if getattr(args, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')} is for - alone: a file says itself what it holds")


def prepare(jobs: Sequence[Job], force: bool, console: Console) -> tuple[list[Job], list[float], bool]:
    """What is left to do of the jobs, the lengths of those recordings in seconds, and whether one can't be read."""
    todo, durations_s, failed = [], [], False
    for job in jobs:
        left = job if force else drop_existing(job)
        if left is None:
            console.status(f"{job.source}: {job.targets[0].path} exists, skipped (--force: do it again)")
            continue
        try:
            if job.source != PIPE:
                with open_audio(job.source) as audio:
                    durations_s.append(audio.duration_s or 0.0)
        except AudioError as error:
            console.error(error)
            failed = True
            continue
        todo.append(left)
    return todo, durations_s, failed


def choose_view(
    args: argparse.Namespace, translator: StreamingTranslator, console: Console, is_long: bool
) -> Callable[[str], View] | None:
    """Factory of what shows the text of a recording, whose name it takes, or None.

    ``is_long``: there is much, and only those who ask see all of it.
    """
    if args.json == PIPE:
        return lambda name: JsonLines({"recording": name})
    if args.text:
        return lambda _: PlainText(translator.recomposer, translator.task == "asr")
    if args.quiet or (is_long and not args.verbose):
        return None
    return lambda _: LiveView(translator.recomposer, faint if console.shows_faint_text else None)


def shower(view: View | None, console: Console) -> Callable[[str], None]:
    """What prints the text of a view; that of the live view is printable already, and may have marks in it."""
    return console.marked_text if isinstance(view, LiveView) else console.text


def translate(
    job: Job,
    args: argparse.Namespace,
    translator: StreamingTranslator,
    view: View | None,
    console: Console,
) -> None:
    """One recording.

    Raises:
        AudioError: it can't be used, or not to its end; what came before is translated and kept.
        UserError: a place that can't be written to.
    """
    with open_source(job.source, args) as audio:
        length = "" if audio.duration_s is None else f"{audio.duration_s:.1f} s, "
        console.detail(f"{audio.name}: {length}{audio.rate} Hz, channels: {audio.channels}")
        with open_outputs(job, args.vtt_clock, translator) as (speech, texts):
            session = Session(translator, view, shower(view, console), speech, texts)
            try:
                session.run(audio, args.realtime, console.advance)
            except BaseException:
                if isinstance(view, PlainText):
                    console.text(view.end())
                for target in job.targets:
                    if session.heard_s:
                        console.status(f"  {target.working_path} is kept as far as it goes")
                    else:
                        target.discard()
                raise
        if warning := audio.warning:
            console.warning(warning)
    report(job, session, console)


def report(job: Job, session: Session, console: Console) -> None:
    """Give the files of a recording their names and say what was done."""
    for target in job.targets:
        target.finish()
    line = f"{job.name}: {session.summary}"
    if job.speech is not None:
        place = "the pipe" if job.speech.path == PIPE else job.speech.path
        line += f"; {session.spoken_s:.1f} s of speech in {place}"
    if job.texts:
        line += f"; text in {', '.join(str(target.path) for target in job.texts)}"
    console.status(line)
    options, least = session.translator.options, session.translator.writer.least_language
    says_nothing = session.heard_words and not session.said_words and options.task != "asr"
    if says_nothing and least and not options.least_confidence:
        console.warning(
            f"{session.heard_words} words were heard in {job.name} and nothing was said of them: perhaps they are in "
            "another language than the model's; --least-language 0 doesn't ask"
        )


def open_source(source: Path, args: argparse.Namespace) -> AudioStream:
    """The recording, or what comes through the pipe."""
    if source != PIPE:
        return open_audio(source)
    if (args.input_format, args.input_rate, args.input_channels) == (None, None, None):
        return open_pipe(sys.stdin.buffer)
    encoding, rate = args.input_format or "s16le", args.input_rate or SAMPLE_RATE
    return open_pcm(sys.stdin.buffer, rate, args.input_channels or 1, encoding)


@contextmanager
def open_outputs(
    job: Job, clock: str, translator: StreamingTranslator
) -> Iterator[tuple[SpeechWriter | None, list[TextWriter]]]:
    """Writers of speech and text files, closed in the end, whatever happens.

    Raises:
        UserError: a place that can't be written to, in the beginning or, when the disk is full, later.
    """
    speech: SpeechWriter | None = None
    texts: list[TextWriter] = []
    try:
        with ExitStack() as opened:
            for target in job.texts:
                texts.append(open_text(target, job.name, clock, translator))
                opened.callback(texts[-1].close)
            if job.speech is not None:
                speech = open_speech(job.speech, translator.output_sample_rate)
                opened.callback(speech.close)
            yield speech, texts
    except BrokenPipeError:
        raise
    except OSError as error:
        names = " or ".join(str(target.working_path) for target in job.targets) or "the standard output"
        raise UserError(f"cannot write {error.filename or names}: {error.strerror or error}") from error


def open_speech(target: Target, sample_rate: int) -> SpeechWriter:
    """Writer of speech to a file or the standard output."""
    if target.path == PIPE:
        return PcmWriter(sys.stdout.buffer)
    return open_speech_file(target.working_path, sample_rate)


def open_text(target: Target, name: str, clock: str, translator: StreamingTranslator) -> TextWriter:
    """Writer of subtitles, or of JSON, by the suffix of the file; ``name``: of the recording."""
    if target.path.suffix.lower() == ".json":
        return JsonWriter(target.working_path, {"recording": name, "task": translator.task})
    return SubtitleWriter(target.working_path, translator.recomposer, clock)
