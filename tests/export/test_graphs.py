"""Weights as bytes, weights in one file, and the start of a stream."""

from __future__ import annotations

import io

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from echostream.checkpoints.packing import pack, unpack
from echostream.export.graphs import OPSET, WEIGHTS_NAME, WeightsFile, pack_weights, start_graph, write_graph

WEIGHT = torch.randn(64, 96, generator=torch.Generator().manual_seed(0))
PACKED = unpack(pack({"weight": WEIGHT}))["weight"]


def constant(array: np.ndarray) -> onnx.ModelProto:
    """A graph that gives out the initialiser ``w``."""
    out = helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, array.shape)
    nodes = [helper.make_node("Identity", ["w"], ["out"])]
    graph = helper.make_graph(nodes, "g", [], [out], [numpy_helper.from_array(np.ascontiguousarray(array), "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


def value_of(model: onnx.ModelProto) -> np.ndarray:
    onnx.checker.check_model(model)
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {})[0]


def layer() -> nn.Linear:
    linear = nn.Linear(96, 64)
    linear.weight.data.copy_(WEIGHT)
    return linear


@pytest.mark.parametrize(
    "form",
    [
        lambda weight: weight,
        lambda weight: weight.T,
        lambda weight: weight.unflatten(0, (4, 16)),  # the keys of each head
        lambda weight: weight.unflatten(0, (4, 16)).transpose(1, 2),  # the values of each head
    ],
    ids=["as it is", "turned", "by heads", "by heads, turned"],
)
def test_weights_in_any_form_are_those_of_a_packed_model(form):
    model = constant(form(WEIGHT).numpy())
    pack_weights(model.graph, [layer()])
    assert {tensor.name for tensor in model.graph.initializer} >= {"w.int8", "w.scale"}
    assert sum(np.prod(tensor.dims) * (tensor.data_type == 1) for tensor in model.graph.initializer) == len(WEIGHT)
    np.testing.assert_array_equal(value_of(model), form(PACKED).numpy())


def test_what_is_no_weight_is_kept():
    other = torch.randn(64, 96).numpy()
    model = constant(other)
    pack_weights(model.graph, [layer()])
    np.testing.assert_array_equal(value_of(model), other)


def test_weights_of_several_graphs_lie_in_one_file_once(tmp_path):
    file = io.BytesIO()
    weights = WeightsFile(file)
    for name, array in (("a", WEIGHT.numpy()), ("b", WEIGHT.numpy()), ("c", 2 * WEIGHT.numpy())):
        write_graph(constant(array), tmp_path / f"{name}.onnx", weights)
    (tmp_path / WEIGHTS_NAME).write_bytes(file.getvalue())
    assert len(file.getvalue()) == 2 * WEIGHT.numel() * 4
    for name, factor in (("a", 1), ("b", 1), ("c", 2)):
        (found,) = onnxruntime.InferenceSession(str(tmp_path / f"{name}.onnx")).run(None, {})
        np.testing.assert_array_equal(found, factor * WEIGHT.numpy())


def test_the_start_of_a_stream_is_given_as_it_is():
    states = {"a.past": torch.zeros(1, 3, 4), "a.position": torch.tensor([3]), "b.past": torch.randn(1, 2)}
    model = start_graph(states)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for value, found in zip(session.get_outputs(), session.run(None, {}), strict=True):
        expected = states[value.name].numpy()
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
