"""A SimulEval agent to stand beside: Whisper base translates the whole utterance into English, Hibari speaks it.

Both parts come from pip packages and are run as they are, one after the other, when the source has ended. It is
offline: what it shows is the quality that general models reach and the wait that they cost.
`scripts/evaluate.sh --cascade` runs it.
"""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from itertools import pairwise

import numpy as np
import soxr
from simuleval.agents import SpeechToSpeechAgent
from simuleval.agents.actions import Action, ReadAction, WriteAction
from simuleval.data.segments import EmptySegment, SpeechSegment
from simuleval.utils import entrypoint

from echostream.constants import SAMPLE_RATE
from echostream.evaluation.asr import find_model, load_whisper
from echostream.evaluation.record import CONFIG_KEY, StepRecord, WordRecord
from echostream.evaluation.states import StreamStates


@entrypoint
class CascadeAgent(SpeechToSpeechAgent):
    """Waits for the end of the source, then translates and speaks it in one step."""

    source_type = "speech"

    def __init__(self, args: Namespace) -> None:
        try:
            from hibari import Hibari  # optional: only this needs it
        except ImportError as error:
            raise SystemExit(
                f"error: --cascade needs hibari ({error}); install it with: pip install hibari-tts"
            ) from error
        try:
            model = find_model("base", args.source_language)
        except ValueError as error:
            raise SystemExit(f"error: {error}") from error
        self.source_language = args.source_language
        self.whisper = load_whisper(model, getattr(args, "asr_compute", "float32"))
        self.voice = Hibari(threads=1)
        super().__init__(args)

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Options of the agent."""
        parser.add_argument("--source-language", default="fr", help="two-letter code (default: fr)")

    def build_states(self) -> StreamStates:
        """State of a new utterance."""
        return StreamStates(SAMPLE_RATE)

    def policy(self, states: StreamStates | None = None) -> Action:
        """Read on to the end of the source, then answer with all speech at once."""
        states = self.states if states is None else states
        if not states.source_finished:
            return ReadAction()
        start = time.perf_counter()
        text = self.translate(states.take_new())
        samples = self.speak(text) if text else np.zeros(0, np.float32)
        compute_ms = 1000 * (time.perf_counter() - start)
        arrived_ms, output_ms = (1000 * count / SAMPLE_RATE for count in (states.arrived_samples, len(samples)))
        record = StepRecord(
            arrived_ms, compute_ms, output_ms, f" {text}", words=spread_words(text, arrived_ms, output_ms)
        )
        return answer(samples, record, states)

    def translate(self, samples: np.ndarray) -> str:
        """English text of float32 ``(n,)``; decoded as the judge decodes."""
        segments, _ = self.whisper.transcribe(
            samples,
            task="translate",
            language=self.source_language,
            beam_size=5,
            temperature=0.0,
            condition_on_previous_text=False,
        )
        return " ".join(segment.text.strip() for segment in segments).strip()

    def speak(self, text: str) -> np.ndarray:
        """Speech at 16 kHz, float32 ``(n,)``."""
        return soxr.resample(self.voice(text, seed=0), self.voice.sample_rate, SAMPLE_RATE).astype(np.float32)


def answer(samples: np.ndarray, record: StepRecord, states: StreamStates) -> WriteAction:
    """Speech, possibly none, with the record of its step; with the end of the source the utterance is over."""
    finished = states.target_finished = states.source_finished
    config = {CONFIG_KEY: record.to_dict()}
    if not len(samples):
        return WriteAction(EmptySegment(finished=finished, config=config), finished=finished)
    speech = SpeechSegment(
        content=samples.tolist(), sample_rate=SAMPLE_RATE, finished=finished, tgt_lang=None, config=config
    )
    return WriteAction(speech, finished=finished)


def spread_words(text: str, source_ms: float, output_ms: float, said_ms: float = 0.0) -> tuple[WordRecord, ...]:
    """Words with times in the output in proportion to their letters: the voice doesn't tell when it says them.

    ``said_ms`` of output came before.
    """
    words = text.split()
    bounds = np.cumsum([0, *map(len, words)]) * output_ms / max(1, sum(map(len, words)))
    return tuple(
        WordRecord(word, source_ms, said_ms + float(start), said_ms + float(end))
        for word, (start, end) in zip(words, pairwise(bounds), strict=True)
    )
