"""A network as ONNX, checked against ONNX Runtime."""

from __future__ import annotations

import copy
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from netslim import files
from netslim.measure.latency import repeated
from netslim.modules import call, tensors_in


def to_onnx(model: nn.Module, example_input: Any, path: str | os.PathLike[str], *, tolerance: float = 1e-4) -> float:
    """Write a network as ONNX with a dynamic batch size, after running it in ONNX Runtime.

    Args:
        model: any network, on the CPU; exported in eval mode and left as it was.
        example_input: a tensor, a tuple of positional or a dict of keyword arguments; dimension 0 of every tensor is
            the batch.
        path: one file, weights included. It is written only if the outputs agree.
        tolerance: the largest deviation that is accepted, relative to the largest output; default 1e-4.

    Returns:
        The largest absolute deviation from PyTorch's outputs, on the example and on batches of one and three.

    Raises:
        ModuleNotFoundError: the extra ``onnx`` is not installed.
        ArithmeticError: ONNX Runtime computes something else.
        torch.onnx.OnnxExporterError: PyTorch cannot export the network.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  torch.onnx needs it
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"ONNX needs the package {error.name}: pip install 'netslim[onnx]'") from None
    model = copy.deepcopy(model).eval()
    traced = repeated(example_input, 2)  # a batch of one would be taken for a constant
    args = traced if isinstance(traced, tuple) else () if isinstance(traced, dict) else (traced,)
    kwargs = traced if isinstance(traced, dict) else {}
    size = torch.export.Dim("batch", min=1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*axis name: batch will not be used")  # one batch for all inputs, as meant
        program = torch.onnx.export(
            model,
            args,
            kwargs=kwargs,
            dynamic_shapes=tree_map_only(Tensor, lambda _: {0: size}, kwargs or args),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    file = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    checked = (example_input, repeated(example_input, 1), repeated(example_input, 3))
    deviation = max(_deviation(session, model, x, tolerance) for x in checked)
    files.write_bytes(Path(path), file)
    return deviation


def _deviation(session: Any, model: nn.Module, x: Any, tolerance: float) -> float:
    names = [given.name for given in session.get_inputs()]
    feed = dict(zip(names, tensors_in(x), strict=True))
    with torch.no_grad():
        expected = tensors_in(call(model, x))
    got = session.run(None, {name: tensor.numpy() for name, tensor in feed.items()})
    deviation = 0.0
    for ours, theirs in zip(expected, got, strict=True):
        largest = float((ours - torch.from_numpy(theirs)).abs().max())
        if not largest <= tolerance * float(ours.abs().max()):  # NaN is not either
            raise ArithmeticError(
                f"ONNX Runtime deviates from PyTorch by {largest:.2g} where the largest output is"
                f" {float(ours.abs().max()):.2g}; accepted is {tolerance:g} of it"
            )
        deviation = max(deviation, largest)
    return deviation
