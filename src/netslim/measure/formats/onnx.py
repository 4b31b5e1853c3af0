"""ONNX, for ONNX Runtime and all else that reads it."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

from netslim.measure.formats.format import Format, Run, arguments, free_batch
from netslim.modules import tensors_in


def write(model: nn.Module, example_input: Any) -> bytes:
    """One file, weights included, with BatchNorm folded by the runtime."""
    args, kwargs = arguments(example_input)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*axis name: batch will not be used")  # one batch for all inputs, as meant
        program = torch.onnx.export(
            model,
            args,
            kwargs=kwargs,
            dynamic_shapes=free_batch(example_input),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    file: bytes = program.model_proto.SerializeToString()
    return file


def open_in_runtime(file: bytes, _: nn.Module | None = None) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]

    def run(x: Any) -> list[torch.Tensor]:
        feed = {name: tensor.numpy() for name, tensor in zip(names, tensors_in(x), strict=True)}
        return [torch.from_numpy(out) for out in session.run(None, feed)]

    return run


ONNX = Format(".onnx", "ONNX Runtime", write, open_in_runtime, ("onnxruntime", "onnxscript"), "onnx")
