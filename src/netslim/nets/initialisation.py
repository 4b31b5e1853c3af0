"""The authors' initialisation, the same for their three networks; and new weights for a network that is there."""

from __future__ import annotations

import math

from torch import nn


def initialise(network: nn.Module) -> None:
    """Convolutions from N(0, 2/(k·k·out)), γ = 0.5, β = 0 (section 4.2: γ at 0.5 gave better accuracy than 1)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
            nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, 0.5)
            nn.init.zeros_(module.bias)


def renew(network: nn.Module) -> None:
    """Draw all weights of a network anew, in place, in the order in which its constructor draws them.

    Each layer by its own ``reset_parameters``, as torch.nn's have it, then what contains it, if that has one too; so
    the networks of this package get exactly the weights of one that is made with these widths. A network whose
    constructor does more (torchvision's, timm's) gets the layers' own initialisation; to have its own, give it a method
    ``reset_parameters``.

    Raises:
        ValueError: as ``check_renewable``; nothing has been changed then.

    >>> layer = nn.Linear(2, 1); _ = layer.weight.data.fill_(7.0); renew(layer); bool((layer.weight.abs() < 1).all())
    True
    """
    check_renewable(network)
    _renew(network)


def check_renewable(network: nn.Module) -> None:
    """Refuse a network that ``renew`` cannot give new weights.

    >>> import torch
    >>> class Scale(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.factor = nn.Parameter(torch.ones(1))
    >>> check_renewable(nn.Sequential(nn.Linear(1, 1), Scale()))
    Traceback (most recent call last):
    ValueError: '1' of the network (Scale) has parameters and no method reset_parameters, so it cannot be trained from new weights; give it one
    """  # noqa: E501
    found = _without_reset(network, "")
    if found is not None:
        name, kind = found
        raise ValueError(
            f"{name!r} of the network ({kind}) has parameters and no method reset_parameters, so it cannot be trained "
            "from new weights; give it one"
        )


def _resets(module: nn.Module) -> bool:
    return callable(getattr(module, "reset_parameters", None))


def _without_reset(module: nn.Module, name: str) -> tuple[str, str] | None:
    """The first module with parameters of its own that neither it nor what contains it can draw anew."""
    if _resets(module):
        return None
    if any(parameter is not None for parameter in module._parameters.values()):
        return name, type(module).__name__
    below = (_without_reset(child, f"{name}.{key}".lstrip(".")) for key, child in module.named_children())
    return next(filter(None, below), None)


def _renew(module: nn.Module) -> None:
    for child in module.children():
        _renew(child)
    if _resets(module):
        module.reset_parameters()  # type: ignore[operator]
