"""The runtime: audio in, translated words and speech out, one encoder segment after the other.

:meth:`StreamingTranslator.step` is the whole line of the system. Whatever the pushes, the audio is cut into the same
segments, so the output depends on the audio alone.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from echostream.checkpoints.model_folder import ModelSettings
from echostream.checkpoints.training_checkpoint import load_model
from echostream.checkpoints.vocoder_files import load_vocoder
from echostream.constants import FRAME_MS, FRAME_S, SAMPLE_RATE, TASKS
from echostream.decoding.ngram import load_arpa
from echostream.decoding.policy import UNLIMITED, Policy, build_policy
from echostream.decoding.prefix_beam_search import LM_BONUS, LM_WEIGHT, SourceTranscriber
from echostream.decoding.sentence_breaks import SentenceBreakDetector
from echostream.decoding.word_boundary import SourceWord, WordBoundaryDetector
from echostream.models.config import architecture_config
from echostream.models.echostream_model import EchoStreamModel
from echostream.modules.ctc import CTCReader
from echostream.modules.fbank import SHIFT_SAMPLES, WINDOW_SAMPLES
from echostream.modules.subsampling import STRIDE
from echostream.modules.transformer import TransformerState
from echostream.streaming.recomposer import NO_SAMPLES, OutputWord, SentenceRecomposer
from echostream.streaming.source_span import Heard
from echostream.streaming.state import EchoStreamState, StepOutput, check_samples, stack, unstack
from echostream.streaming.word_level_translator import SentenceState, TargetWord, WordLevelTranslator
from echostream.text import WORD_MARK, pieces_to_text
from echostream.vocoders.interface import UnitVocoder
from echostream.vocoders.registry import build_vocoder


class StreamingTranslator:
    """Simultaneous speech-to-speech translation of any number of streams.

    Args:
        model: a trained model in inference mode.
        source_symbols, target_symbols: its dictionaries.
        vocoder: speaks the units; None is enough for the text tasks.
        segment_ms: encoder segment, a multiple of 40 ms; 0 waits for the whole utterance.
        right_context_frames: look-ahead of a segment in 40 ms frames; None takes the trained one.
        policy: a policy or the name of one: ``alignment``, ``stride``, ``wait-k`` or ``fixed-rate``.
        task: ``s2st``, ``s2tt`` or ``asr``.
        stride_n, lag_k: of a policy given by name.
        beam: hypotheses that the MT decoder keeps over the uncommitted part; 1 is greedy.
        source_lm: ARPA file over the source dictionary; with one, source words come of :class:`SourceTranscriber`
            instead of the greedy reading that the policy counts, and sentences that follow each other without a second
            of silence are parted by :class:`SentenceBreakDetector`.
        lm_weight, lm_bonus: of it, and of each of its symbols.

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
        segment_ms: int = 320,
        right_context_frames: int | None = None,
        policy: str | Policy = "alignment",
        task: str = "s2st",
        stride_n: int = 1,
        lag_k: int | None = None,
        beam: int = 1,
        source_lm: str | os.PathLike[str] | None = None,
        lm_weight: float = LM_WEIGHT,
        lm_bonus: float = LM_BONUS,
    ) -> None:
        if beam < 1:
            raise ValueError(f"beam must be at least 1, got {beam}")
        if vocoder is not None and vocoder.num_units != model.unit_decoder.num_units:
            raise ValueError(
                f"the vocoder speaks {vocoder.num_units} units but the model writes {model.unit_decoder.num_units}: "
                "use the vocoder that was trained with the model's units"
            )
        self.model, self.vocoder = model, vocoder
        self.detector = WordBoundaryDetector(source_symbols)
        self.transcriber = (
            SourceTranscriber(source_symbols, load_arpa(source_lm, source_symbols), lm_weight, lm_bonus)
            if source_lm is not None
            else None
        )
        self.breaks = SentenceBreakDetector(self.transcriber.language_model) if self.transcriber is not None else None
        self.writer = WordLevelTranslator(model, target_symbols, beam)
        self.output_sample_rate = vocoder.sample_rate if vocoder is not None else SAMPLE_RATE
        self.recomposer = SentenceRecomposer(
            self.output_sample_rate, vocoder.hop_samples if vocoder is not None else 2 * SHIFT_SAMPLES
        )
        self.segment_ms = segment_ms
        self.right_context_frames = (
            model.cfg.right_context_frames if right_context_frames is None else right_context_frames
        )
        self.set_policy(policy, stride_n, lag_k)
        self.task = task

    @classmethod
    def from_checkpoint(
        cls,
        path: str | os.PathLike[str],
        vocoder: str | os.PathLike[str] | None = None,
        device: str = "cpu",
        **options: Any,
    ) -> StreamingTranslator:
        """Load a checkpoint written by training, or a folder with ``model.yaml``.

        Args:
            path: of either.
            vocoder: by default the folder's, or a folder ``vocoder`` beside the checkpoint.
            device: where to compute.
            options: of the translator; what is left out or None is as the folder says.

        Raises:
            CheckpointError, VocoderError: files that are missing, damaged or don't fit; both are ValueErrors.
        """
        task = {"task": options.pop("task")} if "task" in options else {}
        settings = ModelSettings.of(path).with_options(vocoder=vocoder, **options)
        loaded = load_model(settings.checkpoint, device)
        beside = settings.checkpoint.parent / "vocoder"
        vocoder = settings.vocoder or (beside if beside.is_dir() else None)
        speaker = load_vocoder(vocoder, device) if vocoder is not None else None
        return cls(loaded.model, loaded.source_symbols, loaded.target_symbols, speaker, **settings.options, **task)

    @classmethod
    def random(
        cls, arch: str = "echostream", seed: int = 0, device: str = "cpu", **options: Any
    ) -> StreamingTranslator:
        """A translator with random weights and made-up words, for benchmarks and tests: needs no files."""
        small = arch == "echostream_tiny"
        vocab, num_units = (200, 100) if small else (6000, 1000)
        symbols = ["<s>", "<pad>", "</s>", "<unk>"]
        symbols += [f"{WORD_MARK if index % 2 else ''}w{index}" for index in range(4, vocab)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = EchoStreamModel(architecture_config(arch), vocab, vocab, num_units)
            vocoder = build_vocoder(
                {
                    "num_embeddings": num_units,
                    "embedding_dim": 32 if small else 128,
                    "model_in_dim": 32 if small else 128,
                    "upsample_rates": [5, 4, 4, 2, 2],
                    "upsample_kernel_sizes": [11, 8, 8, 4, 4],
                    "upsample_initial_channel": 32 if small else 512,
                    "resblock": "1",
                    "resblock_kernel_sizes": [3, 7, 11],
                    "resblock_dilation_sizes": [[1, 3, 5]] * 3,
                    "sampling_rate": SAMPLE_RATE,
                    "code_hop_size": 2 * SHIFT_SAMPLES,
                    "dur_prediction_weight": 1.0,
                    "dur_predictor_params": {
                        "encoder_embed_dim": 32 if small else 128,
                        "var_pred_hidden_dim": 32 if small else 128,
                        "var_pred_kernel_size": 3,
                        "var_pred_dropout": 0.5,
                    },
                }
            )
        for module in (model, vocoder):
            module.to(device).eval().requires_grad_(False)
        return cls(model, symbols, symbols, vocoder, **options)

    @property
    def segment_ms(self) -> int:
        """Encoder segment in milliseconds; 0: the whole utterance."""
        return self._segment * FRAME_MS

    @segment_ms.setter
    def segment_ms(self, value: int) -> None:
        if value < 0 or value % FRAME_MS:
            raise ValueError(f"segment_ms must be a multiple of {FRAME_MS} (0: whole utterance), got {value}")
        self._segment = value // FRAME_MS

    @property
    def right_context_frames(self) -> int:
        """Look-ahead of a segment in 40 ms frames."""
        return self._right_context

    @right_context_frames.setter
    def right_context_frames(self, value: int) -> None:
        if value < 0:
            raise ValueError(f"right_context_frames must not be negative, got {value}")
        self._right_context = value

    @property
    def task(self) -> str:
        """``s2st``: speech and text; ``s2tt``: text; ``asr``: source text only."""
        return self._task

    @task.setter
    def task(self, value: str) -> None:
        if value not in TASKS:
            raise ValueError(f"unknown task '{value}': choose one of {', '.join(TASKS)}")
        if value == "s2st" and self.vocoder is None:
            raise ValueError("the task s2st needs a vocoder: give one, or choose s2tt")
        self._task = value

    def set_policy(self, policy: str | Policy, stride_n: int = 1, lag_k: int | None = None) -> None:
        """Choose the policy, given itself or by name with its options."""
        self.policy = build_policy(policy, stride_n, lag_k) if isinstance(policy, str) else policy

    def view(
        self,
        segment_ms: int | None = None,
        policy: str | Policy | None = None,
        task: str | None = None,
        stride_n: int = 1,
        lag_k: int | None = None,
    ) -> StreamingTranslator:
        """The same model under other settings, which are those of this translator where None is given.

        All modules are shared, so that a view costs next to nothing; ``stride_n`` and ``lag_k`` belong to a policy
        given by name. States of views that agree in all settings may be stepped in one batch by any of them.

        Raises:
            ValueError: a setting out of range.
        """
        other = copy.copy(self)
        if segment_ms is not None:
            other.segment_ms = segment_ms
        if policy is not None:
            other.set_policy(policy, stride_n, lag_k)
        if task is not None:
            other.task = task
        return other

    def init_state(self) -> EchoStreamState:
        """A fresh stream."""
        return EchoStreamState(
            samples=[],
            fbank=self.model.fbank.init_state(),
            encoder=self.model.encoder.init_state(),
            st=self.model.st_head.init_state(),
            st_reader=CTCReader(),
            source=self.detector.init_state(),
            sentence=self.writer.init_state() if self.task != "asr" else None,
            vocoder=self.vocoder.init_state() if self.vocoder is not None and self.task == "s2st" else None,
            output=self.recomposer.init_state(),
            transcript=self.transcriber.init_state() if self.transcriber is not None else None,
            breaks=self.breaks.init_state() if self.breaks is not None and self.task != "asr" else None,
        )

    def step(self, samples: np.ndarray | Tensor, state: EchoStreamState, is_last: bool = False) -> StepOutput:
        """Take in audio and give out what follows from it.

        Args:
            samples: float32 ``(n,)`` at 16 kHz in [-1, 1], ``n >= 0``.
            state: of this stream; the only thing that changes.
            is_last: the source ends with these samples: everything still due is given out.

        Raises:
            ValueError: samples that are not one finite channel, or a stream that has ended.
        """
        return self.step_batch([samples], [state], [is_last])[0]

    @torch.inference_mode()
    def step_batch(
        self,
        samples: Sequence[np.ndarray | Tensor],
        states: Sequence[EchoStreamState],
        is_last: Sequence[bool],
    ) -> list[StepOutput]:
        """:meth:`step` for several streams, at any points of theirs, with their encoder work stacked."""
        # All are checked before any state changes.
        pieces = [check_samples(piece, state) for piece, state in zip(samples, states, strict=True)]
        for piece, state in zip(pieces, states, strict=True):
            if piece.size:
                state.samples.append(piece)
        outputs = [StepOutput() for _ in states]
        while True:
            groups: dict[tuple[int, int], list[int]] = {}
            for index, state in enumerate(states):
                if needed := self._ready_features(state):
                    groups.setdefault((state.encoder.emformer.pending.size(1), needed), []).append(index)
            if not groups:
                break
            for (_, num_features), members in groups.items():
                self._advance(num_features, members, states, outputs)
        for index, last in enumerate(is_last):
            if last:
                self._finish(states[index], outputs[index])
        return outputs

    def _ready_features(self, state: EchoStreamState) -> int:
        """Features of the next segment and its right context if their samples are there, else 0."""
        if state.finished or not self._segment or self.missing_samples(state):
            return 0
        return self._next_features(state)

    def missing_samples(self, state: EchoStreamState) -> int:
        """Samples still to be pushed until the next segment can be translated; 0: it is there already.

        Raises:
            ValueError: segments are whole utterances, which only ``is_last`` ends.
        """
        if not self._segment:
            raise ValueError("with segment_ms 0 the next segment is there when the source ends, not before")
        return max(0, self._samples_for(self._next_features(state), state) - state.waiting_samples)

    def _next_features(self, state: EchoStreamState) -> int:
        frames = self._segment + self._right_context - state.encoder.emformer.pending.size(1)
        return STRIDE * max(frames, 1)

    def _samples_for(self, features: int, state: EchoStreamState) -> int:
        return WINDOW_SAMPLES + (features - 1) * SHIFT_SAMPLES - state.fbank.leftover.size(0)

    def _advance(
        self,
        num_features: int,
        members: list[int],
        states: Sequence[EchoStreamState],
        outputs: Sequence[StepOutput],
    ) -> None:
        """One segment of each member stream, from samples to output."""
        streams = [states[index] for index in members]
        batch = torch.stack(
            [self._features(state, self._samples_for(num_features, state)) for state in streams]
        )  # (B, T, 80) @100 Hz
        frames, _, encoder = self.model.encoder(
            batch,
            state=stack([state.encoder for state in streams]),
            segment=self._segment,
            right_context=self._right_context,
            is_last=False,
        )  # (B, C, D) @25 Hz
        source_logits = self.model.asr_head(frames)[0]
        source_classes = self._classes(source_logits)
        target_classes, st = self._target_classes(frames, streams)
        for row, (index, encoder_state) in enumerate(zip(members, unstack(encoder), strict=True)):
            states[index].encoder = encoder_state
            if st is not None:
                states[index].st = st[row]
            state, output = states[index], outputs[index]
            finished = self._recognise(source_logits[row], source_classes[row], state, output)
            self._translate(frames[row : row + 1], finished, target_classes[row], state, output)

    def _features(self, state: EchoStreamState, num_samples: int) -> Tensor:
        """Features of the next ``num_samples`` samples, ``(T, 80)``."""
        # What is left stays a view: copying it for every segment would make one long push quadratic in its length.
        audio = state.samples[0] if len(state.samples) == 1 else np.concatenate([NO_SAMPLES, *state.samples])
        state.samples = [audio[num_samples:]] if audio.size > num_samples else []
        device = self.model.fbank.window.device
        features, state.fbank = self.model.fbank(torch.from_numpy(audio[:num_samples]).to(device), state.fbank)
        return features

    def _classes(self, logits: Tensor) -> list[list[int]]:
        return logits.argmax(dim=-1).tolist()

    def _target_classes(
        self, frames: Tensor, streams: Sequence[EchoStreamState]
    ) -> tuple[list[list[int]], list[TransformerState] | None]:
        if self.task == "asr":
            return [[] for _ in streams], None
        state = stack([stream.st for stream in streams]) if streams[0].st is not None else None
        logits, state = self.model.st_head(frames, state)
        return self._classes(logits), unstack(state) if state is not None else None

    def _finish(self, state: EchoStreamState, output: StepOutput) -> None:
        """Flush every stage at the end of the source."""
        features = self._features(state, state.waiting_samples)[None]
        frames, _, _ = self.model.encoder(
            features,
            state=state.encoder,
            segment=self._segment,
            right_context=self._right_context,
            is_last=True,
        )
        source_logits = self.model.asr_head(frames)[0]
        finished = self._recognise(source_logits[0], self._classes(source_logits)[0], state, output, is_last=True)
        target_classes, _ = self._target_classes(frames, [state])
        self._translate(frames, finished, target_classes[0], state, output, is_last=True)
        state.finished = True
        state.samples = []

    def _recognise(
        self,
        logits: Tensor,
        classes: list[int],
        state: EchoStreamState,
        output: StepOutput,
        is_last: bool = False,
    ) -> list[SourceWord]:
        """Source logits of one segment ``(n, vocabulary)`` and their greedy classes to words.

        Returns:
            the new words as the policy counts them.
        """
        words = self.detector.read(classes, state.source, is_last)
        if self.transcriber is None or state.transcript is None:
            output.source_words += [word for word in words if word.text]
        else:
            log_probs = logits.float().log_softmax(dim=-1)
            output.source_words += self.transcriber.read(log_probs, state.transcript, is_last)
        return words

    def _translate(
        self,
        frames: Tensor,
        source_words: list[SourceWord],
        target_classes: list[int],
        state: EchoStreamState,
        output: StepOutput,
        is_last: bool = False,
    ) -> None:
        """Frames of one segment ``(1, n, D)``, words of :meth:`_recognise` and ST CTC classes to words and speech."""
        first = state.frames
        state.frames += frames.size(1)
        if self.task == "asr":
            return
        read = state.st_reader.read(target_classes)
        output.evidence += pieces_to_text([self.writer.symbols[symbol] for _, symbol in read])
        sentence = state.sentence
        assert sentence is not None  # but for asr there is one
        spans = [word.frames for word in source_words]
        heard = Heard(frames, state.frames, spans, state.source.tokens, [first + frame for frame, _ in read])
        places = self.breaks.read(source_words, state.breaks) if self.breaks is not None and state.breaks else []
        for place in places:
            self.writer.listen(heard.until(place), sentence)
            heard = heard.since(place)
            following = self.writer.part(place, sentence)
            if following is not None:
                self._write_all(sentence, True, state, output)
                state.sentence = sentence = following
        self.writer.listen(heard, sentence)
        silence_ms = state.source.silence_frames * FRAME_MS
        ends = is_last or (sentence.source_words > 0 and self.recomposer.ends_sentence(silence_ms, ""))
        self._write_all(sentence, ends, state, output)

    def _write_all(
        self, sentence: SentenceState | None, ends: bool, state: EchoStreamState, output: StepOutput
    ) -> None:
        """Write in ``sentence``, and in those that wait behind it."""
        while sentence is not None:
            sentence = self._write(sentence, ends, state, output)

    def _write(
        self, sentence: SentenceState, ends: bool, state: EchoStreamState, output: StepOutput
    ) -> SentenceState | None:
        """Write what the policy allows, all if the sentence ``ends``; the sentence that then waits behind it."""
        budget = self.writer.decide(self.policy, sentence)
        words: list[TargetWord] = []
        if (ends or budget is not None) and not (ends and sentence.is_silent):
            words = self.writer.write(budget or UNLIMITED, sentence, ends, self.task == "s2st")
            ends = ends or sentence.ended or any(self.recomposer.ends_sentence(0, word.text) for word in words)
        self._speak(words, ends, state, output)
        following = self.writer.overdue_sentence(sentence) if ends else None
        if ends:
            state.sentence = following or self.writer.init_state()
        return following

    def _speak(self, words: list[TargetWord], ends: bool, state: EchoStreamState, output: StepOutput) -> None:
        """Units of committed words to samples, and the words' places in them."""
        source_time_s = state.frames * FRAME_S
        if self.task == "s2tt":
            output.words += [OutputWord(word.text, source_time_s, joined=word.joined) for word in words if word.text]
            return
        self.recomposer.add_words(words, source_time_s, state.output)
        units = torch.tensor([unit for word in words for unit in word.units], dtype=torch.int64)
        if not (len(words) or ends):
            return
        assert self.vocoder is not None  # s2st is refused without one
        assert state.vocoder is not None
        spoken = self.vocoder.step(units, state.vocoder, is_last=ends, flush=True)
        placed, samples = self.recomposer.place(spoken.durations.tolist(), spoken.samples.cpu().numpy(), state.output)
        output.words += placed
        if samples.size:
            output.samples = np.concatenate([output.samples, samples])
        if ends:
            self.recomposer.end_sentence(state.output)
            state.vocoder = self.vocoder.init_state()
