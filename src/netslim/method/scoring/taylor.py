"""How much the loss would change without a channel, to first order, on data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from netslim.method.scores import Magnitude, Scores
from netslim.modules import bn_layers, tensors_in

Parameters = dict[str, Tensor]


def own_answer(outputs: Any) -> Tensor:
    """The cross-entropy of logits (N, classes, ...) with the class that the network itself finds most likely (0-d).

    It needs no labels; on images that are classified correctly, as most training images are, it is the loss itself.
    """
    (logits, *_) = tensors_in(outputs)
    return F.cross_entropy(logits, logits.detach().argmax(1))


@dataclass(frozen=True)
class Taylor:
    """(γ·∂L/∂γ + β·∂L/∂β)², averaged over batches: removing a channel sets its γ and β to 0.

    In eval mode, so the statistics of BatchNorm stay.

    Args:
        loss: what the network returns -> a loss, 0-d. Default ``own_answer``, for classifiers.

    Source: Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning", equation 8, with a gate behind
    each BatchNorm layer.

    Raises:
        ValueError: there are no batches.
    """

    loss: Callable[[Any], Tensor] = own_answer
    needs_data = True

    def __call__(self, network: nn.Module, batches: Iterable[Any], seed: int = 0) -> Scores:
        own = _scales_and_shifts(network)
        total: Parameters = {}
        count, modes = 0, {module: module.training for module in network.modules()}
        network.eval()
        try:
            for batch in batches:
                count += 1
                for name, change in self._changes(network, own, batch).items():
                    total[name] = total.get(name, 0.0) + change.square().double().cpu()
        finally:
            for module, mode in modes.items():
                module.training = mode
        if not count:
            raise ValueError("Taylor needs data: there is no batch")
        value = {name: sums / count for name, sums in total.items()}
        return Scores(value, Magnitude()(network).dead, "(γ∂L/∂γ + β∂L/∂β)²")

    def _changes(self, network: nn.Module, own: Parameters, batch: Any) -> Parameters:
        """γ·∂L/∂γ + β·∂L/∂β of every BN layer; the network's own gradients stay as they are."""
        with torch.enable_grad():
            leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in own.items()}
            arguments = batch if isinstance(batch, tuple) else () if isinstance(batch, dict) else (batch,)
            named = batch if isinstance(batch, dict) else {}
            loss = self.loss(functional_call(network, leaves, arguments, named))
            slopes = torch.autograd.grad(loss, [*leaves.values()], materialize_grads=True)
        terms = {name: own[name].detach() * slope for name, slope in zip(leaves, slopes, strict=True)}
        found = {}
        for name in bn_layers(network):
            prefix = f"{name}." if name else ""
            found[name] = terms[f"{prefix}weight"] + terms.get(f"{prefix}bias", 0.0)
        return found


def _scales_and_shifts(network: nn.Module) -> Parameters:
    """γ and β of every BN layer by their names as parameters."""
    found: Parameters = {}
    for name, layer in bn_layers(network).items():
        prefix = f"{name}." if name else ""
        found |= {f"{prefix}{key}": p for key, p in layer.named_parameters(recurse=False) if key in ("weight", "bias")}
    return found
