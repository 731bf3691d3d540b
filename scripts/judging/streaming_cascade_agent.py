"""A SimulEval agent to stand beside: what one would build today from parts that are there.

Whisper base translates all that has been heard, again with every piece of audio, and what two hypotheses in a row agree
on is final (local agreement; Liu et al. 2020, *Low-latency sequence-to-sequence speech recognition and translation by
partial hypothesis selection*; as Macháček et al. 2023 run Whisper in *Turning Whisper into a real-time transcription
system*). Hibari speaks the words that became final. `scripts/evaluate.sh --streaming-cascade` runs it; the segment size
is the piece of audio after which it listens again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
from simuleval.agents.actions import Action, ReadAction
from simuleval.utils import entrypoint

from echostream.constants import SAMPLE_RATE
from echostream.evaluation.record import StepRecord
from echostream.evaluation.states import StreamStates
from scripts.judging.cascade_agent import CascadeAgent, answer, spread_words

LONGEST_BUFFER_S = 15.0  # of audio that is heard again with every piece, if a sentence has ended in it
PROMPT_CHARACTERS = 200  # of what was written before the buffer


@dataclass(frozen=True)
class Part:
    """A phrase of a hypothesis, as Whisper divides it."""

    words: tuple[str, ...]
    end_s: float


class LocalAgreement:
    """What is final of a growing buffer's hypotheses."""

    def __init__(self) -> None:
        self.before = ""  # final text of audio that has left the buffer
        self.final: list[str] = []  # final words of the buffer
        self._last: list[str] = []

    def add(self, parts: list[Part], is_last: bool) -> list[str]:
        """The words that become final with another hypothesis of the buffer."""
        words = [word for part in parts for word in part.words]
        agreed = len(self.final)
        if is_last:
            agreed = max(agreed, len(words))
        else:
            while agreed < min(len(words), len(self._last)) and _same(words[agreed], self._last[agreed]):
                agreed += 1
        self._last = words
        new = words[len(self.final) : agreed]
        self.final += new
        return new

    def cut(self, parts: list[Part]) -> float:
        """Let the finished phrases go, all of whose words are final; the seconds of audio that go with them."""
        count, end_s = 0, 0.0
        for part in parts[:-1]:
            if count + len(part.words) > len(self.final):
                break
            count, end_s = count + len(part.words), part.end_s
        self.before = " ".join([self.before, *self.final[:count]])[-PROMPT_CHARACTERS:]
        self.final, self._last = self.final[count:], self._last[count:]
        return end_s


@dataclass
class Stream:
    """What is remembered of an utterance: audio that is heard again, float32 ``(n,)``, and how much was said."""

    agreement: LocalAgreement = field(default_factory=LocalAgreement)
    buffer: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    said_ms: float = 0.0


def _same(one: str, other: str) -> bool:
    """Case and punctuation at its edges don't make another word: they change with what follows."""
    return one.strip(".,;:!?…\"'").casefold() == other.strip(".,;:!?…\"'").casefold()


@entrypoint
class StreamingCascadeAgent(CascadeAgent):
    """Whisper base over all that was heard with every segment, local agreement of two, Hibari for what is final."""

    def policy(self, states: StreamStates | None = None) -> Action:
        """Listen again with every segment, and speak what has become final."""
        states = self.states if states is None else states
        if not states.has_new_input:
            return ReadAction()
        start, is_last = time.perf_counter(), states.source_finished
        stream = states.stream = states.stream or Stream()
        stream.buffer = np.concatenate([stream.buffer, states.take_new()])
        parts = self.parts(stream) if stream.buffer.any() else []
        text = " ".join(stream.agreement.add(parts, is_last))
        if len(stream.buffer) > LONGEST_BUFFER_S * SAMPLE_RATE:
            stream.buffer = stream.buffer[int(stream.agreement.cut(parts) * SAMPLE_RATE) :]
        samples = self.speak(text) if text else np.zeros(0, np.float32)
        compute_ms = 1000 * (time.perf_counter() - start)
        arrived_ms, output_ms = (1000 * count / SAMPLE_RATE for count in (states.arrived_samples, len(samples)))
        words = spread_words(text, arrived_ms, output_ms, stream.said_ms)
        stream.said_ms += output_ms
        record = StepRecord(arrived_ms, compute_ms, output_ms, f" {text}" if text else "", words=words)
        return answer(samples, record, states)

    def parts(self, stream: Stream) -> list[Part]:
        """Whisper's translation of the buffer, phrase by phrase."""
        segments, _ = self.whisper.transcribe(
            stream.buffer,
            task="translate",
            language=self.source_language,
            beam_size=5,
            temperature=0.0,
            condition_on_previous_text=False,
            initial_prompt=stream.agreement.before.strip() or None,
        )
        return [Part(tuple(segment.text.split()), segment.end) for segment in segments]
