"""``echostream mic``: what the microphone hears, translated while one speaks."""

from __future__ import annotations

import argparse
import queue
import signal
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np

from echostream.audio.errors import AudioError
from echostream.audio.input import BLOCK_S, AudioStream
from echostream.audio.output import SpeechWriter
from echostream.cli.console import Console
from echostream.cli.options import UsageError, UserError, load_translator, settle_threads
from echostream.cli.outputs import PIPE, TEXT_SUFFIXES, Job, speech_target, text_target
from echostream.cli.session import Session
from echostream.cli.translate import check_outputs, choose_view, open_outputs, report, shower
from echostream.constants import SAMPLE_RATE
from echostream.installation import install_hint

MAX_BEHIND_S = 30.0  # audio that waits for a machine that is too slow; more is dropped and said so
POLL_S = 0.1


def run(args: argparse.Namespace) -> int:
    """Translate the microphone until Ctrl-C; returns the exit status.

    Raises:
        UserError: no sound device, or what it needs is not installed.
    """
    task = args.task or ("s2st" if args.output is not None or args.play else "s2tt")
    if args.play and task != "s2st":
        raise UsageError(f"--play needs speech, which --task {task} doesn't make")
    texts = zip((args.vtt, args.srt, None if args.json == PIPE else args.json), TEXT_SUFFIXES, strict=True)
    job = Job(
        Path("microphone"),
        speech_target(args.output) if args.output is not None else None,
        tuple(text_target(wish, suffix) for wish, suffix in texts if wish is not None),
    )
    into_pipe = job.speech is not None and job.speech.path == PIPE
    check_outputs(args, task, into_pipe)
    sounddevice = import_sounddevice()
    if args.list:
        print(sounddevice.query_devices() or "no sound devices")
        return 0
    console = Console(args.quiet, args.verbose, text_to_stderr=into_pipe)
    with explained(sounddevice), ExitStack() as stack:
        rate, name = microphone(sounddevice, device(args.input))
        translator = load_translator(args, task)
        console.detail(f"threads: {settle_threads(args, translator)}")
        speech, writers = stack.enter_context(open_outputs(job, args.vtt_clock, translator))
        if args.play:
            rate_out = translator.output_sample_rate
            speech = stack.enter_context(Player(sounddevice, device(args.play_on), rate_out, speech))
        make_view = choose_view(args, translator, console, is_long=False)
        view = make_view(job.name) if make_view else None
        session = Session(translator, view, shower(view, console), speech, writers)
        stop = stack.enter_context(stopped_by_ctrl_c())
        recorder = Recorder(sounddevice, device(args.input), rate, stop, args.duration_s)
        console.status(f"listening to {name} at {rate} Hz; Ctrl-C ends")
        with recorder:
            session.run(AudioStream("the microphone", recorder.chunks(), rate, 1))
        if recorder.lost_s:
            console.warning(f"{recorder.lost_s:.1f} s were lost: this machine is too slow for the model or its options")
    report(job, session, console)
    return 0


def import_sounddevice() -> ModuleType:
    """The optional package that knows sound devices.

    Raises:
        UserError: what is missing, and how to get it.
    """
    try:
        import sounddevice
    except ModuleNotFoundError as error:
        raise UserError(f"the microphone needs the package sounddevice: {install_hint('mic')}") from error
    except OSError as error:
        raise UserError(
            f"sound devices can't be used: {error}; install PortAudio (Debian: apt-get install libportaudio2)"
        ) from error
    return sounddevice


@contextmanager
def explained(sounddevice: ModuleType) -> Iterator[None]:
    """Errors of sound devices as the user's."""
    try:
        yield
    except AudioError:
        raise
    except (sounddevice.PortAudioError, ValueError) as error:
        raise UserError(f"the sound device can't be used: {error}; echostream mic --list shows all") from error


def device(name: str | None) -> int | str | None:
    """A device as sounddevice wants it: its number or a part of its name."""
    return int(name) if name is not None and name.isdigit() else name


def microphone(sounddevice: ModuleType, chosen: int | str | None) -> tuple[int, str]:
    """Sample rate to record at, 16 kHz if the device does that, and the name of the device."""
    try:
        found = sounddevice.query_devices(chosen, kind="input")
    except (sounddevice.PortAudioError, ValueError) as error:
        raise UserError(
            f"no microphone found ({error}); echostream mic --list shows the sound devices, "
            "and echostream translate - reads a pipe"
        ) from error
    try:
        sounddevice.check_input_settings(chosen, channels=1, dtype="float32", samplerate=SAMPLE_RATE)
        rate = SAMPLE_RATE
    except sounddevice.PortAudioError:
        rate = round(found["default_samplerate"])
    return rate, found["name"]


@contextmanager
def stopped_by_ctrl_c() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets; a second one interrupts."""
    stop = threading.Event()

    def interrupt(*_: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


class Recorder:
    """The microphone as chunks float32 ``(n, 1)``, until ``stop`` is set or ``duration_s`` are over."""

    def __init__(
        self,
        sounddevice: ModuleType,
        chosen: int | str | None,
        rate: int,
        stop: threading.Event,
        duration_s: float | None = None,
    ) -> None:
        self._rate, self._stop = rate, stop
        self._left = round(duration_s * rate) if duration_s is not None else None
        block = round(rate * BLOCK_S)
        self._heard: queue.Queue[np.ndarray] = queue.Queue(maxsize=round(MAX_BEHIND_S / BLOCK_S))
        self._lost = 0
        self._stream = sounddevice.InputStream(
            samplerate=rate, blocksize=block, device=chosen, channels=1, dtype="float32", callback=self._take
        )

    def _take(self, samples: np.ndarray, frames: int, _time: object, _status: object) -> None:
        """Called by the sound system, which must not wait."""
        try:
            self._heard.put_nowait(samples.copy())
        except queue.Full:
            self._lost += frames

    @property
    def lost_s(self) -> float:
        """Seconds that were dropped because nobody took them in time."""
        return self._lost / self._rate

    def chunks(self) -> Iterator[np.ndarray]:
        """What is heard, as it comes; in the end what is still waiting."""
        while self._left is None or self._left > 0:
            try:
                chunk = self._heard.get(timeout=POLL_S)
            except queue.Empty:
                if self._stop.is_set() or not self._stream.active:
                    return
                continue
            if self._stop.is_set():
                self._stream.stop()
            if self._left is not None:
                chunk = chunk[: self._left]
                self._left -= len(chunk)
            yield chunk

    def __enter__(self) -> Recorder:
        self._stream.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()


class Player:
    """Plays speech while it goes on to another writer, if there is one; closing waits until all was heard."""

    def __init__(
        self, sounddevice: ModuleType, chosen: int | str | None, rate: int, then: SpeechWriter | None = None
    ) -> None:
        self._then = then
        self._due: deque[np.ndarray] = deque()
        self._silent = threading.Event()
        self._stream = sounddevice.OutputStream(
            samplerate=rate, device=chosen, channels=1, dtype="float32", callback=self._give
        )

    def write(self, samples: np.ndarray) -> None:
        """Append float32 ``(n,)``."""
        if samples.size:
            self._silent.clear()
            self._due.append(samples)
        if self._then is not None:
            self._then.write(samples)

    def _give(self, out: np.ndarray, frames: int, _time: object, _status: object) -> None:
        """Called by the sound system, which must not wait."""
        filled = 0
        while filled < frames and self._due:
            piece = self._due.popleft()
            taken = piece[: frames - filled]
            out[filled : filled + len(taken), 0] = taken
            filled += len(taken)
            if len(taken) < len(piece):
                self._due.appendleft(piece[len(taken) :])
        out[filled:] = 0
        if not filled:
            self._silent.set()

    def close(self) -> None:
        """Play what is left."""
        while self._due and self._stream.active:
            self._silent.wait(POLL_S)
        self._stream.close()

    def __enter__(self) -> Player:
        self._stream.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self._due.clear()
        self.close()
