"""The runtime: audio in, translated words and speech out, one encoder segment after the other.

:meth:`StreamingTranslator.step_batch` is the whole line of the system. Whatever the pushes, the audio is cut into the
same segments, so the output depends on the audio alone.
"""

from __future__ import annotations

import copy
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from echostream.checkpoints.arpa_files import load_arpa
from echostream.checkpoints.model_files import load_model
from echostream.checkpoints.model_folder import ModelSettings
from echostream.checkpoints.model_store import resolve_model
from echostream.checkpoints.vocoder_files import load_vocoder
from echostream.constants import (
    DEFAULT_POLICY,
    DEFAULT_SEGMENT_MS,
    DEFAULT_TASK,
    FULL_PRECISION,
    LM_BONUS,
    LM_WEIGHT,
    MAX_BEAM,
    MAX_LM_SCALE,
    SAMPLE_RATE,
    UNIT_SAMPLES,
)
from echostream.decoding.confidence import Confidence
from echostream.decoding.policy import Policy, choose_policy
from echostream.decoding.prefix_beam_search import SourceTranscriber
from echostream.decoding.sentence_breaks import SentenceBreakDetector
from echostream.decoding.word_boundary import WordBoundaryDetector
from echostream.models.echostream_model import EchoStreamModel
from echostream.modules.precision import (
    computes_fast,
    full_precision_weight,
    precision_named,
    round_linear_layers,
)
from echostream.modules.state import stack, unstack
from echostream.streaming.options import TranslatorOptions
from echostream.streaming.random_parts import random_parts
from echostream.streaming.recogniser import Recogniser
from echostream.streaming.recomposer import SentenceRecomposer
from echostream.streaming.sentence_stage import Recognised, SentenceStage, Writing
from echostream.streaming.speech_gate import TRAIL_S, SpeechGate
from echostream.streaming.state import EchoStreamState, StepOutput, check_samples, check_state, in_use
from echostream.streaming.stepped_stream import Segment, SteppedStream
from echostream.streaming.translation import Source, Translation, stream_outputs, whole_translation
from echostream.streaming.word_level_translator import WordLevelTranslator
from echostream.vocoders.interface import UnitVocoder

logger = logging.getLogger(__name__)


class StreamingTranslator:
    """Simultaneous speech-to-speech translation of any number of streams.

    Args:
        model: a trained model in inference mode.
        source_symbols, target_symbols: its dictionaries.
        vocoder: speaks the units; None is enough for the text tasks.
        segment_ms: encoder segment, a multiple of the model's ``frame_ms``; 0 waits for the whole utterance.
        right_context_frames: look-ahead of a segment in encoder frames; None takes the trained one.
        policy: a policy, the name of one of :data:`echostream.decoding.policy.POLICIES`, or ``module:Class``, which
            names one of your own.
        task: ``s2st``, ``s2tt`` or ``asr``.
        stride_n, lag_k: of the policy; None as it has them.
        policy_options: other options of the policy by name.
        beam: hypotheses that the MT decoder keeps over the uncommitted part; 1 is greedy.
        source_lm: ARPA file over the source dictionary; with one, :class:`SourceTranscriber` finds the source words
            that are shown (the policy counts those of the greedy path), and :class:`SentenceBreakDetector` splits
            sentences that follow each other without a second of silence.
        lm_weight, lm_bonus: weight of the language model, and nats added for each symbol.
        confidence_slope, confidence_offset: what the decoder's probabilities mean, see
            :class:`echostream.decoding.confidence.Confidence`; None: not calibrated.
        least_language: see :class:`WordLevelTranslator`.
        least_confidence, max_tempo: see :class:`TranslatorOptions`.
        vad: hear only what may be speech, see :class:`echostream.streaming.speech_gate.SpeechGate`.

    Attributes:
        options: the options that can be changed, an immutable value.

    Raises:
        ValueError: an option out of range, a vocoder or language model that doesn't fit the model, or no vocoder for
            ``s2st``.
    """

    sample_rate = SAMPLE_RATE

    def __init__(
        self,
        model: EchoStreamModel,
        source_symbols: Sequence[str],
        target_symbols: Sequence[str],
        vocoder: UnitVocoder | None = None,
        segment_ms: int = DEFAULT_SEGMENT_MS,
        right_context_frames: int | None = None,
        policy: str | Policy = DEFAULT_POLICY,
        task: str = DEFAULT_TASK,
        stride_n: int | None = None,
        lag_k: int | None = None,
        beam: int = 1,
        source_lm: str | os.PathLike[str] | None = None,
        lm_weight: float = LM_WEIGHT,
        lm_bonus: float = LM_BONUS,
        policy_options: Mapping[str, Any] | None = None,
        confidence_slope: float | None = None,
        confidence_offset: float | None = None,
        least_language: float = 0.0,
        least_confidence: float = 0.0,
        vad: bool = False,
        max_tempo: float = 1.0,
    ) -> None:
        if (confidence_slope is None) != (confidence_offset is None):
            raise ValueError("confidence_slope and confidence_offset belong together: give both or neither")
        if not all(math.isfinite(value) for value in (confidence_slope or 0.0, confidence_offset or 0.0)):
            raise ValueError("confidence_slope and confidence_offset must be finite numbers")
        if not 1 <= beam <= MAX_BEAM:
            raise ValueError(f"beam must be at least 1 and at most {MAX_BEAM}, got {beam}")
        for name, value in (("lm_weight", lm_weight), ("lm_bonus", lm_bonus)):
            if not abs(value) <= MAX_LM_SCALE:
                raise ValueError(f"{name} must be a number from {-MAX_LM_SCALE:g} to {MAX_LM_SCALE:g}, got {value}")
        if vocoder is not None and vocoder.num_units != model.unit_decoder.num_units:
            raise ValueError(
                f"the vocoder speaks {vocoder.num_units} units but the model writes {model.unit_decoder.num_units}: "
                "use the vocoder that was trained with the model's units"
            )
        if task == "s2st" and vocoder is None:
            raise ValueError("the task s2st needs a vocoder: give one, or choose s2tt")
        self.model, self.vocoder = model, vocoder
        self.output_sample_rate = vocoder.sample_rate if vocoder is not None else SAMPLE_RATE
        self.detector = WordBoundaryDetector(source_symbols, model.frame_ms)
        self.transcriber: SourceTranscriber | None = None
        self.breaks: SentenceBreakDetector | None = None
        if source_lm is not None:
            language_model = load_arpa(source_lm, source_symbols)
            self.transcriber = SourceTranscriber(
                source_symbols, language_model, lm_weight, lm_bonus, frame_ms=model.frame_ms
            )
            self.breaks = SentenceBreakDetector(language_model, model.frame_ms)
        self.recogniser = Recogniser(model.asr_head, model.st_head, target_symbols, self.detector, self.transcriber)
        confidence = Confidence(confidence_slope, confidence_offset)
        self.writer = WordLevelTranslator(model, target_symbols, beam, confidence, least_language=least_language)
        self.recomposer = SentenceRecomposer(
            self.output_sample_rate, vocoder.hop_samples if vocoder is not None else UNIT_SAMPLES
        )
        self.sentences = SentenceStage(self.writer, self.recomposer, self.breaks, vocoder)
        self.gate = SpeechGate() if vad else None
        right_context = model.cfg.right_context_frames if right_context_frames is None else right_context_frames
        chosen = choose_policy(policy, **{**(policy_options or {}), "stride_n": stride_n, "lag_k": lag_k})
        self.options = TranslatorOptions(
            segment_ms, right_context, chosen, task, model.frame_ms, least_confidence, max_tempo
        )

    @classmethod
    def from_checkpoint(
        cls,
        path: str | os.PathLike[str],
        vocoder: str | os.PathLike[str] | None = None,
        device: str = "cpu",
        vocoder_config: str | os.PathLike[str] | None = None,
        precision: str = FULL_PRECISION,
        **options: Any,
    ) -> StreamingTranslator:
        """Load a checkpoint written by training, or a folder with ``model.yaml``.

        Args:
            path: of either. The checkpoint that a ``model.yaml`` beside it names stands for its folder.
            vocoder: by default the folder's, or a folder ``vocoder`` beside the checkpoint.
            device: where to compute.
            vocoder_config: the vocoder's ``config.json``, if it isn't beside its weights.
            precision: of products of matrices, see :mod:`echostream.modules.precision`.
            options: of the translator; what is left out or None is as the folder says.

        Raises:
            CheckpointError, VocoderError: files that are missing, damaged or don't fit; both are ValueErrors.
            ValueError: no such precision.
        """
        dtype = precision_named(precision)
        if not computes_fast(dtype, device):
            logger.warning("this processor has no instructions for %s: %s will be faster", precision, FULL_PRECISION)
        task = {"task": options.pop("task")} if "task" in options else {}
        settings = ModelSettings.of(path).with_options(vocoder=vocoder, **options)
        loaded = load_model(settings.checkpoint, device)
        beside = settings.checkpoint.parent / "vocoder"
        vocoder = settings.vocoder or (beside if beside.is_dir() else None)
        speaker = load_vocoder(vocoder, device, vocoder_config) if vocoder is not None else None
        for module in (loaded.model, speaker):
            if module is not None:
                round_linear_layers(module, dtype)
        return cls(loaded.model, loaded.source_symbols, loaded.target_symbols, speaker, **settings.options, **task)

    @classmethod
    def from_pretrained(cls, model: str | os.PathLike[str] | None = None, **options: Any) -> StreamingTranslator:
        """Load a model by its name, as ``echostream models list`` shows them, or by its path.

        Args:
            model: a name such as ``fr-en``, or a path; None: the only model there is.
            options: as of :meth:`from_checkpoint`.

        Raises:
            CheckpointError, VocoderError: no such model, or one that is damaged; both are ValueErrors.
        """
        return cls.from_checkpoint(resolve_model(model), **options)

    @classmethod
    def random(
        cls,
        arch: str = "echostream",
        seed: int = 0,
        device: str = "cpu",
        precision: str = FULL_PRECISION,
        **options: Any,
    ) -> StreamingTranslator:
        """A translator with random weights and made-up words, for benchmarks and tests: needs no files."""
        dtype = precision_named(precision)
        model, symbols, vocoder = random_parts(arch, seed)
        for module in (model, vocoder):
            round_linear_layers(module.to(device).eval().requires_grad_(False), dtype)
        return cls(model, symbols, symbols, vocoder, **options)

    @property
    def segment_ms(self) -> int:
        """Encoder segment in milliseconds; 0: the whole utterance."""
        return self.options.segment_ms

    @segment_ms.setter
    def segment_ms(self, value: int) -> None:
        self.options = replace(self.options, segment_ms=value)

    @property
    def right_context_frames(self) -> int:
        """Look-ahead of a segment in encoder frames."""
        return self.options.right_context_frames

    @right_context_frames.setter
    def right_context_frames(self, value: int) -> None:
        self.options = replace(self.options, right_context_frames=value)

    @property
    def policy(self) -> Policy:
        """Decides when to write, and how much."""
        return self.options.policy

    @policy.setter
    def policy(self, value: str | Policy) -> None:
        self.options = self.options.with_policy(value)

    @property
    def task(self) -> str:
        """``s2st``: speech and text; ``s2tt``: text; ``asr``: source text only."""
        return self.options.task

    @task.setter
    def task(self, value: str) -> None:
        options = replace(self.options, task=value)
        if value == "s2st" and self.vocoder is None:
            raise ValueError("the task s2st needs a vocoder: give one, or choose s2tt")
        self.options = options

    def set_policy(self, policy: str | Policy, /, **options: Any) -> None:
        """Choose the policy, given itself or by name, with its options."""
        self.options = self.options.with_policy(policy, **options)

    def view(
        self,
        segment_ms: int | None = None,
        policy: str | Policy | None = None,
        task: str | None = None,
        stride_n: int | None = None,
        lag_k: int | None = None,
        policy_options: Mapping[str, Any] | None = None,
        least_confidence: float | None = None,
    ) -> StreamingTranslator:
        """The same model under other options, which are those of this translator where None is given.

        All modules are shared, so that a view costs next to nothing. ``stride_n``, ``lag_k`` and ``policy_options``,
        which are others by name, are options of the policy given, or else of this translator's. States of views that
        agree in all options may be stepped in one batch by any of them.

        Raises:
            ValueError: an option out of range, or one that the policy doesn't have.
        """
        other = copy.copy(self)
        if segment_ms is not None:
            other.segment_ms = segment_ms
        chosen = {**(policy_options or {}), "stride_n": stride_n, "lag_k": lag_k}
        other.options = other.options.with_policy(policy, **chosen)
        if least_confidence is not None:
            other.options = replace(other.options, least_confidence=least_confidence)
        if task is not None:
            other.task = task
        return other

    def init_state(self) -> EchoStreamState:
        """A fresh stream."""
        translates = self.task != "asr"
        return EchoStreamState(
            samples=[],
            fbank=self.model.fbank.init_state(),
            encoder=self.model.encoder.init_state(),
            recogniser=self.recogniser.init_state(),
            translation=self.sentences.init_state(with_speech=self.task == "s2st") if translates else None,
            task=self.task,
            frame_ms=self.model.frame_ms,
            gate=self.gate.init_state() if self.gate is not None else None,
        )

    def step(self, samples: np.ndarray | Tensor, state: EchoStreamState, is_last: bool = False) -> StepOutput:
        """Take in audio and give out what follows from it.

        Args:
            samples: float32 ``(n,)`` at 16 kHz in [-1, 1], ``n >= 0``.
            state: of this stream; the only thing that changes, and only if the step succeeds.
            is_last: the source ends with these samples: everything still due is given out.

        Raises:
            ValueError: samples that are not one finite channel, or a stream that has ended or belongs to another task.
        """
        return self.step_batch([samples], [state], [is_last])[0]

    def stream(self, source: Source) -> Iterator[StepOutput]:
        """Translate a source that comes in chunks, as it comes: an increment for each chunk, and one for the end.

        Args:
            source: chunks as of :meth:`step`, of any sizes; one array; or the path of a recording or video.

        Raises:
            ValueError: as :meth:`step`. Of an error of the source, what was heard before is given out first.
        """
        return stream_outputs(self, source)

    def translate(self, source: Source) -> Translation:
        """Translate a source to its end: the whole of what :meth:`stream` gives.

        Args:
            source: as of :meth:`stream`. An array doesn't say its sample rate, which must be 16 kHz; a path does.

        Raises:
            ValueError: as :meth:`stream`.
        """
        return whole_translation(self, source)

    @torch.inference_mode()
    def step_batch(
        self,
        samples: Sequence[np.ndarray | Tensor],
        states: Sequence[EchoStreamState],
        is_last: Sequence[bool],
    ) -> list[StepOutput]:
        """:meth:`step` for several streams, at any points of theirs, which share the passes of all networks.

        If it fails, for whichever stream, all states are as they were, and the step can be tried again without it.

        Raises:
            ValueError: as :meth:`step`, or the same state twice.
        """
        with in_use(states):
            streams = self._open(samples, states, is_last)
            for segments in self._segments(streams):
                recognised: dict[SteppedStream, Recognised] = {}
                for segment in segments:
                    features = self._features(segment)  # (B, T, 80) @100 Hz
                    frames = self._encode(features, segment)  # (B, C, D)
                    recognised |= self._recognise(frames, segment)  # source words, and evidence for the policy
                if self.task != "asr":
                    writings = self._decide_and_write(recognised)  # target words, and their units
                    self._speak_and_recompose(writings)  # samples, word times and sentence ends
            return [stream.commit() for stream in streams]

    def _open(
        self, samples: Sequence[np.ndarray | Tensor], states: Sequence[EchoStreamState], is_last: Sequence[bool]
    ) -> list[SteppedStream]:
        """The streams of a step, if all that was given is right."""
        if not len(samples) == len(states) == len(is_last):
            raise ValueError(
                f"a step needs samples, a state and is_last of each stream, got {len(samples)}, {len(states)} and "
                f"{len(is_last)} of them"
            )
        for name, module in (("model", self.model), ("vocoder", self.vocoder)):
            weight = full_precision_weight(module) if module is not None else None
            if weight is not None and weight.dtype not in (torch.float32, torch.float64):
                kind = str(weight.dtype).removeprefix("torch.")
                raise ValueError(
                    f"the {name}'s weights are {kind}, not float32: call {name}.float(), and choose a lower precision "
                    "when loading"
                )
        streams = []
        for number, (piece, state, last) in enumerate(zip(samples, states, is_last, strict=True)):
            try:
                check_state(state, self.task)
                streams.append(self._stream(check_samples(piece), state, last))
            except ValueError as error:
                raise ValueError(f"stream {number} of the step: {error}" if len(states) > 1 else str(error)) from error
        return streams

    def _stream(self, samples: np.ndarray, state: EchoStreamState, is_last: bool) -> SteppedStream:
        """A stream of a step, which hears what its gate lets through."""
        gate = state.gate
        if gate is not None:
            if self.gate is None:
                raise ValueError("this stream was started with a speech gate: go on with a translator that has one")
            # As much silence as ends a sentence, and the segments in which it is heard.
            options = self.options
            trail_ms = 1000 * TRAIL_S + options.segment_ms + options.right_context_frames * options.frame_ms
            samples, gate = self.gate.step(samples, gate, trail_ms / 1000, is_last)
        stream = SteppedStream(samples, state, is_last)
        stream.state.gate = gate
        return stream

    def _segments(self, streams: Sequence[SteppedStream]) -> Iterator[list[Segment]]:
        """The next segment of each stream that has one, alike ones together, until there are none.

        The last segment of a stream that ends is whatever is left of it when no whole one is waiting.
        """
        while True:
            groups: dict[tuple[int, int], list[SteppedStream]] = {}
            ending: list[SteppedStream] = []
            for stream in streams:
                state = stream.state
                if state.finished:
                    continue
                if self.options.segment_ms and not self._missing(state):
                    # Streams whose encoders hold equally many frames ahead can share a batch.
                    pending = state.encoder.emformer.pending.size(1)
                    groups.setdefault((pending, self._samples_for(state)), []).append(stream)
                elif stream.is_last:
                    ending.append(stream)
            if not groups and not ending:
                return
            segments = [Segment(members, num_samples, is_last=False) for (_, num_samples), members in groups.items()]
            yield segments + [Segment([stream], stream.state.waiting_samples, is_last=True) for stream in ending]
            for stream in ending:
                stream.state.finished = True

    def missing_samples(self, state: EchoStreamState) -> int:
        """Samples still to be pushed until the next segment can be translated; 0: it is there already.

        Raises:
            ValueError: segments are whole utterances, which only ``is_last`` ends.
        """
        if not self.options.segment_ms:
            raise ValueError("with segment_ms 0 the next segment is there when the source ends, not before")
        missing = self._missing(state)
        return missing if state.gate is None else state.gate.missing(missing)

    def _missing(self, state: EchoStreamState) -> int:
        """The same of what a speech gate lets through."""
        return max(0, self._samples_for(state) - state.waiting_samples)

    def _samples_for(self, state: EchoStreamState) -> int:
        """Samples that the next segment and its right context need, beside what the front end has kept."""
        options = self.options
        features = self.model.encoder.missing_features(
            options.segment_frames, options.right_context_frames, state.encoder
        )
        return self.model.fbank.missing_samples(features, state.fbank)

    def _features(self, segment: Segment) -> Tensor:
        """Log-mel features ``(B, T, 80)`` @100 Hz of the segment's samples."""
        rows = []
        for stream in segment.streams:
            samples = torch.from_numpy(stream.take(segment.num_samples)).to(self.model.fbank.device)
            features, stream.state.fbank = self.model.fbank(samples, stream.state.fbank)
            rows.append(features)
        return torch.stack(rows)

    def _encode(self, features: Tensor, segment: Segment) -> Tensor:
        """Encoder frames ``(B, C, D)``."""
        frames, _, encoder = self.model.encoder(
            features,
            state=stack([stream.state.encoder for stream in segment.streams]),
            segment=self.options.segment_frames,
            right_context=self.options.right_context_frames,
            is_last=segment.is_last,
        )
        if encoder is not None:  # none is left behind by the last segment
            for stream, state in zip(segment.streams, unstack(encoder), strict=True):
                stream.state.encoder = state
        for stream in segment.streams:
            stream.state.frames += frames.size(1)
        return frames

    def _recognise(self, frames: Tensor, segment: Segment) -> dict[SteppedStream, Recognised]:
        """Source words, and what the policy counts, of each stream."""
        states = [stream.state.recogniser for stream in segment.streams]
        recognitions = self.recogniser.step(frames, states, segment.is_last, with_target=self.task != "asr")
        recognised = {}
        for stream, row, (recognition, state) in zip(segment.streams, frames.split(1), recognitions, strict=True):
            stream.state.recogniser = state
            stream.hear(recognition.words)
            stream.evidence += recognition.evidence
            recognised[stream] = Recognised(row, recognition, segment.is_last)
        return recognised

    def _decide_and_write(self, recognised: Mapping[SteppedStream, Recognised]) -> dict[SteppedStream, list[Writing]]:
        """Target words that the policy lets each stream write, with their units."""
        states = [stream.translation for stream in recognised]
        written = self.sentences.write(list(recognised.values()), self.policy, states)
        writings = {}
        for stream, (words, state) in zip(recognised, written, strict=True):
            stream.state.translation = state
            writings[stream] = words
        return writings

    def _speak_and_recompose(self, writings: Mapping[SteppedStream, list[Writing]]) -> None:
        """Speech of what was written, and the words' places in it."""
        spoken = self.sentences.speak(
            list(writings.values()),
            [stream.translation for stream in writings],
            [stream.state.source_time_s(stream.state.frames) for stream in writings],
            self.options.least_confidence,
            self.options.max_tempo,
        )
        for stream, one in zip(writings, spoken, strict=True):
            stream.state.translation = one.state
            stream.sentence_ends += [len(stream.words) + end for end in one.ends]
            stream.words += one.words
            stream.pieces.append(one.samples)
