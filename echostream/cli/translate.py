"""``echostream translate`` and ``echostream asr``: recordings, or a pipe, as they would be heard live."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from echostream.audio.input import PCM_TYPES, AudioError, AudioStream, open_audio, open_pcm
from echostream.audio.output import PcmWriter, SpeechWriter, WavWriter
from echostream.cli.console import Console
from echostream.cli.options import UsageError, UserError, add_model_options, add_verbosity, at_least, load_translator
from echostream.cli.outputs import PIPE, Job, Target, drop_existing, find_recordings, plan
from echostream.cli.session import Session
from echostream.streaming.live import LiveView, PlainText
from echostream.streaming.subtitles import CLOCKS, SubtitleWriter

if TYPE_CHECKING:
    from echostream.streaming import StreamingTranslator

TRANSLATE_HELP = """
what comes of it:
  The words are shown live on the standard output, with the time at which they were heard or said; --text prints the
  text alone, a sentence a line. Everything else that is said goes to the standard error.
  Speech goes to -o, or beside the recording as NAME.translated.wav. With several recordings or a folder, -o and --vtt
  are folders. Files named by -o and --vtt for one recording are overwritten; names derived from a recording's are
  kept if they exist, so that a second run does what is left (--force: do all again), and have .part in them until
  they are whole.

examples:
  echostream translate talk.mp3 --model runs/model/checkpoint_last.pt -o talk.en.wav --vtt talk.vtt
  echostream translate talks/ --model checkpoint_last.pt -o translated/
  echostream translate talk.wav --model checkpoint_last.pt --text > talk.en.txt
  echostream translate talk.wav --model checkpoint_last.pt --task s2tt --segment-ms 40 --realtime
  arecord -t raw -f S16_LE -r 16000 | echostream translate - --model checkpoint_last.pt | aplay -f S16_LE -r 16000
"""
ASR_HELP = """
examples:
  echostream asr talk.mp3 --model runs/model/checkpoint_last.pt
  echostream asr talk.mp3 --model checkpoint_last.pt --text > talk.txt
  echostream asr talks/ --model checkpoint_last.pt --vtt subtitles/
  sox talk.wav -t s16 -r 16000 -c 1 - | echostream asr - --model checkpoint_last.pt --text
"""
EXIT_STATUS = """
exit status: 0 all done; 1 a recording failed (the others were done); 2 wrong options; 130 stopped by Ctrl-C, 143 by
a signal, 141 because the reader of a pipe went away: what was made until then is kept.
"""


def add_arguments(parser: argparse.ArgumentParser, task: str | None = None) -> None:
    """Options of ``translate``, or of ``asr`` where ``task`` says so."""
    parser.add_argument("audio", type=Path, nargs="+", metavar="IN", help="recording, folder of recordings, or -")
    group = parser.add_argument_group("output")
    if task is None:
        group.add_argument("-o", "--output", type=Path, metavar="OUT.wav", help="speech; -: raw s16le to a pipe")
        group.add_argument(
            "--task",
            choices=("s2st", "s2tt", "asr"),
            help="translate to speech and text, to text alone, or transcribe (s2st; s2tt with --text and no -o)",
        )
    else:
        parser.set_defaults(output=None, task=task)
    add_text_options(group, with_clock=task is None)
    group.add_argument("--force", action="store_true", help="overwrite files with derived names too")
    group = parser.add_argument_group("input")
    group.add_argument("--realtime", action="store_true", help="take the recording no faster than it plays")
    group.add_argument("--input-format", choices=tuple(PCM_TYPES), help="of the samples in - (s16le)")
    group.add_argument("--input-rate", type=at_least(4000), metavar="HZ", help="sample rate of - (16000)")
    group.add_argument("--input-channels", type=at_least(1), metavar="N", help="interleaved channels of - (1)")
    add_model_options(parser)
    add_verbosity(parser)


def add_text_options(group: argparse._ArgumentGroup, with_clock: bool = True) -> None:
    """``--text`` and ``--vtt``."""
    group.add_argument("--text", action="store_true", help="print the text alone, a sentence a line")
    group.add_argument("--vtt", type=Path, metavar="OUT.vtt", help="WebVTT subtitles: source and translation")
    if with_clock:
        group.add_argument(
            "--vtt-clock",
            choices=CLOCKS,
            default="source",
            help="times of the subtitles: those of the recording, or of the spoken translation alone (source)",
        )
    else:
        group.set_defaults(vtt_clock="source")


def run(args: argparse.Namespace) -> int:
    """Translate what the options say; returns the exit status."""
    sources = find_recordings(args.audio)
    is_batch = len(args.audio) > 1 or any(path.is_dir() for path in args.audio)
    task = args.task or ("s2tt" if args.text and args.output is None else "s2st")
    jobs = plan(sources, args.output, args.vtt, task == "s2st", is_batch)
    into_pipe = any(job.speech is not None and job.speech.path == PIPE for job in jobs)
    check_outputs(args, task, into_pipe)
    check_inputs(args)
    console = Console(args.quiet, args.verbose, text_to_stderr=into_pipe)
    if not jobs:
        console.error(f"no recordings in {args.audio[0]}")
        return 1
    todo, durations_s, failed = prepare(jobs, args.force, console)
    if not todo:
        return int(failed)
    start = time.perf_counter()
    translator = load_translator(args, task)
    console.detail(f"{args.model}: loaded in {time.perf_counter() - start:.1f} s on {args.device}")
    writes_files = any(job.targets for job in todo)
    make_view = choose_view(args, translator, is_batch and writes_files)
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
                translate(job, args, translator, make_view() if make_view else None, console)
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
    if into_pipe and args.text:
        raise UsageError("--text and raw speech can't both go to the standard output: give -o OUT.wav")
    if into_pipe and sys.stdout.isatty():
        raise UsageError("speech would go to the terminal as raw samples: give -o OUT.wav, --text, or a pipe")


def check_inputs(args: argparse.Namespace) -> None:
    """Refuse options of a pipe without one, and a pipe that is a keyboard.

    Raises:
        UsageError: with what and why.
    """
    if PIPE in args.audio:
        if sys.stdin.isatty():
            raise UsageError("- reads raw samples from the standard input, which is a terminal: pipe them in")
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
    args: argparse.Namespace, translator: StreamingTranslator, is_long: bool
) -> Callable[[], LiveView | PlainText] | None:
    """Factory of what shows the text of a recording, or None; ``is_long``: only those who ask see all of it."""
    if args.text:
        return lambda: PlainText(translator.recomposer, translator.task == "asr")
    if args.quiet or (is_long and not args.verbose):
        return None
    return lambda: LiveView(translator.recomposer)


def translate(
    job: Job,
    args: argparse.Namespace,
    translator: StreamingTranslator,
    view: LiveView | PlainText | None,
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
        with open_outputs(job, args.vtt_clock, translator) as (speech, subtitles):
            session = Session(translator, view, console.text, speech, subtitles)
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
    if job.subtitles is not None:
        line += f"; subtitles in {job.subtitles.path}"
    console.status(line)


def open_source(source: Path, args: argparse.Namespace) -> AudioStream:
    """The recording, or the samples of the pipe."""
    if source != PIPE:
        return open_audio(source)
    encoding, rate = args.input_format or "s16le", args.input_rate or 16_000
    return open_pcm(sys.stdin.buffer, rate, args.input_channels or 1, encoding)


@contextmanager
def open_outputs(
    job: Job, clock: str, translator: StreamingTranslator
) -> Iterator[tuple[SpeechWriter | None, SubtitleWriter | None]]:
    """Writers of speech and subtitles, closed in the end, whatever happens.

    Raises:
        UserError: a place that can't be written to, in the beginning or, when the disk is full, later.
    """
    speech: SpeechWriter | None = None
    subtitles: SubtitleWriter | None = None
    try:
        with ExitStack() as opened:
            if job.subtitles is not None:
                subtitles = SubtitleWriter(job.subtitles.working_path, translator.recomposer, clock)
                opened.callback(subtitles.close)
            if job.speech is not None:
                speech = open_speech(job.speech, translator.output_sample_rate)
                opened.callback(speech.close)
            yield speech, subtitles
    except BrokenPipeError:
        raise
    except OSError as error:
        names = " or ".join(str(target.working_path) for target in job.targets) or "the standard output"
        raise UserError(f"cannot write {error.filename or names}: {error.strerror or error}") from error


def open_speech(target: Target, sample_rate: int) -> SpeechWriter:
    """Writer of speech to a file or the standard output."""
    if target.path == PIPE:
        return PcmWriter(sys.stdout.buffer)
    return WavWriter(target.working_path, sample_rate)
