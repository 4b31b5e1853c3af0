"""The tensors alone, as safetensors: for a network that is built by other code, of the slim sizes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from netslim.measure.formats.format import Format, Run
from netslim.modules import call, tensors_in


def write(model: nn.Module, _: Any) -> bytes:
    """The state_dict; tensors that share memory are written apart."""
    from safetensors.torch import save

    return save({name: tensor.detach().clone().contiguous() for name, tensor in model.state_dict().items()})


def open_in(file: bytes, network: nn.Module) -> Run:
    from safetensors.torch import load

    network.load_state_dict(load(file))

    def run(x: Any) -> list[torch.Tensor]:
        with torch.no_grad():
            return tensors_in(call(network, x))

    return run


SAFETENSORS = Format(".safetensors", "PyTorch", write, open_in, ("safetensors",), "safetensors", program=False)
