"""Undo the dynamic quantisation of an ONNX model: its 8-bit weights as floats, its integer products as float ones.

Kokoro-82M is published with 8-bit weights, and every product first quantises its input to 8 bits. An engine that
computes in bfloat16 has no use for that: without it, the convolutions run on the processor's matrix unit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from scripts.command_line import require


class Graph:
    """An ONNX graph with its names looked up."""

    def __init__(self, model: bytes):
        self.onnx = require("onnx")
        self.model = self.onnx.load_model_from_string(model)
        self.nodes = list(self.model.graph.node)
        self.weights = {tensor.name: self.onnx.numpy_helper.to_array(tensor) for tensor in self.model.graph.initializer}
        self.producer = {name: node for node in self.nodes for name in node.output}
        self.added: list[Any] = []

    def consumer(self, name: str, kind: str) -> Any:
        """The only node that reads `name`; raises ValueError when there is another or it is of another kind."""
        readers = [node for node in self.nodes if name in node.input]
        if len(readers) != 1 or readers[0].op_type != kind:
            raise ValueError(f"{name} should go to one {kind}, not to {[node.op_type for node in readers]}")
        return readers[0]

    def add(self, name: str, weights: np.ndarray) -> str:
        self.added.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(weights, np.float32), name))
        return name

    def node(self, kind: str, inputs: list[str], outputs: list[str], attributes: Any = ()) -> Any:
        node = self.onnx.helper.make_node(kind, inputs, outputs, name=f"float_{outputs[0]}")
        node.attribute.extend(attributes)
        return node

    def serialize(self, nodes: list[Any]) -> bytes:
        """The model of `nodes`, without those that lead nowhere and the weights that nothing reads."""
        wanted = {output.name for output in self.model.graph.output}
        live = []
        for node in reversed(nodes):  # a graph lists its nodes in the order of computation
            if wanted.intersection(node.output):
                live.append(node)
                wanted.update(node.input)
        weights = [tensor for tensor in [*self.model.graph.initializer, *self.added] if tensor.name in wanted]
        del self.model.graph.node[:], self.model.graph.initializer[:]
        self.model.graph.node.extend(reversed(live))
        self.model.graph.initializer.extend(weights)
        return self.model.SerializeToString()


def _product(graph: Graph, node: Any) -> tuple[Any, list[Any]]:
    """A ConvInteger or MatMulInteger as a float node, and the nodes that it replaces."""
    _, weight, _, zero = node.input
    quantize = graph.producer[node.input[0]]
    replaced = [node]
    inputs = [quantize.input[0], f"{node.output[0]}_weight"]
    follower = next(reader for reader in graph.nodes if node.output[0] in reader.input)
    if follower.op_type == "Add":  # a bias, quantised on the way: find the weights that it comes from
        (bias,) = (name for name in follower.input if name != node.output[0])
        while bias not in graph.weights:
            bias = graph.producer[bias].input[0]
        inputs.append(graph.add(f"{node.output[0]}_bias", graph.weights[bias].reshape(-1)))
        replaced.append(follower)
    cast = graph.consumer(replaced[-1].output[0], "Cast")
    scaled = graph.consumer(cast.output[0], "Mul")
    (scale,) = (name for name in scaled.input if name != cast.output[0])
    (weight_scale,) = (name for name in graph.producer[scale].input if name != quantize.output[1])
    per_channel = (-1, 1, 1) if node.op_type == "ConvInteger" else (-1,)
    offset, factor = (graph.weights[name].astype(np.float32).reshape(per_channel) for name in (zero, weight_scale))
    graph.add(inputs[1], (graph.weights[weight].astype(np.float32) - offset) * factor)
    kind = node.op_type.removesuffix("Integer")
    return graph.node(kind, inputs, list(scaled.output), node.attribute), [*replaced, cast, scaled]


def _lstm(graph: Graph, node: Any) -> Any:
    """A DynamicQuantizeLSTM as ONNX's own LSTM."""
    names = list(node.input)

    def floats(weight: str, scale: str, zero: str, suffix: str) -> str:
        directions = len(graph.weights[weight])
        offset, factor = (graph.weights[name].astype(np.float32).reshape(directions, 1, -1) for name in (zero, scale))
        weights = (graph.weights[weight].astype(np.float32) - offset) * factor
        return graph.add(f"{node.output[0]}_{suffix}", weights.transpose(0, 2, 1))

    inputs = [names[0], floats(names[1], *names[8:10], "W"), floats(names[2], *names[10:12], "R"), *names[3:7]]
    known = [attribute for attribute in node.attribute if attribute.name in ("direction", "hidden_size")]
    return graph.node("LSTM", inputs, list(node.output), known)


def _float_nodes(graph: Graph) -> Iterator[Any]:
    replacement: dict[str, Any] = {}  # by the last output of what is replaced
    replaced: set[str] = set()
    for node in graph.nodes:
        if node.op_type in ("ConvInteger", "MatMulInteger") and node.input[1] in graph.weights:
            new, old = _product(graph, node)
            replaced.update(name for each in old for name in each.output)
            replacement[old[-1].output[0]] = new
    for node in graph.nodes:
        if node.op_type == "DynamicQuantizeLSTM":
            yield _lstm(graph, node)
        elif node.output[0] in replacement:
            yield replacement[node.output[0]]
        elif node.output[0] not in replaced:
            yield node


def to_floats(model: bytes) -> bytes:
    """A model (serialised ONNX) that computes in floats what `model` computes in 8 bits.

    Raises:
        SystemExit: the package `onnx` is missing.
        ValueError: the model is quantised in another way than onnxruntime's dynamic quantisation.
    """
    graph = Graph(model)
    return graph.serialize(list(_float_nodes(graph)))
