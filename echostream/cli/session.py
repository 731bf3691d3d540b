"""One stream through the translator and into whatever was asked for: words in the terminal, speech, text files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from echostream.audio.errors import AudioError
from echostream.constants import DEFAULT_SEGMENT_MS

if TYPE_CHECKING:
    from echostream.audio.output import SpeechWriter
    from echostream.streaming import EchoStreamState, StepOutput, StreamingTranslator

NOTHING = np.zeros(0, dtype=np.float32)
MAX_WHOLE_S = 600.0  # of a recording that is one segment, whose memory grows with the square of its length


class View(Protocol):
    """Makes text of what steps give, to be printed as it comes."""

    def add(self, output: StepOutput, state: EchoStreamState, time_s: float) -> str: ...


class TextWriter(Protocol):
    """Writes what steps give to a file."""

    def add(self, output: StepOutput, state: EchoStreamState) -> None: ...

    def close(self) -> None: ...


class Session:
    """A stream and its outputs, each written as soon as there is something.

    Args:
        translator: any number of sessions share it.
        view: makes text of a step, or None.
        show: where that text goes.
        speech: where speech goes, or None.
        texts: where words go.
    """

    def __init__(
        self,
        translator: StreamingTranslator,
        view: View | None = None,
        show: Callable[[str], None] = print,
        speech: SpeechWriter | None = None,
        texts: Sequence[TextWriter] = (),
    ) -> None:
        self.translator, self.view, self.show = translator, view, show
        self.speech, self.texts = speech, texts
        self.state = translator.init_state()
        self.heard_words = self.said_words = 0
        self.heard_s = self.spoken_s = self.compute_s = self.worst_lag_s = 0.0
        self.played_s = self.worst_speech_lag_s = 0.0  # when the speech so far is over, as the source plays; its lag

    def push(self, samples: np.ndarray, is_last: bool = False) -> None:
        """Translate what was heard, float32 ``(n,)``, and give out what follows."""
        start = time.perf_counter()
        output = self.translator.step(samples, self.state, is_last)
        self.compute_s += time.perf_counter() - start
        self.heard_s += samples.size / self.translator.sample_rate
        self.heard_words += len(output.source_words)
        self.said_words += len(output.words)
        speech_s = output.samples.size / self.translator.output_sample_rate
        self.spoken_s += speech_s
        if speech_s:
            self.played_s = max(self.played_s, self.heard_s) + speech_s
            self.worst_speech_lag_s = max(self.worst_speech_lag_s, self.played_s - self.heard_s)
        # Files come first: a reader who went away doesn't stop them.
        for writer in self.texts:
            writer.add(output, self.state)
        if self.view is not None and (text := self.view.add(output, self.state, self.heard_s)):
            self.show(text)
        if self.speech is not None:
            self.speech.write(output.samples)

    def run(
        self, blocks: Iterable[np.ndarray], realtime: bool = False, progress: Callable[[float], object] | None = None
    ) -> None:
        """Push all blocks of a source and end it.

        Args:
            blocks: float32 ``(n,)`` at 16 kHz.
            realtime: not faster than the source plays.
            progress: told the seconds of each block.

        Raises:
            AudioError: of the source, or of one that is too long for a single segment, once all that was heard before
                is translated.
        """
        failure = None
        started = time.monotonic()
        source = iter(blocks)
        while True:
            try:
                block = next(source, None)
            except AudioError as error:
                block, failure = None, error
            if block is None:
                break
            if not self.translator.segment_ms and self.heard_s >= MAX_WHOLE_S:
                failure = AudioError(
                    f"more than {MAX_WHOLE_S:.0f} s can't be taken as a whole, as --segment-ms 0 asks for: what came "
                    f"after that is left out; give --segment-ms {DEFAULT_SEGMENT_MS}"
                )
                break
            if realtime:
                # A block is there when it has been played, not before.
                due_s = self.heard_s + block.size / self.translator.sample_rate
                time.sleep(max(0.0, started + due_s - time.monotonic()))
            self.push(block)
            if realtime:
                self.worst_lag_s = max(self.worst_lag_s, time.monotonic() - started - self.heard_s)
            if progress is not None:
                progress(block.size / self.translator.sample_rate)
        self.push(NOTHING, is_last=True)
        if failure is not None:
            raise failure

    @property
    def summary(self) -> str:
        """How much was heard, and what it took."""
        text = f"{self.heard_s:.1f} s heard, computed in {self.compute_s:.2f} s"
        if self.heard_s:
            text += f", real-time factor {self.compute_s / self.heard_s:.3f}"
        if self.worst_speech_lag_s:
            text += f", speech over at most {self.worst_speech_lag_s:.1f} s after the source for it"
        if self.worst_lag_s:
            text += f", at most {1000 * self.worst_lag_s:.0f} ms behind the source"
        return text
