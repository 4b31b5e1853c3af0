"""How much the loss would change without a channel, to first order, on data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from netslim.method.batches import arguments
from netslim.method.scores import Magnitude, Scores
from netslim.modules import bn_layers, tensors_in

Parameters = dict[str, Tensor]


def cross_entropy(outputs: Any, labels: Tensor | None = None) -> Tensor:
    """The cross-entropy of logits (N, classes, ...) with the labels (N, ...), 0-d.

    labels: default the classes that the network itself finds most likely. On images that are classified correctly, as
        most training images are, that is the same.
    """
    (logits, *_) = tensors_in(outputs)
    return F.cross_entropy(logits, logits.detach().argmax(1) if labels is None else labels)


@dataclass(frozen=True)
class Taylor:
    """(γ·∂L/∂γ + β·∂L/∂β)², averaged over batches: removing a channel sets its γ and β to 0.

    In eval mode, so the statistics of BatchNorm stay.

    Args:
        loss: what the network returns, and the labels if there are any -> a loss, 0-d. Default ``cross_entropy``, for
            classifiers.
        labels: whether a batch is a list, as a data loader makes it, that ends with the labels; default no, it holds
            only what the network's forward takes. The command says yes (conf/score/taylor.yaml).

    Source: Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning", equation 8, with a gate behind
    each BatchNorm layer.

    Raises:
        ValueError: there are no batches, or no labels in them.
    """

    loss: Callable[..., Tensor] = cross_entropy
    labels: bool = False
    needs_data = True

    @property
    def needs_labels(self) -> bool:
        return self.labels

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
            positional, named = arguments(network, batch)
            outputs = functional_call(network, leaves, positional, named)
            loss = self.loss(outputs, *self._labels(batch))
            slopes = torch.autograd.grad(loss, [*leaves.values()], materialize_grads=True)
        terms = {name: own[name].detach() * slope for name, slope in zip(leaves, slopes, strict=True)}
        found = {}
        for name in bn_layers(network):
            prefix = f"{name}." if name else ""
            found[name] = terms[f"{prefix}weight"] + terms.get(f"{prefix}bias", 0.0)
        return found

    def _labels(self, batch: Any) -> tuple[Tensor, ...]:
        if not self.labels:
            return ()
        if not isinstance(batch, list) or len(batch) < 2:
            raise ValueError(
                f"Taylor with labels needs batches that are lists, [inputs, labels], got a {type(batch).__name__}; "
                "give labels=False (score.labels=false)"
            )
        return (batch[-1],)


def _scales_and_shifts(network: nn.Module) -> Parameters:
    """γ and β of every BN layer by their names as parameters."""
    found: Parameters = {}
    for name, layer in bn_layers(network).items():
        prefix = f"{name}." if name else ""
        found |= {f"{prefix}{key}": p for key, p in layer.named_parameters(recurse=False) if key in ("weight", "bias")}
    return found
