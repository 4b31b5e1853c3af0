"""A layer alone, to be measured: as a module, and as an ONNX file that is written without tracing anything."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from netslim.engine import LayerShape

CONVOLUTIONS: dict[tuple[int, bool], type[nn.Module]] = {
    (1, False): nn.Conv1d,
    (2, False): nn.Conv2d,
    (3, False): nn.Conv3d,
    (1, True): nn.ConvTranspose1d,
    (2, True): nn.ConvTranspose2d,
    (3, True): nn.ConvTranspose3d,
}
NORMS: tuple[type[nn.Module], ...] = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def example(shape: LayerShape) -> Tensor:
    """What the layer reads."""
    return torch.zeros(shape.rows, shape.inputs, *shape.size)


def module(shape: LayerShape) -> nn.Module:
    """A linear layer; a convolution, with BatchNorm and ReLU behind it as networks have them.

    >>> module(LayerShape(rows=1, inputs=3, outputs=2))
    Linear(in_features=3, out_features=2, bias=True)
    """
    if not shape.size:
        return nn.Linear(shape.inputs, shape.outputs)
    numbers: dict[str, Any] = {name: getattr(shape, name) for name in ("stride", "padding", "dilation", "groups")}
    if shape.transposed:
        numbers["output_padding"] = shape.added
    kind = CONVOLUTIONS[len(shape.size), shape.transposed]
    layer = kind(shape.inputs, shape.outputs, shape.kernel, bias=False, **numbers)
    return nn.Sequential(layer, NORMS[len(shape.size) - 1](shape.outputs), nn.ReLU()).eval()


def onnx_file(shape: LayerShape) -> bytes:
    """The same as an exporter leaves it, BatchNorm folded into the convolution. (An exporter takes a second.)"""
    import onnx
    from onnx import TensorProto, helper

    def value(name: str, sizes: list[int]) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes)

    nodes = _nodes(shape)
    weight, bias = (_constant(name, sizes) for name, sizes in (("w", weight_sizes(shape)), ("b", [shape.outputs])))
    given = value("x", [shape.rows, shape.inputs, *shape.size])
    rank = 2 + len(shape.size)
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * rank)
    graph = helper.make_graph(nodes, "layer", [given], [result], [weight, bias])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(made)
    file: bytes = made.SerializeToString()
    return file


def weight_sizes(shape: LayerShape) -> list[int]:
    """Of the layer's weight; a transposed convolution has its inputs first."""
    first, second = (shape.inputs, shape.outputs) if shape.transposed else (shape.outputs, shape.inputs)
    return [first, second // shape.groups, *shape.kernel]


def _nodes(shape: LayerShape) -> list[Any]:
    from onnx import helper

    if not shape.size:
        return [helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)]
    numbers: dict[str, Any] = {
        "strides": shape.stride,
        "pads": 2 * shape.padding,
        "dilations": shape.dilation,
        "group": shape.groups,
    }
    if shape.transposed:
        numbers["output_padding"] = shape.added
    kind = "ConvTranspose" if shape.transposed else "Conv"
    convolution = helper.make_node(kind, ["x", "w", "b"], ["c"], kernel_shape=shape.kernel, **numbers)
    return [convolution, helper.make_node("Relu", ["c"], ["y"])]


def _constant(name: str, sizes: list[int]) -> Any:
    """Numbers like those that a layer starts with: denormal ones, or zeros, would take another time."""
    from onnx import TensorProto, helper

    bound = 1 / math.sqrt(max(1, math.prod(sizes[1:])))
    values = torch.empty(sizes).uniform_(-bound, bound)
    return helper.make_tensor(name, TensorProto.FLOAT, sizes, values.numpy().tobytes(), raw=True)
