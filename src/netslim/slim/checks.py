"""What the engine refuses, in one clear line each, before it touches anything."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from netslim.sparsity import bn_layers


def check_model(model: nn.Module) -> None:
    """Raise where a model cannot be slimmed as it is: wrapped, scripted, lazy, quantised, or without BatchNorm."""
    kind = type(model).__name__
    for name, module in model.named_modules():
        where = f"{kind}.{name}" if name else kind
        if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)) or _is_fsdp(module):
            raise ValueError(f"{where} is a {type(module).__name__} wrapper: slim its .module, then wrap again")
        if type(module).__name__ == "OptimizedModule":
            raise ValueError(f"{where} is compiled: slim the original (its ._orig_mod), then compile again")
        if isinstance(module, torch.jit.ScriptModule):
            raise ValueError(f"{where} is a TorchScript module: slim the Python module it was made from")
        if ".quantized" in type(module).__module__ or ".qat" in type(module).__module__:
            raise ValueError(f"{where} is quantised ({type(module).__module__}): slim before quantising")
        for key, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if is_lazy(tensor):
                raise ValueError(
                    f"{where}.{key} is lazy, its shape not known yet: run the model once before slimming it"
                )
    if not bn_layers(model):
        raise ValueError(f"{kind} has no BatchNorm layer with γ (frozen ones do not count): there is nothing to slim")


def _is_fsdp(module: nn.Module) -> bool:
    return type(module).__name__ in ("FullyShardedDataParallel", "FSDPModule")


def check_keep(model: nn.Module, keep: Mapping[str, Tensor]) -> None:
    """Raise where a mask names no BN layer or does not fit it."""
    layers = bn_layers(model)
    for name, stays in keep.items():
        if name not in layers:
            raise ValueError(f"keep names {name!r}, which is no BatchNorm layer of {type(model).__name__}")
        gamma = layers[name].weight
        assert isinstance(gamma, Tensor)
        shape = tuple(gamma.shape)
        if not isinstance(stays, Tensor) or stays.dtype != torch.bool or tuple(stays.shape) != shape:
            got = f"{stays.dtype} {tuple(stays.shape)}" if isinstance(stays, Tensor) else type(stays).__name__
            raise ValueError(f"keep[{name!r}] must be a bool tensor of shape {shape}, got {got}")
