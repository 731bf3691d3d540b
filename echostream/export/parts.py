"""The parts of a model as functions of plain tensors: what goes in, what comes out, and the states between the calls.

The modules are those of the runtime and compute what they compute there; here they are only given names for their
inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from echostream.export.states import NEXT, next_of, tensors_of, with_tensors
from echostream.models.echostream_model import EchoStreamModel
from echostream.models.unit_decoder import UnitDecoderState
from echostream.modules.transformer import TransformerState, behind_zeros
from echostream.vocoders.interface import MAX_UNIT_FRAMES
from echostream.vocoders.istft import ISTFTVocoder

Tensors = dict[str, Tensor]
EXAMPLE_SIZE = 5  # of dimensions whose size is free


class NamedFunction(nn.Module):
    """A function of named tensors, taken and given in the order of their names.

    Args:
        modules: those whose weights it uses.
        function: from the inputs by name to the outputs by name.
        inputs: names, in the order in which they are passed.
    """

    def __init__(self, modules: Sequence[nn.Module], function: Callable[[Tensors], Tensors], inputs: Sequence[str]):
        super().__init__()
        self.used = nn.ModuleList(modules)
        self.function, self.inputs = function, tuple(inputs)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.function(dict(zip(self.inputs, tensors, strict=True))).values())


@dataclass(frozen=True)
class Part:
    """One file of an export.

    Attributes:
        name: of the file.
        modules: those whose weights it uses.
        function: from inputs by name to outputs by name.
        inputs: an example of each input, states included, in their order.
        free: for inputs whose size may differ from that of the example, the dimension.
        start: the states of a fresh stream; those of the encoder come from its first step.
        is_packable: its weights may be bytes, as those of released models; a vocoder's are no bytes there.
    """

    name: str
    modules: tuple[nn.Module, ...]
    function: Callable[[Tensors], Tensors]
    inputs: Tensors
    free: dict[str, int] = field(default_factory=dict)
    start: Tensors = field(default_factory=dict)
    is_packable: bool = True

    @property
    def module(self) -> NamedFunction:
        return NamedFunction(self.modules, self.function, list(self.inputs)).eval()

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs, in their order."""
        with torch.no_grad():
            return list(self.function(self.inputs))


@dataclass(frozen=True)
class EncoderParts:
    """The encoder's first step and all that follow, with the number of samples that each takes."""

    first: Part
    step: Part
    first_samples: int
    step_samples: int


@torch.no_grad()
def encoder_parts(model: EchoStreamModel, segment: int, right_context: int) -> EncoderParts:
    """Samples to frames, a segment at a time.

    The first step has its right context to wait for, and the windows of its first features; from then on each step
    takes as many samples as a segment lasts, and its states keep their sizes.

    Args:
        model: in inference mode.
        segment, right_context: in frames of ``model.frame_ms``.

    Raises:
        ValueError: a segment of 0, or a front end whose states don't keep their sizes.
    """
    if segment < 1:
        raise ValueError("a whole utterance as one segment can't be exported: choose a segment of at least one frame")
    features, encoder = model.fbank, model.encoder
    fresh = (features.init_state(), encoder.init_state())

    def run(samples: Tensor, states: tuple[Any, Any]) -> tuple[Tensor, tuple[Any, Any]]:
        vectors, of_features = features(samples, states[0])
        frames, _, of_encoder = encoder(
            vectors[None], state=states[1], segment=segment, right_context=right_context, is_last=False
        )
        return frames, (of_features, of_encoder)

    def missing(states: tuple[Any, Any]) -> int:
        return features.missing_samples(encoder.missing_features(segment, right_context, states[1]), states[0])

    def outputs(frames: Tensor, states: tuple[Any, Any]) -> Tensors:
        return {"frames": frames} | next_of(states[0], "features") | next_of(states[1], "encoder")

    first_samples = missing(fresh)
    after = run(torch.zeros(first_samples), fresh)[1]
    step_samples = missing(after)
    states = tensors_of(after[0], "features") | tensors_of(after[1], "encoder")
    later = outputs(*run(torch.zeros(step_samples), after))
    if any(tensor.shape != later[NEXT + name].shape for name, tensor in states.items()):
        raise ValueError(
            f"the states of the front end '{model.cfg.front_end}' change their sizes, with segments of "
            f"{segment * model.frame_ms} ms: choose another segment"
        )

    def step(given: Tensors) -> Tensors:
        before = (with_tensors(after[0], "features", given), with_tensors(after[1], "encoder", given))
        return outputs(*run(given["samples"], before))

    modules = (features, encoder)
    return EncoderParts(
        Part(
            "encoder_start",
            modules,
            lambda given: outputs(*run(given["samples"], fresh)),
            {"samples": torch.zeros(first_samples)},
        ),
        Part("encoder", modules, step, {"samples": torch.zeros(step_samples)} | states),
        first_samples,
        step_samples,
    )


def head_parts(model: EchoStreamModel) -> list[Part]:
    """Both CTC heads: frames to scores of source and of target symbols."""
    frames = torch.zeros(1, EXAMPLE_SIZE, model.cfg.encoder_dim)
    found = []
    for name, head in (("asr", model.asr_head), ("st", model.st_head)):
        # States of the largest size: no step changes it.
        fresh = head.stack.full_state() if head.stack is not None else None

        def function(given: Tensors, name: str = name, head: nn.Module = head, fresh: Any = fresh) -> Tensors:
            logits, state = head(given["frames"], with_tensors(fresh, name, given))
            return {f"{name}_logits": logits} | next_of(state, name)

        start = tensors_of(fresh, name)
        found.append(Part(f"{name}_head", (head,), function, {"frames": frames} | start, {"frames": 1}, start))
    return found


def mt_decoder_part(model: EchoStreamModel) -> Part:
    """One token of the text decoder."""
    decoder = model.mt_decoder
    with torch.no_grad():
        begun = decoder.init_state()  # a prompt may have been read
    fresh = TransformerState(begun.position, behind_zeros(begun.past, decoder.stack.window))
    start = tensors_of(fresh, "mt")

    def function(given: Tensors) -> Tensors:
        before, frames = with_tensors(fresh, "mt", given), given["frames"]
        length = torch.ones_like(frames[:, :, 0], dtype=torch.int64).sum(dim=1)
        memory, mask = decoder.attended(frames, length, length[:, None])
        hidden, logits, after = decoder(given["token"], memory, mask, before, need_state=True)
        return {"mt_logits": logits, "hidden": hidden} | next_of(after, "mt")

    frames = torch.zeros(1, EXAMPLE_SIZE, model.cfg.encoder_dim)
    inputs = {"token": torch.zeros(1, 1, dtype=torch.int64), "frames": frames} | start
    return Part("mt_decoder", (decoder,), function, inputs, {"frames": 1}, start)


def unit_decoder_part(model: EchoStreamModel) -> Part:
    """The units of one word."""
    decoder = model.unit_decoder
    fresh = UnitDecoderState(decoder.text_stack.full_state(), decoder.unit_stack.full_state())
    start = tensors_of(fresh, "unit")

    def function(given: Tensors) -> Tensors:
        text = model.text_states(given["hidden"], given["tokens"])
        one_word = torch.zeros_like(given["tokens"])
        logits, after = decoder(text, one_word, with_tensors(fresh, "unit", given))
        return {"unit_logits": logits} | next_of(after, "unit")

    inputs = {
        "hidden": torch.zeros(1, EXAMPLE_SIZE, model.cfg.mt_dim),
        "tokens": torch.zeros(1, EXAMPLE_SIZE, dtype=torch.int64),
    }
    modules = (model.unit_decoder, model.mt_decoder.embedding)
    return Part("unit_decoder", modules, function, inputs | start, {"hidden": 1, "tokens": 1}, start)


@torch.no_grad()
def vocoder_parts(vocoder: ISTFTVocoder) -> list[Part]:
    """Durations of whole words, and samples of frames."""
    units = torch.zeros(EXAMPLE_SIZE, dtype=torch.int64)
    predictor = vocoder.dur_predictor

    def durations(given: Tensors, contexts: list[Tensor]) -> Tensors:
        # The blanks that follow are the flush at the end of a word: no unit waits for those of the next one.
        x = nn.functional.pad(vocoder.dict(given["units"]), (0, 0, 0, vocoder.lookahead_units))
        predicted = predictor(x[None], contexts)[0, vocoder.lookahead_units :]
        frames = (predicted.double().exp() - 1).clamp(max=MAX_UNIT_FRAMES).float()
        return {"durations": frames} | next_of(contexts, "durations")

    def samples(given: Tensors, contexts: list[Tensor], overlap: Tensor | None) -> Tensors:
        wave, overlap = vocoder._generate(given["units"][None], given["remaining"][None], contexts, overlap)
        return {"samples": wave[0]} | next_of(contexts, "vocoder") | next_of(overlap, "vocoder.overlap")

    of_durations: list[Tensor] = []
    of_frames: list[Tensor] = []
    frames = {"units": units, "remaining": units.clone()}  # of one tensor the exporter would make one input
    durations({"units": units}, of_durations)
    # What precedes a fresh stream is zeros: a context that is not there yet is one of zeros.
    before_durations = _zeros(tensors_of(of_durations, "durations"))
    after = samples(frames, of_frames, None)
    before_frames = _zeros({name[len(NEXT) :]: value for name, value in after.items() if name.startswith(NEXT)})
    return [
        Part(
            "vocoder_durations",
            (vocoder,),
            lambda given: durations(given, with_tensors(of_durations, "durations", given)),
            {"units": units} | before_durations,
            {"units": 0},
            before_durations,
            is_packable=False,
        ),
        Part(
            "vocoder",
            (vocoder,),
            lambda given: samples(given, with_tensors(of_frames, "vocoder", given), given["vocoder.overlap"]),
            frames | before_frames,
            {"units": 0, "remaining": 0},
            before_frames,
            is_packable=False,
        ),
    ]


def _zeros(tensors: Tensors) -> Tensors:
    return {name: torch.zeros_like(value) for name, value in tensors.items()}
