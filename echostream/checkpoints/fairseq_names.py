"""fairseq's parameter names in EchoStream's: StreamSpeech's published checkpoints and other fairseq speech models.

What is taken (StreamSpeech: its repository's model ``streamspeech``, Zhang et al. 2024):

====================================  ==============================================================================
``encoder.subsample.conv_layers``     subsampler; the same filters, which here reach one input frame less far ahead
``encoder.conformer_layers``,         Emformer layer by layer: attention, pointwise convolutions, the second
``encoder.transformer_layers``        feed-forward (halved, as its residual is there) and the norms around them
``source_unigram_decoder``            ASR head
``ctc_target_unigram_decoder``        ST head, with its transformer layers if it has any
``target_unigram_decoder``            MT decoder
``synthesizer_encoder``               unit decoder before upsampling
``decoder``                           unit decoder after upsampling, and its output
====================================  ==============================================================================

What has no counterpart, and is therefore left over: the Conformer's first feed-forward, relative positions and batch
norm, ``encoder.linear``, the unit decoder's cross-attention (ours reads the upsampled states alone). Positions there
are sinusoids added to the input; ours rotate queries and keys, so attention by position is learned anew. Separate
query, key and value projections are stacked into one. Layers that StreamSpeech doesn't have at all are set so that
they change nothing: the projection into the unit decoder to the identity, biases to zero.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from echostream.checkpoints.older_weights import is_dropped

FAIRSEQ_SPECIALS = 4  # <s>, <pad>, </s>, <unk> before the units
NORM_PARTS = ("weight", "bias")
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Candidate:
    """A tensor for one of the model's parameters and the names in the file that it was made of."""

    tensor: Tensor
    sources: tuple[str, ...]


Named = Iterator[tuple[str, Candidate]]


def translate(tensors: Tensors, unit_classes: int) -> dict[str, Candidate]:
    """Candidates by EchoStream's names.

    Args:
        tensors: weights in a fairseq checkpoint.
        unit_classes: rows of the model's unit output.
    """
    return dict(_everything(tensors, unit_classes))


def neutral(filled: Collection[str], model: Tensors) -> dict[str, tuple[Tensor, str]]:
    """Constants, each with a word on it, for parameters that go with ``filled`` ones but are in no fairseq model."""
    constants = {}
    for name, value in model.items():
        stem, _, leaf = name.rpartition(".")
        if leaf == "bias" and name not in filled and f"{stem}.weight" in filled:
            constants[name] = torch.zeros_like(value), "zero, the file has no such bias"
    weight, bias = "unit_decoder.project.weight", "unit_decoder.project.bias"
    reads_text = any(name.startswith(("unit_decoder.text_stack.", "unit_decoder.unit_stack.")) for name in filled)
    if reads_text and weight not in filled and model[weight].size(0) == model[weight].size(1):
        constants[weight] = torch.eye(model[weight].size(0)), "identity, the file has no such layer"
        constants[bias] = torch.zeros_like(model[bias]), "zero, the file has no such layer"
    return constants


def _everything(tensors: Tensors, unit_classes: int) -> Named:
    yield from _subsampler(tensors)
    yield from _encoder_layers(tensors)
    yield from _ctc_head(tensors, "source_unigram_decoder", "asr_head")
    yield from _ctc_head(tensors, "ctc_target_unigram_decoder", "st_head")
    yield from _mt_decoder(tensors)
    yield from _stack(tensors, "synthesizer_encoder", "unit_decoder.text_stack")
    if any(name.startswith("synthesizer_encoder.") for name in tensors):  # else "decoder" is a text decoder
        yield from _stack(tensors, "decoder", "unit_decoder.unit_stack")
        yield from _unit_output(tensors, unit_classes)


def _rename(tensors: Tensors, old: str, new: str) -> Named:
    """A module with a weight and a bias under another name."""
    for part in NORM_PARTS:
        if f"{old}.{part}" in tensors:
            yield f"{new}.{part}", Candidate(tensors[f"{old}.{part}"], (f"{old}.{part}",))


def _layers(tensors: Tensors, prefix: str) -> list[int]:
    """Numbers of the layers ``{prefix}.{number}.``"""
    found = (re.match(rf"{re.escape(prefix)}\.(\d+)\.", name) for name in tensors)
    return sorted({int(match[1]) for match in found if match})


def _query_key_value(tensors: Tensors, attention: str, new: str) -> Named:
    """Three projections stacked into one, under either of fairseq's names for them."""
    for names in (("q_proj", "k_proj", "v_proj"), ("linear_q", "linear_k", "linear_v")):
        for part in NORM_PARTS:
            sources = tuple(f"{attention}.{name}.{part}" for name in names)
            if all(source in tensors for source in sources):
                yield f"{new}.{part}", Candidate(torch.cat([tensors[source] for source in sources]), sources)


def _subsampler(tensors: Tensors) -> Named:
    for number, new in enumerate(("first", "second")):
        old, new = f"encoder.subsample.conv_layers.{number}", f"encoder.subsampler.{new}.linear"
        if f"{old}.weight" in tensors:
            weight = tensors[f"{old}.weight"].transpose(1, 2).flatten(1)  # (out, in, kernel) to (out, kernel * in)
            yield f"{new}.weight", Candidate(weight, (f"{old}.weight",))
            yield f"{new}.bias", Candidate(tensors[f"{old}.bias"], (f"{old}.bias",))


def _encoder_layers(tensors: Tensors) -> Named:
    pre_norm = "encoder.layer_norm.weight" in tensors
    for number in _layers(tensors, "encoder.transformer_layers") if pre_norm else ():
        old, new = f"encoder.transformer_layers.{number}", f"encoder.emformer.layers.{number}"
        yield from _attention(tensors, old, new)
        yield from _rename(tensors, f"{old}.final_layer_norm", f"{new}.norm_ffn")
        yield from _rename(tensors, f"{old}.fc1", f"{new}.ffn_in")
        yield from _rename(tensors, f"{old}.fc2", f"{new}.ffn_out")
    for number in _layers(tensors, "encoder.conformer_layers"):
        old, new = f"encoder.conformer_layers.{number}", f"encoder.emformer.layers.{number}"
        yield from _attention(tensors, old, new)
        yield from _convolution(tensors, f"{old}.conv_module", f"{new}.convolution")
        yield from _rename(tensors, f"{old}.ffn2.layer_norm", f"{new}.norm_ffn")
        yield from _rename(tensors, f"{old}.ffn2.w_1", f"{new}.ffn_in")
        for name, candidate in _rename(tensors, f"{old}.ffn2.w_2", f"{new}.ffn_out"):
            yield name, Candidate(0.5 * candidate.tensor, candidate.sources)
        yield from _rename(tensors, f"{old}.final_layer_norm", f"{new}.norm_out")


def _attention(tensors: Tensors, old: str, new: str) -> Named:
    yield from _rename(tensors, f"{old}.self_attn_layer_norm", f"{new}.norm_attention")
    yield from _query_key_value(tensors, f"{old}.self_attn", f"{new}.query_key_value")
    for name in ("out_proj", "linear_out"):
        yield from _rename(tensors, f"{old}.self_attn.{name}", f"{new}.attention_out")


def _convolution(tensors: Tensors, old: str, new: str) -> Named:
    yield from _rename(tensors, f"{old}.layer_norm", f"{new}.norm_in")
    yield from _rename(tensors, f"{old}.depthwise_conv", f"{new}.depthwise")
    for name, into in (("pointwise_conv1", "expand"), ("pointwise_conv2", "project")):
        for target, candidate in _rename(tensors, f"{old}.{name}", f"{new}.{into}"):
            yield target, Candidate(candidate.tensor.squeeze(-1), candidate.sources)  # kernel of width 1


def _stack(tensors: Tensors, old: str, new: str) -> Named:
    """Pre-norm transformer layers and their closing norm; without one they are post-norm, another function."""
    if f"{old}.layer_norm.weight" not in tensors:
        return
    for number in _layers(tensors, f"{old}.layers"):
        layer, into = f"{old}.layers.{number}", f"{new}.layers.{number}"
        yield from _attention(tensors, layer, into)
        yield from _rename(tensors, f"{layer}.encoder_attn_layer_norm", f"{into}.norm_cross")
        for name, target in (("q", "query"), ("v", "value"), ("out", "out")):
            yield from _rename(tensors, f"{layer}.encoder_attn.{name}_proj", f"{into}.cross_attention.{target}")
        for target, candidate in _rename(tensors, f"{layer}.encoder_attn.k_proj", f"{into}.cross_attention.key"):
            if not is_dropped(target):
                # Their bias of the keys has no effect, so that the weight stands for both.
                bias = f"{layer}.encoder_attn.k_proj.bias"
                sources = (*candidate.sources, *([bias] if bias in tensors else []))
                yield target, Candidate(candidate.tensor, sources)
        yield from _rename(tensors, f"{layer}.final_layer_norm", f"{into}.norm_ffn")
        yield from _rename(tensors, f"{layer}.fc1", f"{into}.ffn_in")
        yield from _rename(tensors, f"{layer}.fc2", f"{into}.ffn_out")
    yield from _rename(tensors, f"{old}.layer_norm", f"{new}.norm")


def _ctc_head(tensors: Tensors, old: str, new: str) -> Named:
    yield from _stack(tensors, old, f"{new}.stack")
    yield from _rename(tensors, f"{old}.proj", f"{new}.output")


def _mt_decoder(tensors: Tensors) -> Named:
    # A speech-to-text model of fairseq has its text decoder where StreamSpeech has the units.
    old = "target_unigram_decoder"
    if not any(name.startswith(f"{old}.") for name in tensors):
        old = "decoder"
        if any(name.startswith("synthesizer_encoder.") for name in tensors):
            return
    yield from _stack(tensors, old, "mt_decoder.stack")
    embedding, output = f"{old}.embed_tokens.weight", f"{old}.output_projection.weight"
    if embedding in tensors:
        tied = output in tensors and torch.equal(tensors[output], tensors[embedding])
        sources = (embedding, output) if tied else (embedding,)
        yield "mt_decoder.embedding.weight", Candidate(tensors[embedding], sources)


def _unit_output(tensors: Tensors, unit_classes: int) -> Named:
    """Unit scores. Ours: blank, then the units. Theirs: four specials, the units, and ``<blank>`` if it was added."""
    output, embedding = "decoder.output_projection.weight", "decoder.embed_tokens.weight"
    name = output if output in tensors else embedding
    if name not in tensors:
        return
    weight = tensors[name]
    units = weight[FAIRSEQ_SPECIALS:]
    # StreamSpeech's task adds the blank behind the units; without that <s> is the blank.
    blank, units = (units[-1:], units[:-1]) if units.size(0) == unit_classes else (weight[:1], units)
    weight = torch.cat([blank, units])
    tied = embedding in tensors and torch.equal(tensors[name], tensors[embedding])
    yield "unit_decoder.output.weight", Candidate(weight, (name, embedding) if tied else (name,))
