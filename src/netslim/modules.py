"""What is asked of any network: its modules, tensors and BatchNorm layers, a call, the tensors of what it returns."""

from __future__ import annotations

from collections import OrderedDict
from functools import cached_property
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves


class Around(nn.Module):
    """A module that stands around a layer, in its place. The layer keeps its name, and the names of its tensors.

    Attributes that this module does not have are the layer's, to read and to set. In a state_dict the layer's tensors
    are what they were without it, beside the buffers of this module.

    >>> net = nn.Sequential(Around(nn.BatchNorm2d(8)))
    >>> net[0].num_features, list(net.state_dict())[:2], list(bn_layers(net))
    (8, ['0.weight', '0.bias'], ['0'])
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("__") or "layer" not in vars(self).get("_modules", {}):
                raise
            return getattr(self.layer, name)

    def __setattr__(self, name: str, value: Any) -> None:
        known = name.startswith("__") or name in vars(self) or "layer" not in vars(self).get("_modules", {})
        if known or not hasattr(self.layer, name):
            super().__setattr__(name, value)
        else:
            setattr(self.layer, name, value)

    def state_dict(self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        destination = OrderedDict() if destination is None else destination
        self._save_to_state_dict(destination, prefix, keep_vars)
        return self.layer.state_dict(destination=destination, prefix=prefix, keep_vars=keep_vars)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        own = {prefix + name for name in self._buffers}
        for key in [key for key in state_dict if key.startswith(prefix) and key not in own]:
            state_dict[f"{prefix}layer.{key.removeprefix(prefix)}"] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args)


class Network:
    """A look at a module tree: what is in it is found once, when it is first asked for, and handed down.

    It holds as long as the tree does; of parameters and buffers it knows which there are, not their values.

    >>> list(Network(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))).norms)
    ['1']
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    @cached_property
    def modules(self) -> dict[str, nn.Module]:
        """As ``modules_by_name``."""
        return modules_by_name(self.model)

    @cached_property
    def norms(self) -> dict[str, _BatchNorm]:
        """As ``bn_layers``."""
        return {name: m for name, m in self.modules.items() if isinstance(m, _BatchNorm) and m.weight is not None}

    @cached_property
    def state(self) -> dict[str, Tensor]:
        """As ``state``."""
        tensors: dict[int, tuple[str, Tensor]] = {}
        for path, module in self.modules.items():
            prefix = f"{path}." if path and not isinstance(module, Around) else path
            for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
                if tensor is not None:
                    tensors.setdefault(id(tensor), (prefix + name, tensor))
        return dict(tensors.values())


def modules_by_name(model: nn.Module) -> dict[str, nn.Module]:
    """All modules, each under its first name, in registration order: what ``model.named_modules()`` yields.

    That one passes every module up through as many generators as it lies deep, which takes longer than most of what is
    asked of the modules here. What stands ``Around`` a layer has the layer's name with a dot behind it.

    >>> list(modules_by_name(nn.Sequential(nn.Sequential(nn.ReLU()), Around(nn.BatchNorm2d(8)))))
    ['', '0', '0.0', '1.', '1']
    """
    found: dict[str, nn.Module] = {}
    seen: set[nn.Module] = set()
    ahead = [("", model)]
    while ahead:
        name, module = ahead.pop()
        if module in seen:
            continue
        seen.add(module)
        if isinstance(module, Around):
            found[f"{name}."] = module
            ahead.append((name, module.layer))
            continue
        found[name] = module
        if module._modules:
            prefix = f"{name}." if name else ""
            ahead += [(prefix + key, child) for key, child in reversed(module._modules.items()) if child is not None]
    return found


def bn_layers(model: nn.Module) -> dict[str, _BatchNorm]:
    """The BatchNorm layers whose γ is learnt or fixed as a parameter, by name, in registration order.

    BatchNorm1d/2d/3d, SyncBatchNorm and their subclasses; layers without affine parameters have no γ and are left out.

    >>> list(bn_layers(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())))
    ['1']
    """
    return Network(model).norms


def state(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers by name; what has several names comes once, under the first."""
    return Network(model).state


def call(model: nn.Module, example_input: Any) -> Any:
    """Run the model: a tuple is positional arguments, a dict keyword arguments, anything else the one argument."""
    if isinstance(example_input, dict):
        return model(**example_input)
    if isinstance(example_input, tuple):
        return model(*example_input)
    return model(example_input)


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors in nested lists, tuples, dicts and the attributes of other objects (dataclasses, model outputs)."""
    found = []
    for leaf in tree_leaves(value):
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif hasattr(leaf, "__dict__") and not isinstance(leaf, (type, nn.Module)):
            found += tensors_in(list(vars(leaf).values()))
    return found
