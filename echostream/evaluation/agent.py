"""EchoStream's SimulEval agents for speech, text and ASR output."""

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
from echostream.constants import DEFAULT_POLICY, DEFAULT_SEGMENT_MS, FRAME_MS, FULL_PRECISION, PRECISIONS
from echostream.decoding.policy_arguments import (
    POLICY_HELP,
    POLICY_OPTION_HELP,
    option_argument,
    options_of,
    policy_argument,
)
from echostream.decoding.word_boundary import SourceWord
from echostream.evaluation import streamspeech_options
from echostream.evaluation.error_messages import shorten_usage_errors
from echostream.evaluation.instances import ERROR_KEY, SOURCE_KEY
from echostream.evaluation.record import CONFIG_KEY, StepRecord, WordRecord
from echostream.evaluation.states import StreamStates
from echostream.printing import one_printable_line, printable
from echostream.streaming import OutputWord, StepOutput, StreamingTranslator
from echostream.streaming.live import LiveView
from echostream.streaming.state import join_words


class EchoStreamAgent(GenericAgent):
    """Base class of the agents; a subclass sets ``task`` and, with its SimulEval base class, the output type.

    An agent has one translator but no state of an utterance, which is in :class:`StreamStates`, so that one agent can
    serve any number of states. Every push is one step of the translator, and its output is returned at once.
    """

    source_type = "speech"
    task = "s2st"

    def __init__(self, args: Namespace) -> None:
        streamspeech_options.apply(args)
        self.translator = load_translator(args, self.task)
        # A server must survive a source that can't be used: it reports the error to the client, which stops. Without
        # a server this process stops.
        self.is_server = bool(getattr(args, "standalone", False))
        super().__init__(args)
        self.device = args.device
        self.live = getattr(args, "live", None)

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Options of the agents, beside SimulEval's own ``--device`` and ``--source-segment-size``."""
        shorten_usage_errors(parser)
        group = parser.add_argument_group("EchoStream")
        group.add_argument(
            "--model-path",
            help="name of a model, checkpoint, or folder with model.yaml, which may say other defaults than below",
        )
        group.add_argument("--vocoder", help="unit vocoder: its directory or checkpoint (speech output)")
        group.add_argument(
            "--segment-ms",
            type=int,
            help=f"segment of the model, ms, a multiple of {FRAME_MS}, 0 for the whole utterance "
            "(default: --source-segment-size)",
        )
        group.add_argument(
            "--right-context-frames",
            type=int,
            help="look-ahead of the encoder in its frames (default: the trained one)",
        )
        group.add_argument(
            "--policy", type=policy_argument, metavar="NAME", help=f"{POLICY_HELP} (default: {DEFAULT_POLICY})"
        )
        group.add_argument(
            "--stride-n", type=int, help="new target tokens in the evidence that a write needs (default: 1)"
        )
        group.add_argument(
            "--lag-k", type=int, help="target tokens that a write stays behind (default: the policy's own)"
        )
        group.add_argument(
            "--policy-option", type=option_argument, action="append", metavar="NAME=VALUE", help=POLICY_OPTION_HELP
        )
        group.add_argument("--beam", type=int, help="hypotheses of the MT decoder (default: 1, greedy)")
        group.add_argument("--source-lm", metavar="ARPA", help="language model of the source's subwords")
        group.add_argument("--lm-weight", type=float, help="of its log-probabilities (default: 0.8)")
        group.add_argument("--lm-bonus", type=float, help="for each of its subwords, in nats (default: 2)")
        group.add_argument(
            "--least-language",
            type=float,
            help="say nothing of a sentence that is less likely than this in the source language (default: 0)",
        )
        group.add_argument(
            "--least-confidence", type=float, help="leave out words of less than this, 0 to 1 (default: 0)"
        )
        group.add_argument(
            "--max-tempo", type=float, help="to which a voice that has fallen behind hurries (default: 1)"
        )
        group.add_argument("--vad", action="store_true", default=None, help="hear only what may be speech")
        group.add_argument(
            "--precision", choices=PRECISIONS, default=FULL_PRECISION, help=f"of products (default: {FULL_PRECISION})"
        )
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
        streamspeech_options.add_args(parser)

    def build_states(self) -> StreamStates:
        """State of a new utterance."""
        return StreamStates(self.translator.sample_rate)

    def to(self, device: str, *args: object, fp16: bool = False, **kwargs: object) -> None:
        """Part of SimulEval's interface; the translator was already loaded to ``device``.

        Raises:
            SystemExit: half precision is requested.
        """
        if fp16:
            raise SystemExit("error: --fp16 and --dtype fp16 are not supported: give --precision instead")

    def push(
        self,
        source_segment: Segment,
        states: StreamStates | None = None,
        upstream_states: list | None = None,
    ) -> None:
        """Add a source segment to the states.

        Raises:
            SystemExit: the source can't be used. A server sends the message to its client instead.
        """
        states = self.states if states is None else states
        try:
            super().push(source_segment, states, upstream_states)
        except ValueError as error:
            name = source_segment.config.get(SOURCE_KEY)
            message = f"{name}: {error}" if name else str(error)
            if not self.is_server:
                raise SystemExit(f"error: {one_printable_line(message)}") from error
            states.config[ERROR_KEY] = message

    def policy(self, states: StreamStates | None = None) -> Action:
        """Run one step of the translator on the new samples and return its output.

        The ``config`` of the returned segment contains the record of the step. ``finished`` is set at the end of the
        source only.
        """
        states = self.states if states is None else states
        if ERROR_KEY in states.config:
            states.target_finished = True
            refusal = {ERROR_KEY: states.config[ERROR_KEY]}
            return WriteAction(EmptySegment(finished=True, config=refusal), finished=True)
        if not states.has_new_input:
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
            states.target_finished = True  # SimulEval does not update it when an agent returns a Segment
            states.stream = None
        config = {CONFIG_KEY: self.record(output, states, compute_ms).to_dict()}
        return WriteAction(self.segment(output, finished, config), finished=finished)

    def show(self, text: str) -> None:
        """Append ``text`` to the file of ``--live``, if there is one."""
        if self.live and text:
            with Path(self.live).open("a", encoding="utf-8") as file:
                file.write(printable(text))

    def record(self, output: StepOutput, states: StreamStates, compute_ms: float) -> StepRecord:
        """The record of a step for the scorers."""
        return StepRecord(
            arrived_ms=1000 * states.arrived_samples / self.translator.sample_rate,
            compute_ms=compute_ms,
            output_ms=self.output_ms(output),
            text=self.new_text(output),
            source_text=output.source_text,
            evidence=output.evidence,
            words=tuple(self.word_record(word) for word in self.new_words(output)),
            source_words=tuple(source_word_record(word) for word in output.source_words),
            sentence_ends=tuple(len(join_words(output.words[:end])) for end in output.sentence_ends),
        )

    def new_words(self, output: StepOutput) -> list[OutputWord] | list[SourceWord]:
        """Words that this agent outputs."""
        return output.words

    def new_text(self, output: StepOutput) -> str:
        """Text to append to the output of this agent."""
        return output.text

    def word_record(self, word: Any) -> WordRecord:
        """The record of a word for the scorers."""
        return WordRecord(word.text, 1000 * word.source_time_s, 1000 * word.start_s, 1000 * word.end_s, word.joined)

    def output_ms(self, output: StepOutput) -> float:
        """Length of the output audio of a step in ms."""
        return 0.0

    def segment(self, output: StepOutput, finished: bool, config: dict) -> Segment:
        """Convert the output of a step to a SimulEval segment."""
        raise NotImplementedError


class EchoStreamWordLevelAgent(EchoStreamAgent, SpeechToSpeechAgent):
    """Returns speech; its text is in the ``config`` of the segments, because SimulEval has no field for it."""

    def output_ms(self, output: StepOutput) -> float:
        """Length of the output audio of a step in ms."""
        return 1000 * len(output.samples) / self.translator.output_sample_rate

    def segment(self, output: StepOutput, finished: bool, config: dict) -> Segment:
        """New samples, or an empty segment if there are none."""
        if len(output.samples) == 0:
            return EmptySegment(finished=finished, config=config)
        return SpeechSegment(
            content=output.samples.tolist(),
            sample_rate=self.translator.output_sample_rate,
            finished=finished,
            tgt_lang=None,  # SimulEval's default is not serialisable as JSON
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
        """Text to append to the output of this agent."""
        return output.source_text

    def new_words(self, output: StepOutput) -> list[SourceWord]:
        """Words that this agent outputs."""
        return output.source_words

    def word_record(self, word: Any) -> WordRecord:
        """The record of a word for the scorers, with its times in the source."""
        return WordRecord(word.text, 1000 * word.end_s, 1000 * word.start_s, 1000 * word.end_s, word.joined)


def source_word_record(word: SourceWord) -> WordRecord:
    """The record of a recognised word; its text starts with a space unless it continues the previous word."""
    return WordRecord(join_words([word]), 1000 * word.end_s, 1000 * word.start_s, 1000 * word.end_s)


def load_translator(args: Namespace, task: str) -> StreamingTranslator:
    """Load the translator that the options describe.

    Raises:
        SystemExit: neither or both of ``--model-path`` and ``--random-arch`` are given, the model can't be loaded, or
            an option is not valid.
    """
    if bool(args.model_path) == bool(args.random_arch):
        raise SystemExit("error: give --model-path, the checkpoint to evaluate")
    options = {
        "segment_ms": model_segment_ms(args),
        "right_context_frames": args.right_context_frames,
        "policy": args.policy,
        "stride_n": args.stride_n,
        "lag_k": args.lag_k,
        "policy_options": options_of(getattr(args, "policy_option", None)),
        "beam": args.beam,
        "source_lm": args.source_lm,
        "lm_weight": args.lm_weight,
        "lm_bonus": args.lm_bonus,
        "least_language": getattr(args, "least_language", None),
        "least_confidence": getattr(args, "least_confidence", None),
        "max_tempo": getattr(args, "max_tempo", None),
        "vad": getattr(args, "vad", None),
    }
    precision = getattr(args, "precision", FULL_PRECISION)
    try:
        if args.random_arch:
            settings = ModelSettings(Path()).with_options(**options)
            return StreamingTranslator.random(
                args.random_arch, 0, args.device, precision, task=task, **settings.options
            )
        vocoder = args.vocoder if task == "s2st" else None
        return StreamingTranslator.from_checkpoint(
            resolve_model(args.model_path),
            vocoder,
            args.device,
            task=task,
            vocoder_config=args.vocoder_cfg if vocoder else None,
            precision=precision,
            **options,
        )
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {one_printable_line(error)}") from error


def model_segment_ms(args: Namespace) -> int:
    """Segment of the model in ms: ``--segment-ms``, or else ``--source-segment-size`` rounded up to whole frames.

    In a server, SimulEval's default of 1 ms says nothing about the segments of the clients, and
    ``DEFAULT_SEGMENT_MS`` takes its place.
    """
    if args.segment_ms is not None:
        return args.segment_ms
    pushed_ms = getattr(args, "source_segment_size", 1)
    if pushed_ms == 1 and getattr(args, "standalone", False):
        return DEFAULT_SEGMENT_MS
    return FRAME_MS * math.ceil(pushed_ms / FRAME_MS)
