"""What the engine refuses, in one clear line each, before it touches anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from netslim.method.threshold import check_scales
from netslim.modules import Network

COUPLINGS = ("keep", "group", "scatter")


def check_model(network: Network) -> None:
    """Raise where a model cannot be slimmed as it is.

    That is: wrapped, sharded, scripted, compiled, quantised, lazy, without values or without BatchNorm.
    """
    kind = type(network.model).__name__
    classes: dict[type[nn.Module], str] = {}
    modules = network.modules
    for name, module in modules.items():
        classes.setdefault(type(module), name)
    for found, name in classes.items():
        _check_class(f"{kind}.{name}" if name else "the model", found)
    for name, module in modules.items():
        for key, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is not None and (type(tensor) not in (Tensor, nn.Parameter) or tensor.is_meta):
                _check_tensor(".".join(filter(None, (kind, name, key))), tensor)
    layers = network.norms
    if not layers:
        why = "frozen, fused or exported ones do not count"
        raise ValueError(f"{kind} has no BatchNorm layer with γ ({why}): there is nothing to slim")
    _check_norms(layers)
    check_scales({name: layer.weight.detach().cpu() for name, layer in layers.items()})


def _check_class(where: str, kind: type[nn.Module]) -> None:
    bases = {base.__name__ for base in kind.__mro__}  # by name, so that what nobody uses is not imported
    if issubclass(kind, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        raise ValueError(f"{where} is a {kind.__name__} wrapper: slim its .module, then wrap again")
    if bases & {"FullyShardedDataParallel", "FSDPModule"}:
        raise ValueError(f"{where} is sharded (FSDP): slim the whole network before it is sharded")
    if "OptimizedModule" in bases:
        raise ValueError(f"{where} is compiled: slim the original (its ._orig_mod), then compile again")
    if issubclass(kind, torch.jit.ScriptModule):
        raise ValueError(f"{where} is a TorchScript module: slim the Python module it was made from")
    floating = "FloatFunctional" in kind.__name__  # what a network that may be quantised one day adds and joins with
    if kind.__module__.startswith("torch.") and {"quantized", "qat"} & set(kind.__module__.split(".")) and not floating:
        raise ValueError(f"{where} is quantised ({kind.__module__}): slim before quantising")


def _check_tensor(where: str, tensor: Tensor) -> None:
    if is_lazy(tensor):
        raise ValueError(f"{where} is lazy, its shape not known yet: run the model once before slimming it")
    if tensor.is_meta:
        raise ValueError(f"{where} is on the meta device, so it has no values: load weights into it before slimming")
    if is_traceable_wrapper_subclass(tensor):
        raise ValueError(f"{where} is a {type(tensor).__name__}: slim before sharding or quantising")


def _check_norms(layers: Mapping[str, _BatchNorm]) -> None:
    """γ and β must be parameters, each of one layer alone: else removing a channel here changes something elsewhere."""
    owners: dict[int, str] = {}
    for name, layer in layers.items():
        for letter, tensor in (("γ", layer.weight), ("β", layer.bias)):
            if tensor is None:
                continue
            if not any(tensor is parameter for parameter in layer._parameters.values()):
                raise ValueError(
                    f"{letter} of {name!r} is computed from other parameters (pruned or parametrised): "
                    "make it permanent (prune.remove, remove_parametrizations) before slimming"
                )
            other = owners.setdefault(id(tensor), name)
            if other != name:
                raise ValueError(
                    f"{letter} of {name!r} is also that of {other!r}: give each layer its own, or call one layer twice"
                )


def check_demanded(network: Network, demands: Sequence[Any]) -> None:
    """Raise where nobody would miss the network: no tensor of its forward pass is read afterwards."""
    if not demands:
        kind = type(network.model).__name__
        raise ValueError(
            f"nothing that {kind} computes is returned or kept, so slimming would remove all of it: let forward return "
            "its result"
        )


def check_coupling(coupling: str) -> None:
    """Raise where it is none of the ways to treat channels that several BN layers write."""
    if coupling not in COUPLINGS:
        raise ValueError(f"coupling must be one of {', '.join(COUPLINGS)}, got {coupling!r}")


def check_copies(network: Network, copies: Sequence[Network]) -> None:
    """Raise where one of the copies has other tensors than the network."""
    shapes = {name: tensor.shape for name, tensor in network.state.items()}
    for other in copies:
        others = {name: tensor.shape for name, tensor in other.state.items()}
        for name in {**shapes, **others}:
            if shapes.get(name) != others.get(name):
                raise ValueError(f"{type(other.model).__name__} is no copy of the network: they differ in {name}")


def check_keep(network: Network, keep: Mapping[str, Tensor]) -> None:
    """Raise where a mask names no BN layer or does not fit it."""
    if not isinstance(keep, Mapping):
        raise ValueError(f"keep must map names of BatchNorm layers to bool tensors, got {type(keep).__name__}")
    layers = network.norms
    for name, kept in keep.items():
        if name not in layers:
            some = ", ".join(map(repr, list(layers)[:3]))
            kind = type(network.model).__name__
            raise ValueError(f"keep names {name!r}, which is no BatchNorm layer of {kind} (it has {some}…)")
        gamma = layers[name].weight
        assert isinstance(gamma, Tensor)
        shape = tuple(gamma.shape)
        if not isinstance(kept, Tensor) or kept.dtype != torch.bool or tuple(kept.shape) != shape:
            got = f"{kept.dtype} {tuple(kept.shape)}" if isinstance(kept, Tensor) else type(kept).__name__
            raise ValueError(f"keep[{name!r}] must be a bool tensor of shape {shape}, got {got}")
        if kept.is_meta:
            raise ValueError(f"keep[{name!r}] is on the meta device, so it has no values: give it on the CPU")
