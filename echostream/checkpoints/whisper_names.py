"""Weights of Whisper under the names of EchoStream's encoder and text decoder.

Layers, convolutions, norms and token positions move in one to one. The encoder's positions are a fixed table, which
:mod:`echostream.modules.cyclic_positions` computes; of the decoder's tokens only those of the target dictionary are
taken.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from echostream.checkpoints.errors import CheckpointError
from echostream.text import WORD_MARK

KINDS = ("ctranslate2", "openai", "transformers")
# For each format: what names begin with, the convolutions or tables before the layers, a layer, and the last norm.
STACKS = {
    "encoder": {
        "ctranslate2": ("encoder/", ("conv1", "conv2"), "layer_{}/", "layer_norm"),
        "openai": ("encoder.", ("conv1", "conv2"), "blocks.{}.", "ln_post"),
        "transformers": ("model.encoder.", ("conv1", "conv2"), "layers.{}.", "layer_norm"),
    },
    "decoder": {
        "ctranslate2": ("decoder/", ("embeddings/weight", "position_encodings/encodings"), "layer_{}/", "layer_norm"),
        "openai": ("decoder.", ("token_embedding.weight", "positional_embedding"), "blocks.{}.", "ln"),
        "transformers": (
            "model.decoder.",
            ("embed_tokens.weight", "embed_positions.weight"),
            "layers.{}.",
            "layer_norm",
        ),
    },
}
# Each layer's parts: ours, and those of the formats in the order of KINDS.
LAYER_PARTS = (
    ("norm_attention", "self_attention/layer_norm", "attn_ln", "self_attn_layer_norm"),
    ("attention_out", "self_attention/linear_1", "attn.out", "self_attn.out_proj"),
    ("norm_ffn", "ffn/layer_norm", "mlp_ln", "final_layer_norm"),
    ("ffn_in", "ffn/linear_0", "mlp.0", "fc1"),
    ("ffn_out", "ffn/linear_1", "mlp.2", "fc2"),
)
CROSS_PARTS = (
    ("norm_cross", "attention/layer_norm", "cross_attn_ln", "encoder_attn_layer_norm"),
    ("cross_attention.query", "attention/linear_0", "cross_attn.query", "encoder_attn.q_proj"),
    ("cross_attention.out", "attention/linear_2", "cross_attn.out", "encoder_attn.out_proj"),
)
# Projections that CTranslate2 stacks, and that the others keep apart.
QUERY_KEY_VALUE = (
    ("self_attention/linear_0",),
    ("attn.query", "attn.key", "attn.value"),
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
)
KEY_VALUE = (
    ("attention/linear_1",),
    ("cross_attn.key", "cross_attn.value"),
    ("encoder_attn.k_proj", "encoder_attn.v_proj"),
)
# What a translation without times starts with; the last of it takes the place of our start symbol.
PROMPT = ("<|startoftranscript|>", "<|{language}|>", "<|translate|>", "<|notimestamps|>")
END_TOKEN = "<|endoftext|>"  # noqa: S105  # no password
LANGUAGE_TOKEN = re.compile(r"<\|[a-z]{2,3}\|>")
Weights = dict[str, Tensor]


@dataclass(frozen=True)
class _Stack:
    """One of Whisper's two stacks in one of the formats."""

    weights: Mapping[str, Tensor]
    source: str
    kind: int
    prefix: str
    before: tuple[str, str]
    layer: str
    norm: str

    @staticmethod
    def of(weights: Mapping[str, Tensor], which: Literal["encoder", "decoder"], source: str) -> _Stack:
        for kind, name in enumerate(KINDS):
            prefix, before, layer, norm = STACKS[which][name]
            stack = _Stack(weights, source, kind, prefix, before, layer, norm)
            if any(key.startswith(prefix) for key in weights) and stack.num_layers:
                return stack
        raise CheckpointError(
            f"{source} has no weights of Whisper's {which} under the names of CTranslate2, OpenAI or transformers"
        )

    @property
    def num_layers(self) -> int:
        pattern = re.compile(re.escape(self.prefix) + self.layer.format(r"(\d+)").replace(".", r"\."))
        return max((int(match[1]) + 1 for name in self.weights if (match := pattern.match(name))), default=0)

    def tensor(self, name: str) -> Tensor:
        """The tensor ``name`` of the stack."""
        if self.prefix + name not in self.weights:
            raise CheckpointError(f"{self.source} has no {self.prefix}{name}: is it cut short?")
        return self.weights[self.prefix + name]

    def part(self, name: str, is_norm: bool = False) -> Weights:
        """Weight and, where there is one, bias of a part."""
        separator = "/" if KINDS[self.kind] == "ctranslate2" else "."
        weight, bias = ("gamma", "beta") if separator == "/" and is_norm else ("weight", "bias")
        found = {"weight": self.tensor(f"{name}{separator}{weight}")}
        if f"{self.prefix}{name}{separator}{bias}" in self.weights:
            found["bias"] = self.tensor(f"{name}{separator}{bias}")
        return found

    def last_norm(self) -> Weights:
        """Weight and bias of the norm behind the layers."""
        return self.part(self.norm, True)

    def joined(self, place: str, names: tuple[tuple[str, ...], ...]) -> Weights:
        """Several projections as one; Whisper's keys have no bias, which is one of zeros."""
        parts = [self.part(place + name) for name in names[self.kind]]
        biases = [one.get("bias", torch.zeros(one["weight"].size(0))) for one in parts]
        return {"weight": torch.cat([one["weight"] for one in parts]), "bias": torch.cat(biases)}

    def places(self, layers: int | None) -> list[str]:
        """Names of as many layers, evenly spaced, the last among them; None: of all."""
        count = self.num_layers
        layers = count if layers is None else layers
        if count < layers:
            stack = self.prefix.strip("/.").removeprefix("model.")
            raise CheckpointError(
                f"{self.source} has {count} {stack} layers, the model {layers}: choose a smaller architecture"
            )
        return [self.layer.format(round((index + 1) * count / layers) - 1) for index in range(layers)]

    def layer_parts(self, place: str, parts: tuple[tuple[str, ...], ...]) -> Weights:
        """The tensors of a layer's parts under our names."""
        result: Weights = {}
        for name, *others in parts:
            found = self.part(place + others[self.kind], "norm" in name)
            result |= {f"{name}.{key}": tensor for key, tensor in found.items()}
        return result


def whisper_encoder(weights: Mapping[str, Tensor], layers: int | None = None, source: str = "the file") -> Weights:
    """Weights of an :class:`EchoStreamSpeechEncoder` with the front end ``whisper``.

    Args:
        weights: from :func:`~echostream.checkpoints.whisper_files.read_whisper`.
        layers: how many the encoder has; of more in the file, evenly spaced ones are taken, the last among them. None:
            as many as the file has.
        source: what to call the file in messages.

    Returns:
        tensors by the names of the encoder's ``state_dict``.

    Raises:
        CheckpointError: these are no weights of Whisper, or too few layers.
    """
    stack = _Stack.of(weights, "encoder", source)
    result: Weights = {}
    for ours, theirs in zip(("subsampler.first", "subsampler.second"), stack.before, strict=True):
        convolution = stack.part(theirs)
        # (out, in, 3) -> (out, 3 * in), the earliest input first
        result[f"{ours}.weight"] = convolution["weight"].permute(0, 2, 1).flatten(1).contiguous()
        result[f"{ours}.bias"] = convolution["bias"]
    for index, place in enumerate(stack.places(layers)):
        found = stack.layer_parts(place, LAYER_PARTS)
        joined = stack.joined(place, QUERY_KEY_VALUE)
        found |= {f"query_key_value.{key}": tensor for key, tensor in joined.items()}
        result |= {f"emformer.layers.{index}.{name}": tensor for name, tensor in found.items()}
    return result | {f"emformer.norm_final.{key}": tensor for key, tensor in stack.last_norm().items()}


def whisper_decoder(
    weights: Mapping[str, Tensor],
    tokens: Mapping[str, int],
    symbols: Sequence[str],
    end: int,
    layers: int | None = None,
    language: str = "fr",
    source: str = "the file",
) -> tuple[Weights, list[str]]:
    """Weights of a :class:`TransformerMTDecoder` as Whisper's, and the symbols that Whisper doesn't have.

    The first three tokens of Whisper's prompt become the decoder's prompt. The fourth is read in the form of our start
    symbol, which is also the end symbol: the place where it stands adds what their embeddings differ by. A symbol that
    Whisper doesn't have starts as the mean of its bytes. The names of languages become those that it tells apart, the
    source's first.

    Args:
        weights: from :func:`~echostream.checkpoints.whisper_files.read_whisper`.
        tokens: from :func:`~echostream.checkpoints.whisper_files.read_whisper_tokens`.
        symbols: of the target dictionary.
        end: index of the end symbol there.
        layers: how many the decoder has, as in :func:`whisper_encoder`.
        language: of the source, as Whisper names it: ``fr``.
        source: what to call the file in messages.

    Raises:
        CheckpointError: these are no weights of Whisper, or too few layers, or other tokens.
    """
    stack = _Stack.of(weights, "decoder", source)
    embedding, positions = (stack.tensor(name) for name in stack.before)
    *prompt, start = (token.format(language=language) for token in PROMPT)
    if not {*prompt, start, END_TOKEN} <= tokens.keys() or max(tokens.values()) >= len(embedding):
        raise CheckpointError(
            f"the tokens beside {source} are not those of its {len(embedding)} embeddings, or don't know '{language}'"
        )
    rows = torch.zeros(len(symbols), embedding.size(1))
    absent = []
    for index, symbol in enumerate(symbols):
        if symbol.startswith("<") and symbol.endswith(">"):
            continue  # padding and the like
        name = byte_characters(symbol)
        if name not in tokens:
            absent.append(symbol)
        rows[index] = embedding[[tokens[one] for one in ([name] if name in tokens else name) if one in tokens]].mean(0)
    rows[end] = embedding[tokens[END_TOKEN]]
    places = positions.clone()
    places[len(prompt)] += embedding[tokens[start]] - rows[end]
    result: Weights = {"embedding.weight": rows, "positions.weight": places}
    result["prompt"] = embedding[[tokens[token] for token in prompt]]
    spoken = [token for token in tokens if LANGUAGE_TOKEN.fullmatch(token)]
    spoken.sort(key=lambda token: (token != prompt[1], tokens[token]))  # the source's first
    result["languages"] = embedding[[tokens[token] for token in spoken]]
    # A frame of which nothing is known: what the encoder's last norm makes of a mean one.
    result["prompt_frame"] = _Stack.of(weights, "encoder", source).last_norm()["bias"]
    for index, place in enumerate(stack.places(layers)):
        found = stack.layer_parts(place, (*LAYER_PARTS, *CROSS_PARTS))
        joined = stack.joined(place, QUERY_KEY_VALUE)
        found |= {f"query_key_value.{key}": tensor for key, tensor in joined.items()}
        key_value = stack.joined(place, KEY_VALUE)
        (key, value), (_, bias) = key_value["weight"].chunk(2), key_value["bias"].chunk(2)
        found |= {"cross_attention.key.weight": key, "cross_attention.value.weight": value}
        found["cross_attention.value.bias"] = bias
        result |= {f"stack.layers.{index}.{name}": tensor for name, tensor in found.items()}
    return result | {f"stack.norm.{key}": tensor for key, tensor in stack.last_norm().items()}, absent


def further_subwords(
    weights: Mapping[str, Tensor],
    tokens: Mapping[str, int],
    known: Collection[str],
    count: int,
    source: str = "the file",
) -> tuple[list[str], Tensor]:
    """The first ``count`` of Whisper's subwords that are not among ``known``, and their embeddings ``(count, dim)``.

    Only those of printable ASCII are taken, which write English and names; the first are those that its texts had most.

    Args:
        weights: from :func:`~echostream.checkpoints.whisper_files.read_whisper`.
        tokens: from :func:`~echostream.checkpoints.whisper_files.read_whisper_tokens`.
        known: symbols of the target dictionary.
        count: how many.
        source: what to call the file in messages.

    Raises:
        CheckpointError: these are no weights of Whisper, or not of these tokens.
        ValueError: there are not so many.
    """
    stack = _Stack.of(weights, "decoder", source)
    embedding = stack.tensor(stack.before[0])
    names = {byte_characters(symbol) for symbol in known}
    found = sorted(
        (number, token) for token, number in tokens.items() if ASCII_TOKEN.fullmatch(token) and token not in names
    )
    if len(found) < count:
        raise ValueError(f"{source} has {len(found)} further subwords, not {count}")
    if found and found[-1][0] >= len(embedding):
        raise CheckpointError(f"the tokens beside {source} are not those of its {len(embedding)} embeddings")
    first = found[:count]
    symbols = [token.replace(BYTE_CHARACTERS[ord(" ")], WORD_MARK) for _, token in first]
    return symbols, embedding[[number for number, _ in first]]


def byte_characters(symbol: str) -> str:
    """A subword as Whisper's tokens are written: a character for each byte of UTF-8, with a space for the word mark.

    Bytes that are printable stand for themselves; the others, the space among them, are numbered from U+0100 on.
    """
    return "".join(BYTE_CHARACTERS[byte] for byte in symbol.replace(WORD_MARK, " ").encode())


def _byte_characters() -> list[str]:
    printable = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) if byte in printable else chr(256 + others.index(byte)) for byte in range(256)]


BYTE_CHARACTERS = _byte_characters()
# A subword of printable ASCII, at the start of a word or inside; tokens such as <|fr|> are none.
ASCII_TOKEN = re.compile(rf"(?!<\|){BYTE_CHARACTERS[ord(' ')]}?[!-~]+")
