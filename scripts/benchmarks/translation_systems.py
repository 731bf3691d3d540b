"""The two ways of the translation benchmark, from samples to samples, with the very same modules.

Ours is ``StreamingTranslator``, which carries the state of every stage; the other recomputes each stage over the whole
prefix at every write, as StreamSpeech's agent does (Zhang et al. 2024): features, encoder and CTC heads, MT decoder
over the hypothesis so far, unit decoder over all text, vocoder over all units.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import numpy as np
import torch

from echostream.constants import FRAME_MS, FULL_PRECISION
from echostream.decoding.policy import FixedRatePolicy
from echostream.modules.ctc import greedy_collapse
from echostream.modules.fbank import SHIFT_SAMPLES, WINDOW_SAMPLES
from echostream.modules.subsampling import STRIDE
from echostream.streaming import EchoStreamState, StepOutput, StreamingTranslator
from echostream.streaming.word_level_translator import END
from echostream.vocoders.interface import VocoderInput

STAGES = ("encoder", "MT", "units", "vocoder")  # the encoder's share holds features and CTC heads
TOKEN_MS = FixedRatePolicy().token_frames * FRAME_MS  # a subword is written every 320 ms
UNIT_MS = 20
SURE = 1e4  # added to a score, decides it


class StageClock:
    """Seconds spent in each stage; a stage that calls another is charged for its own part only."""

    def __init__(self, stages: Sequence[str] = STAGES) -> None:
        self.stages = stages
        self.reset()
        self._inner = 0.0

    def reset(self) -> None:
        """Nothing has been charged."""
        self.seconds = dict.fromkeys(self.stages, 0.0)

    def charge(self, stage: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """``call(*args, **kwargs)``, timed."""
        outer, self._inner = self._inner, 0.0
        begun = time.perf_counter()
        try:
            return call(*args, **kwargs)
        finally:
            took = time.perf_counter() - begun
            self.seconds[stage] += took - self._inner
            self._inner = outer + took

    def watch(self, owner: Any, method: str, stage: str) -> None:
        """Charge every call of ``owner.method`` to ``stage``."""
        call = getattr(owner, method)

        @wraps(call)
        def timed(*args: Any, **kwargs: Any) -> Any:
            return self.charge(stage, call, *args, **kwargs)

        setattr(owner, method, timed)


def build_translator(
    arch: str, segment_ms: int, device: str = "cpu", precision: str = FULL_PRECISION
) -> StreamingTranslator:
    """Random weights made to work as much as trained ones do at a brisk, steady pace.

    The policy writes a subword every 320 ms. Biases are set so that each position of the unit decoder gives one unit
    (five a subword, about 16 a second), that each of these lasts three unit frames (60 ms), and that the sentence
    ends where the source ends and not before: the longest sentence there can be, all windows full.

    Raises:
        SystemExit: an architecture whose unit decoder has too many positions a subword for that.
    """
    translator = StreamingTranslator.random(arch, 0, device, precision, policy="fixed-rate", segment_ms=segment_ms)
    decoder, vocoder = translator.model.unit_decoder, translator.vocoder
    if decoder.upsample * UNIT_MS > TOKEN_MS:
        raise SystemExit(f"error: {arch} writes {decoder.upsample} positions a subword: choose another --arch")
    with torch.no_grad():
        bias = decoder.output.bias.view(decoder.frames_per_position, decoder.num_units + 1)
        bias[0, 0] -= SURE  # the first frame of a position is a unit, the others are blank
        bias[1:, 0] += SURE
        duration = vocoder.dur_predictor.proj
        duration.weight.zero_()
        duration.bias.fill_(math.log(TOKEN_MS // UNIT_MS // decoder.upsample + 1))
    # The only limit on the end symbol is the policy's: it is taken as soon as it is allowed.
    translator.writer.forbidden[END] = SURE
    translator.recomposer.end_silence_ms = translator.writer.overdue_tokens = math.inf
    return translator


class StreamedTranslation:
    """Ours, as a system whose steps can be timed; watches the translator's modules for good."""

    def __init__(self, translator: StreamingTranslator) -> None:
        self.translator, self.clock = translator, StageClock()
        self.flushed = dict(self.clock.seconds)  # stages of a stream that ends here
        self.num_units = 0  # written
        model = translator.model
        for module, stage in (
            (model.fbank, "encoder"),
            (model.encoder, "encoder"),
            (model.asr_head, "encoder"),
            (model.st_head, "encoder"),
            (model.mt_decoder, "MT"),
            (model.unit_decoder, "units"),
        ):
            self.clock.watch(module, "forward", stage)
        self.clock.watch(translator.vocoder, "step_batch", "vocoder")
        speak = translator.vocoder.step_batch

        def counted(inputs: Sequence[VocoderInput]) -> Any:
            self.num_units += sum(len(one.units) for one in inputs)
            return speak(inputs)

        translator.vocoder.step_batch = counted

    def init_state(self) -> EchoStreamState:
        self.clock.reset()
        self.num_units = 0
        return self.translator.init_state()

    def next_samples(self, state: EchoStreamState) -> int:
        """Samples after which exactly one segment more can be translated."""
        segment = self.translator.segment_ms // FRAME_MS
        if state.frames:
            return segment * STRIDE * SHIFT_SAMPLES
        first = segment + self.translator.right_context_frames
        return WINDOW_SAMPLES + (STRIDE * first - 1) * SHIFT_SAMPLES

    def step(self, samples: np.ndarray, state: EchoStreamState, is_last: bool = False) -> StepOutput:
        before = dict(self.clock.seconds), self.num_units
        output = self.translator.step(samples, state, is_last)
        if is_last:  # on a copy of the stream, which goes on
            self.flushed = self.clock.seconds
            self.clock.seconds, self.num_units = before
        return output


class RecomputedTranslation:
    """StreamSpeech's way: nothing is kept but the audio."""

    def __init__(self, translator: StreamingTranslator) -> None:
        self.translator, self.clock = translator, StageClock()

    @torch.inference_mode()
    def run(self, samples: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
        """One write when the samples ``(n,)`` are there: seconds of each stage, and all speech so far."""
        model, vocoder = self.translator.model, self.translator.vocoder
        self.clock.reset()
        frames = self.clock.charge("encoder", self._encode, samples)
        num_tokens = max(1, frames.size(1) * FRAME_MS // TOKEN_MS)
        # Which subwords they are makes no difference to the work.
        tokens = 4 + torch.arange(num_tokens)[None] % (len(self.translator.writer.symbols) - 4)
        previous = torch.cat([torch.tensor([[END]]), tokens[:, :-1]], dim=1)
        heard = torch.tensor([frames.size(1)])
        memory, mask = model.mt_decoder.attended(frames, heard, heard.expand_as(previous))
        hidden, logits, _ = self.clock.charge("MT", model.mt_decoder, previous, memory, mask)
        tokens[0, -1] = int((logits[0, -1] + self.translator.writer.forbidden)[END + 1 :].argmax()) + END + 1
        units = self.clock.charge("units", self._units, hidden, tokens)
        wave, _ = self.clock.charge("vocoder", vocoder, units)
        return dict(self.clock.seconds), wave[0].numpy()

    @torch.inference_mode()
    def read(self, samples: np.ndarray) -> None:
        """A chunk that brings no subword: features, encoder and CTC heads only."""
        self._encode(samples)

    def _encode(self, samples: np.ndarray) -> torch.Tensor:
        model = self.translator.model
        features, _ = model.fbank(torch.from_numpy(samples))
        encoded = model.encode(features[None], torch.tensor([features.size(0)]), self.translator.segment_ms // FRAME_MS)
        greedy_collapse(encoded["asr_logits"].argmax(-1), encoded["frame_lengths"])
        greedy_collapse(encoded["st_logits"].argmax(-1), encoded["frame_lengths"])
        return encoded["encoder_out"]

    def _units(self, hidden: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        model = self.translator.model
        words = torch.arange(tokens.size(1))[None]
        logits, _ = model.unit_decoder(model.text_states(hidden, tokens), words)
        labels = logits.argmax(-1)
        symbols = greedy_collapse(labels, torch.tensor([labels.size(1)]))[0]
        return torch.tensor([symbols]) - 1
