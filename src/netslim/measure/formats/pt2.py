"""The program of torch.export (.pt2): runs with PyTorch alone, as ``torch.export.load(path).module()(x)``."""

from __future__ import annotations

import io
from typing import Any

import torch
from torch import nn

from netslim.measure.formats.format import Format, Run, arguments, free_batch
from netslim.modules import call, tensors_in


def write(model: nn.Module, example_input: Any) -> bytes:
    args, kwargs = arguments(example_input)
    program = torch.export.export(model, args, kwargs, dynamic_shapes=free_batch(example_input))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def open_program(file: bytes, _: nn.Module | None = None) -> Run:
    module = torch.export.load(io.BytesIO(file)).module()

    def run(x: Any) -> list[torch.Tensor]:
        with torch.no_grad():
            return tensors_in(call(module, x))

    return run


PT2 = Format(".pt2", "torch.export", write, open_program)
