"""The BatchNorm scales γ of a network: those that training may change, how large they are, how many are dead."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from netslim.method.scale_bins import BINS, DEAD, EDGES
from netslim.modules import bn_layers


def all_scales(model: nn.Module) -> list[nn.Parameter]:
    """All γ, frozen ones too, each once: a list of parameters of shape (C,)."""
    return list({id(m.weight): m.weight for m in bn_layers(model).values()}.values())


def bn_scales(model: nn.Module) -> list[nn.Parameter]:
    """The γ that training may change, each once: a list of parameters of shape (C,)."""
    return [gamma for gamma in all_scales(model) if gamma.requires_grad]


@torch.no_grad()
def l1_norm(scales: Sequence[Tensor]) -> Tensor:
    """Σ|γ| over all layers (0-d tensor): the paper's penalty before λ. It is logged, never added to the loss."""
    return torch.stack(torch._foreach_norm(list(scales), 1)).sum()


def dead(gamma: Tensor) -> Tensor:
    """Which γ of a layer are dead, bool (C,): |γ| is at most 1 % of the layer's mean |γ|.

    That does not change where a whole layer is multiplied by c > 0, which the next BatchNorm layer divides out again.

    >>> dead(torch.tensor([0.5, -0.001, 0.2])), dead(torch.zeros(2))
    (tensor([False,  True, False]), tensor([True, True]))
    """
    size = gamma.detach().abs()
    return size <= DEAD * size.mean()


def dead_share(scales: Sequence[Tensor]) -> float:
    """The share of all γ that are dead beside the others of their layer, 0..1. One synchronisation with the device.

    scales: of each layer, shape (C,).

    >>> dead_share([torch.tensor([0.5, -0.001]), torch.tensor([1e-4, 3e-4])])
    0.25
    """
    masks = torch.cat([dead(gamma) for gamma in scales])
    return float(masks.sum()) / masks.numel()


def histogram(scales: Sequence[Tensor]) -> list[int]:
    """How many |γ| are in each bin of scale_bins.py. One synchronisation with the device.

    >>> counts = histogram([torch.tensor([0.0, -1e-9, 0.5]), torch.tensor([-100.0])])
    >>> counts[0], counts[-1], sum(counts)
    (2, 1, 4)
    """
    sizes = torch.cat([gamma.detach().abs().flatten() for gamma in scales]).cpu() if scales else torch.empty(0)
    places = torch.bucketize(sizes.double(), torch.tensor(EDGES, dtype=torch.float64), right=True)
    counts: list[int] = torch.bincount(places, minlength=BINS).tolist()
    return counts
