"""Parts to ONNX graphs, and weights as bytes: what needs the packages of the extra ``onnx``."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from echostream.checkpoints.packing import LARGEST, SCALE, is_packable, pack
from echostream.export.operators import DECOMPOSITIONS
from echostream.export.parts import Part

OPSET = 20  # the first with GELU as one operator
IR_VERSION = 10
WEIGHTS_NAME = "weights.bin"
INLINE_BYTES = 1024  # smaller tensors stay in the graph
ALIGNMENT = 64


def export_graph(part: Part) -> onnx.ModelProto:
    """The ONNX graph of a part, with its weights."""
    module, inputs = part.module, list(part.inputs)
    shapes = tuple({part.free[name]: torch.export.Dim.DYNAMIC} if name in part.free else {} for name in inputs)
    with torch.no_grad(), _quietly():
        program = torch.export.export(module, tuple(part.inputs.values()), dynamic_shapes=(shapes,), strict=False)
        program = program.run_decompositions(DECOMPOSITIONS)
        exported = torch.onnx.export(
            program,
            dynamo=True,
            input_names=inputs,
            output_names=part.outputs,
            opset_version=OPSET,
            verbose=False,
        )
    assert exported is not None  # with dynamo a program is returned
    return exported.model_proto


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without the exporter's remarks about itself and about packages that it doesn't need."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnx_ir", "onnxscript")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def start_graph(states: Mapping[str, Tensor]) -> onnx.ModelProto:
    """A graph without inputs whose outputs are the states of a fresh stream."""
    nodes: list[onnx.NodeProto] = []
    outputs: list[onnx.ValueInfoProto] = []
    values: list[TensorProto] = []
    for name, tensor in states.items():
        array = tensor.detach().numpy()
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        outputs.append(helper.make_tensor_value_info(name, kind, array.shape))
        if array.any():
            values.append(numpy_helper.from_array(array, f"{name}.value"))
            nodes.append(helper.make_node("Identity", [f"{name}.value"], [name]))
            continue
        values.append(numpy_helper.from_array(np.array(array.shape, dtype=np.int64), f"{name}.shape"))
        zero = helper.make_tensor("value", kind, [1], [0])
        nodes.append(helper.make_node("ConstantOfShape", [f"{name}.shape"], [name], value=zero))
    graph = helper.make_graph(nodes, "start", [], outputs, values)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def pack_weights(graph: onnx.GraphProto, modules: Sequence[nn.Module]) -> None:
    """Replace weights by bytes with a scale for each output, as released models have them (:mod:`packing`).

    The exporter has turned some of them round; they are known by their content. What is no weight (windows, filters,
    tables) stays as it is.
    """
    known: dict[bytes, Tensor] = {}
    for parameter in (parameter for module in modules for parameter in module.parameters()):
        if is_packable(parameter):
            known[_digest(parameter.detach().numpy())] = parameter.detach()
    nodes: list[onnx.NodeProto] = []
    kept: list[TensorProto] = []
    added: list[TensorProto] = []
    for tensor in graph.initializer:
        found = None
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1:
            array = numpy_helper.to_array(tensor)
            turned = np.ascontiguousarray(array.swapaxes(-1, -2))
            found = _dequantised(tensor.name, array.shape, known.get(_digest(array)), is_turned=False) or _dequantised(
                tensor.name, array.shape, known.get(_digest(turned)), is_turned=True
            )
        if found is None:
            kept.append(tensor)
            continue
        added += found[0]
        nodes += found[1]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *added])
    of_graph = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *of_graph])


def _dequantised(
    name: str, shape: tuple[int, ...], weight: Tensor | None, is_turned: bool
) -> tuple[list[TensorProto], list[onnx.NodeProto]] | None:
    """Tensors and nodes that make the weight called ``name`` again; None: it isn't known, or isn't packed."""
    if weight is None:
        return None
    packed = pack({"weight": weight})
    if "weight" + SCALE not in packed:
        return None
    steps, scale = packed["weight"].flatten(1).numpy(), packed["weight" + SCALE].numpy()
    assert np.abs(steps).max(initial=0) <= LARGEST
    axis = 0
    if is_turned and len(shape) == 2:
        steps, axis, is_turned = np.ascontiguousarray(steps.T), 1, False
    bytes_name, scale_name, matrix = f"{name}.int8", f"{name}{SCALE}", f"{name}.matrix"
    tensors = [numpy_helper.from_array(steps, bytes_name), numpy_helper.from_array(scale, scale_name)]
    if steps.shape == shape:
        return tensors, [helper.make_node("DequantizeLinear", [bytes_name, scale_name], [name], axis=axis)]
    own_shape = (*shape[:-2], shape[-1], shape[-2]) if is_turned else shape
    tensors.append(numpy_helper.from_array(np.array(own_shape, dtype=np.int64), f"{name}.shape"))
    straight = f"{name}.straight" if is_turned else name
    nodes = [
        helper.make_node("DequantizeLinear", [bytes_name, scale_name], [matrix], axis=axis),
        helper.make_node("Reshape", [matrix, f"{name}.shape"], [straight]),
    ]
    if is_turned:
        order = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
        nodes.append(helper.make_node("Transpose", [straight], [name], perm=order))
    return tensors, nodes


def _digest(array: np.ndarray[Any, Any]) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).digest()


class WeightsFile:
    """The weights of all parts in one file, each once."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._places: dict[bytes, int] = {}

    def take_out(self, graph: onnx.GraphProto) -> None:
        """Move the large tensors of a graph into the file."""
        for tensor in graph.initializer:
            data = numpy_helper.to_array(tensor).tobytes()
            if len(data) < INLINE_BYTES:
                continue
            digest = hashlib.sha256(data).digest()
            if digest not in self._places:
                self._file.write(b"\0" * (-self._file.tell() % ALIGNMENT))
                self._places[digest] = self._file.tell()
                self._file.write(data)
            kept = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
            tensor.CopyFrom(kept)
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (
                ("location", WEIGHTS_NAME),
                ("offset", self._places[digest]),
                ("length", len(data)),
            ):
                tensor.external_data.add(key=key, value=str(value))


def write_graph(model: onnx.ModelProto, path: Path, weights: WeightsFile) -> None:
    """Write a graph whose large tensors go to ``weights``."""
    weights.take_out(model.graph)
    model.producer_name = "echostream"
    path.write_bytes(model.SerializeToString())
