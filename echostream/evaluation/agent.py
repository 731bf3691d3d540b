"""What EchoStream's SimulEval agents share: options, loading, one translator step a push, output segments."""

from __future__ import annotations

import math
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from simuleval.agents import GenericAgent, SpeechToSpeechAgent, SpeechToTextAgent
from simuleval.agents.actions import Action, ReadAction, WriteAction
from simuleval.data.segments import EmptySegment, Segment, SpeechSegment, TextSegment

from echostream.checkpoints.model_folder import ModelSettings
from echostream.checkpoints.model_store import resolve_model
from echostream.constants import FRAME_MS
from echostream.decoding.policy import POLICIES
from echostream.decoding.word_boundary import SourceWord
from echostream.evaluation.explained import say_what_was_meant
from echostream.evaluation.instances import ERROR_KEY, SOURCE_KEY
from echostream.evaluation.record import CONFIG_KEY, StepRecord, WordRecord
from echostream.evaluation.states import StreamStates
from echostream.streaming import OutputWord, StepOutput, StreamingTranslator
from echostream.streaming.live import LiveView

DEFAULT_SEGMENT_MS = 320


class EchoStreamAgent(GenericAgent):
    """Base of the agents; a subclass sets ``task`` and, by SimulEval's base class, the output type.

    The agent holds one translator and nothing about an utterance: that is in :class:`StreamStates`, so that
    SimulEval may hand in any number of states. Every push is one step of the translator, and whatever comes
    out is returned at once.
    """

    source_type = "speech"
    task = "s2st"

    def __init__(self, args: Namespace) -> None:
        self.translator = load_translator(args, self.task)
        # A server outlives a bad source: the client is told and stops. Otherwise this process stops.
        self.is_server = bool(getattr(args, "standalone", False))
        super().__init__(args)
        self.device = args.device
        self.live = getattr(args, "live", None)

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Options of the agents, beside SimulEval's own ``--device`` and ``--source-segment-size``."""
        say_what_was_meant(parser)
        group = parser.add_argument_group("EchoStream")
        group.add_argument(
            "--model-path",
            help="name of a model, checkpoint, or folder with model.yaml, which may say other defaults than below",
        )
        group.add_argument("--vocoder", help="unit vocoder: its directory or checkpoint (speech output)")
        group.add_argument(
            "--segment-ms",
            type=int,
            help="segment of the model, ms, a multiple of 40, 0 for the whole utterance "
            "(default: --source-segment-size)",
        )
        group.add_argument(
            "--right-context-frames",
            type=int,
            help="look-ahead of the encoder in frames of 40 ms (default: the trained one)",
        )
        group.add_argument("--policy", choices=POLICIES, help="when to write (default: alignment)")
        group.add_argument(
            "--stride-n", type=int, help="new target tokens in the evidence that a write needs (default: 1)"
        )
        group.add_argument(
            "--lag-k", type=int, help="target tokens that a write stays behind (default: the policy's own)"
        )
        group.add_argument("--beam", type=int, help="hypotheses of the MT decoder (default: 1, greedy)")
        group.add_argument("--source-lm", metavar="ARPA", help="language model of the source's subwords")
        group.add_argument("--lm-weight", type=float, help="of its log-probabilities (default: 0.8)")
        group.add_argument("--lm-bonus", type=float, help="for each of its subwords, in nats (default: 2)")
        group.add_argument(
            "--live",
            metavar="FILE",
            help="append what is heard and said, and when, to this file as it comes (/dev/stderr: the terminal)",
        )
        group.add_argument(
            "--random-arch",
            metavar="ARCH",
            help="random weights of this architecture instead of --model-path, to try the machinery",
        )

    def build_states(self) -> StreamStates:
        """State of a new utterance."""
        return StreamStates(self.translator.sample_rate)

    def to(self, device: str, *args: object, fp16: bool = False, **kwargs: object) -> None:
        """SimulEval's wish for a device, which the translator has followed while loading.

        Raises:
            SystemExit: half precision is asked for.
        """
        if fp16:
            raise SystemExit("error: --fp16 and --dtype fp16 are not supported: leave them out")

    def push(
        self,
        source_segment: Segment,
        states: StreamStates | None = None,
        upstream_states: list | None = None,
    ) -> None:
        """Take in a source segment.

        Raises:
            SystemExit: the source can't be used. A server passes the message on to its client instead.
        """
        states = self.states if states is None else states
        try:
            super().push(source_segment, states, upstream_states)
        except ValueError as error:
            name = source_segment.config.get(SOURCE_KEY)
            message = f"{name}: {error}" if name else str(error)
            if not self.is_server:
                raise SystemExit(f"error: {message}") from error
            states.config[ERROR_KEY] = message

    def policy(self, states: StreamStates | None = None) -> Action:
        """Step the translator over what was pushed since the last call and return what comes out.

        The segment's ``config`` holds the record of the step. ``finished`` is set once, at the source's end.
        """
        states = self.states if states is None else states
        if ERROR_KEY in states.config:
            states.target_finished = True
            refusal = {ERROR_KEY: states.config[ERROR_KEY]}
            return WriteAction(EmptySegment(finished=True, config=refusal), finished=True)
        if not states.has_news:
            return ReadAction()
        samples = states.take_new()
        if states.stream is None:
            states.stream = self.translator.init_state()
            states.view = LiveView(self.translator.recomposer)
            self.show("\n")
        finished = states.source_finished
        start = time.perf_counter()
        output = self.translator.step(samples, states.stream, is_last=finished)
        compute_ms = 1000 * (time.perf_counter() - start)
        self.show(states.view.add(output, states.stream, states.arrived_samples / self.translator.sample_rate))
        if finished:
            states.target_finished = True  # a returned Segment passes SimulEval's own bookkeeping by
            states.stream = None
        config = {CONFIG_KEY: self.record(output, states, compute_ms).to_dict()}
        return WriteAction(self.segment(output, finished, config), finished=finished)

    def show(self, text: str) -> None:
        """Append to the file that follows the translation, if one was asked for."""
        if self.live and text:
            with Path(self.live).open("a", encoding="utf-8") as file:
                file.write(text)

    def record(self, output: StepOutput, states: StreamStates, compute_ms: float) -> StepRecord:
        """What the step did, for the scorers."""
        return StepRecord(
            arrived_ms=1000 * states.arrived_samples / self.translator.sample_rate,
            compute_ms=compute_ms,
            output_ms=self.output_ms(output),
            text=self.new_text(output),
            source_text=output.source_text,
            evidence=output.evidence,
            words=tuple(self.word_record(word) for word in states.begun_words(self.new_words(output))),
            source_words=tuple(source_record(word) for word in output.source_words),
        )

    def new_words(self, output: StepOutput) -> list[OutputWord] | list[SourceWord]:
        """The words that this agent is about."""
        return output.words

    def new_text(self, output: StepOutput) -> str:
        """What to add to the text so far."""
        return output.text

    def word_record(self, word: Any) -> WordRecord:
        """A word for the scorers."""
        return WordRecord(word.text, 1000 * word.source_time_s, 1000 * word.start_s, 1000 * word.end_s)

    def output_ms(self, output: StepOutput) -> float:
        """Length of the audio that the step returns, ms."""
        return 0.0

    def segment(self, output: StepOutput, finished: bool, config: dict) -> Segment:
        """The output of a step as SimulEval's segment."""
        raise NotImplementedError


class EchoStreamWordLevelAgent(EchoStreamAgent, SpeechToSpeechAgent):
    """Returns speech as it comes; SimulEval has no place for its text, which is in ``config``."""

    def output_ms(self, output: StepOutput) -> float:
        """Length of the audio that the step returns, ms."""
        return 1000 * len(output.samples) / self.translator.output_sample_rate

    def segment(self, output: StepOutput, finished: bool, config: dict) -> Segment:
        """New samples, or an empty segment if there are none."""
        if len(output.samples) == 0:
            return EmptySegment(finished=finished, config=config)
        return SpeechSegment(
            content=output.samples.tolist(),
            sample_rate=self.translator.output_sample_rate,
            finished=finished,
            tgt_lang=None,  # SimulEval's default can't be written as JSON
            config=config,
        )


class EchoStreamS2TTAgent(EchoStreamAgent, SpeechToTextAgent):
    """Returns target words as they are committed."""

    task = "s2tt"

    def segment(self, output: StepOutput, finished: bool, config: dict) -> Segment:
        """New words, or an empty segment if there are none."""
        text = self.new_text(output)
        if not text.strip():
            return EmptySegment(finished=finished, config=config)
        return TextSegment(content=text, finished=finished, tgt_lang=None, config=config)


class EchoStreamASRAgent(EchoStreamS2TTAgent):
    """Returns source words as they are recognised."""

    task = "asr"

    def new_text(self, output: StepOutput) -> str:
        """What to add to the text so far."""
        return output.source_text

    def new_words(self, output: StepOutput) -> list[SourceWord]:
        """The words that this agent is about."""
        return output.source_words

    def word_record(self, word: Any) -> WordRecord:
        """A word for the scorers; its times are those in the source."""
        return WordRecord(word.text, 1000 * word.end_s, 1000 * word.start_s, 1000 * word.end_s)


def source_record(word: SourceWord) -> WordRecord:
    """A recognised word, with a leading space where it doesn't go on from the word before."""
    text = word.text if word.joined else f" {word.text}"
    return WordRecord(text, 1000 * word.end_s, 1000 * word.start_s, 1000 * word.end_s)


def load_translator(args: Namespace, task: str) -> StreamingTranslator:
    """Make the translator that the options ask for.

    Raises:
        SystemExit: neither or both of ``--model-path`` and ``--random-arch``, or something that the
        translator refuses.
    """
    if bool(args.model_path) == bool(args.random_arch):
        raise SystemExit("error: give --model-path, the checkpoint to evaluate")
    options = {
        "segment_ms": model_segment_ms(args),
        "right_context_frames": args.right_context_frames,
        "policy": args.policy,
        "stride_n": args.stride_n,
        "lag_k": args.lag_k,
        "beam": args.beam,
        "source_lm": args.source_lm,
        "lm_weight": args.lm_weight,
        "lm_bonus": args.lm_bonus,
    }
    try:
        if args.random_arch:
            settings = ModelSettings(Path()).with_options(**options)
            return StreamingTranslator.random(args.random_arch, 0, args.device, task=task, **settings.options)
        vocoder = args.vocoder if task == "s2st" else None
        return StreamingTranslator.from_checkpoint(
            resolve_model(args.model_path), vocoder, args.device, task=task, **options
        )
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error


def model_segment_ms(args: Namespace) -> int:
    """The model's segment: ``--segment-ms``, or else the pushed segment rounded up to whole frames of 40 ms.

    SimulEval's default push of 1 ms in a server says nothing about its clients, and stands for 320 ms there.
    """
    if args.segment_ms is not None:
        return args.segment_ms
    pushed_ms = getattr(args, "source_segment_size", 1)
    if pushed_ms == 1 and getattr(args, "standalone", False):
        return DEFAULT_SEGMENT_MS
    return FRAME_MS * math.ceil(pushed_ms / FRAME_MS)
