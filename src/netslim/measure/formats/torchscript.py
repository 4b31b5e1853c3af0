"""TorchScript, traced and frozen: runs with PyTorch or libtorch alone, as ``torch.jit.load(path)(x)``."""

from __future__ import annotations

import io
import warnings
from typing import Any

import torch
from torch import nn

from netslim.measure.formats.format import Format, Run, arguments
from netslim.modules import call, tensors_in


def write(model: nn.Module, example_input: Any) -> bytes:
    """What the trace took for constant shows when the file runs on batches of other sizes."""
    args, kwargs = arguments(example_input)
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # PyTorch deprecates TorchScript, and warns of every constant
        traced = torch.jit.trace(
            model, args or None, example_kwarg_inputs=kwargs or None, strict=False, check_trace=False
        )
        torch.jit.save(torch.jit.freeze(traced), buffer)
    return buffer.getvalue()


def open_script(file: bytes, _: nn.Module | None = None) -> Run:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.jit.load(io.BytesIO(file))

    def run(x: Any) -> list[torch.Tensor]:
        with torch.no_grad():
            return tensors_in(call(module, x))

    return run


TORCHSCRIPT = Format(".torchscript", "TorchScript", write, open_script)
