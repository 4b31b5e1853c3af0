"""The modules of a network by name."""

from __future__ import annotations

from torch import nn


def modules_by_name(model: nn.Module) -> dict[str, nn.Module]:
    """All modules, each under its first name, in registration order: what ``model.named_modules()`` yields.

    That one passes every module up through as many generators as it lies deep, which takes longer than most of what is
    asked of the modules here.

    >>> list(modules_by_name(nn.Sequential(nn.Sequential(nn.ReLU()), nn.Flatten())))
    ['', '0', '0.0', '1']
    """
    found: dict[str, nn.Module] = {}
    seen: set[nn.Module] = set()
    ahead = [("", model)]
    while ahead:
        name, module = ahead.pop()
        if module in seen:
            continue
        seen.add(module)
        found[name] = module
        if module._modules:
            prefix = f"{name}." if name else ""
            ahead += [(prefix + key, child) for key, child in reversed(module._modules.items()) if child is not None]
    return found
