"""L1 on γ, weighted by what a channel costs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from netslim.method.penalties import Penalty, add_terms, shrinkage_budget
from netslim.modules import bn_layers


class MacsL1(Penalty):
    """R(γ) = Σ over layers of  c · Σ|γ|,  c the multiply-adds of a channel of the layer over those of the mean channel.

    What is dear is pushed down harder. The mean of c over all channels is 1, so that λ means what it means for ``L1``.
    A Trainer tells the costs when the training starts; in a loop of one's own:

        penalty = MacsL1()
        penalty.weigh(model, netslim.engine.channel_macs(model, example_input))
        netslim.penalize(optimizer, model, 1e-4, penalty)

    Source: Gordon et al. 2018, "MorphNet": the cost of a channel is what its producers and its readers compute for it,
    as far as they are there. So the costs follow the network: a Trainer tells them again after every cut inside the
    training (``GradualSlimming``) and as each further training starts; in a loop of one's own ``weigh`` does.

    >>> model, penalty = nn.Sequential(nn.BatchNorm1d(1), nn.BatchNorm1d(1)), MacsL1()
    >>> penalty.weigh(model, {"0": torch.tensor([30.0]), "1": torch.tensor([10.0])})
    >>> penalty.add_gradient([model[0].weight, model[1].weight], 0.1); model[0].weight.grad, model[1].weight.grad
    (tensor([0.1500]), tensor([0.0500]))
    """

    needs_costs = True

    def __init__(self) -> None:
        self._network: nn.Module | None = None  # of which the costs are
        self._cost: dict[int, float] = {}  # id of γ -> c

    def weigh(self, network: nn.Module, costs: Mapping[str, Tensor]) -> None:
        """Raises ValueError where a BN layer has no cost, or the costs are no positive numbers."""
        layers = bn_layers(network)
        if missing := [name for name in layers if name not in costs]:
            raise ValueError(f"macs_l1: there is no cost of the BatchNorm layer {missing[0]!r}")
        mean = {name: float(costs[name].double().mean()) for name in layers}
        total = sum(cost * len(layers[name].weight) for name, cost in mean.items())
        if not (min(mean.values()) >= 0 and 0 < total < math.inf):
            raise ValueError(f"macs_l1: the costs of channels must be 0 or more, and not all 0, got {mean}")
        scale = sum(len(layer.weight) for layer in layers.values()) / total
        self._network, self._cost = network, {id(layers[name].weight): cost * scale for name, cost in mean.items()}

    def value(self, scales: Sequence[Tensor]) -> Tensor:
        return torch.stack([self._of(gamma) * gamma.abs().sum() for gamma in scales]).sum()

    @torch.no_grad()
    def add_gradient(self, scales: Sequence[nn.Parameter], weight: float | Tensor) -> None:
        add_terms(scales, [gamma.detach().sign() * self._of(gamma) for gamma in scales], weight)

    def budget(self, strength: float, rates: Iterable[float], momentum: float) -> float | None:
        """That of a channel of mean cost."""
        return shrinkage_budget(strength, rates, momentum)

    def _of(self, gamma: Tensor) -> float:
        if id(gamma) not in self._cost:
            raise ValueError(
                "macs_l1 does not know what the channels of a γ cost; call "
                "penalty.weigh(model, netslim.engine.channel_macs(model, example_input)) first"
            )
        return self._cost[id(gamma)]
