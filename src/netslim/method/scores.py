"""What ranks channels: a score per BatchNorm channel, of which the lowest are removed first.

The paper's is |γ| (``Magnitude``), others are in method/scoring/. Another one is a class or a function of the same
shape, anywhere:

    def over_the_mean(network, batches, seed):           # the size of a γ beside the others of its layer
        sizes = {name: layer.weight.detach().abs() for name, layer in netslim.bn_layers(network).items()}
        return Scores({n: g / g.mean() for n, g in sizes.items()}, {n: g == 0 for n, g in sizes.items()}, "|γ| / mean")

    over_the_mean.needs_data = False
    netslim.select_channels(model, 0.5, x, score=over_the_mean)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from netslim.modules import bn_layers


@dataclass(frozen=True)
class Scores:
    """Of every BN layer, by name, per channel:

    value: shape (C,), any finite numbers; larger is kept.
    dead: bool (C,), True where the channel is constant already, so that removing it changes nothing. A low score alone
        does not say that.
    unit: what the numbers are, for the report, e.g. "|γ|".
    """

    value: dict[str, Tensor]
    dead: dict[str, Tensor]
    unit: str


@dataclass(frozen=True)
class Reader:
    """A layer that computes with the channels of a BN layer (C of them): a convolution, a linear layer.

    energy: Σ of the squared weights between an output and a channel, shape (O, C), float64.
    variance: running variance + eps of each output in the BN layer that normalises it next, shape (O,); None where
        none does.
    """

    energy: Tensor
    variance: Tensor | None


@dataclass(frozen=True)
class Connections:
    """What lies around a BN layer in its network.

    macs: the multiply-adds that the network, as it is, saves with each channel alone, shape (C,), float64.
    readers: the layers that its channels reach through activations, pooling, sums and the like.
    """

    macs: Tensor
    readers: tuple[Reader, ...]


class Score(Protocol):
    """Ranks the channels of a network.

    needs_data: whether it looks at batches. If not, it must accept none.
    needs_labels: may be left out; if True, a batch is a list that ends with the labels, as a data loader makes it.
    needs_connections: may be left out; if True, it is called with a fourth argument, the ``Connections`` of every BN
        layer by name.
    """

    needs_data: bool

    def __call__(self, network: nn.Module, batches: Iterable[Any], seed: int) -> Scores:
        """The scores of all BN layers of the network, which is left as it was.

        Args:
            network: with trained weights.
            batches: each as the network's forward takes it: a tensor, a tuple of positional or a dict of keyword
                arguments.
            seed: of whatever is drawn at random.
        """


Connected = Mapping[str, Connections]


@dataclass(frozen=True)
class Magnitude:
    """|γ| (Liu et al. 2017, section 3); a channel whose γ is exactly 0 is dead.

    >>> layer = nn.BatchNorm1d(2); layer.weight.data = torch.tensor([-0.5, 0.0]); Magnitude()(layer)
    Scores(value={'': tensor([0.5000, 0.0000])}, dead={'': tensor([False,  True])}, unit='|γ|')
    """

    needs_data = False

    def __call__(self, network: nn.Module, batches: Iterable[Any] = (), seed: int = 0) -> Scores:
        value = {name: layer.weight.detach().abs().cpu() for name, layer in bn_layers(network).items()}
        return Scores(value, {name: size == 0 for name, size in value.items()}, "|γ|")


def scores_of(network: nn.Module, score: Score | Scores | None, connections: Callable[[], Connected]) -> Scores:
    """The scores to rank by. None: |γ|. connections: finds those of the network, for a score that needs them.

    Raises:
        ValueError: a score that needs data, or scores that do not fit the network's BN layers.
    """
    if score is None:
        return Magnitude()(network)
    if isinstance(score, Scores):
        return checked(score, bn_layers(network))
    if not is_score(score):
        raise ValueError(f"score must be a Score (callable, with needs_data) or Scores, got {type(score).__name__}")
    check_without_data(score)
    return evaluate(score, network, (), 0, connections() if needs_connections(score) else {})


def evaluate(score: Score, network: nn.Module, batches: Iterable[Any], seed: int, connections: Connected) -> Scores:
    """Call a score with what it takes.

    Raises:
        ValueError: what it gives does not fit the network's BN layers.
    """
    more = (connections,) if needs_connections(score) else ()
    return checked(score(network, batches, seed, *more), bn_layers(network))


def is_score(score: object) -> bool:
    return callable(score) and hasattr(score, "needs_data")


def needs_connections(score: Score) -> bool:
    return bool(getattr(score, "needs_connections", False))


def needs_labels(score: Score) -> bool:
    return bool(getattr(score, "needs_labels", False))


def check_without_data(score: Score) -> None:
    """Raise ValueError where a score needs data and there is none."""
    if score.needs_data:
        name = getattr(score, "__name__", type(score).__name__)
        raise ValueError(f"{name} needs data: give what it returns, score={name}(...)(model, batches, seed)")


def checked(scores: Scores, layers: Mapping[str, _BatchNorm]) -> Scores:
    """The same scores.

    Raises:
        ValueError: a layer that is missing or unknown, a wrong shape or type, a number that is not finite.
    """
    for name, layer in layers.items():
        shape = tuple(layer.weight.shape)
        for kind, given in (("value", scores.value.get(name)), ("dead", scores.dead.get(name))):
            if given is None or tuple(given.shape) != shape or (given.dtype == torch.bool) != (kind == "dead"):
                got = "nothing" if given is None else f"{given.dtype} {tuple(given.shape)}"
                wanted = "a bool tensor" if kind == "dead" else "a tensor of numbers"
                raise ValueError(f"{kind} of {name!r} in the scores must be {wanted} of shape {shape}, got {got}")
        if not scores.value[name].isfinite().all():
            raise ValueError(f"the score of {name!r} holds NaN or infinity ({scores.unit}): there is nothing to rank")
    unknown = [name for name in [*scores.value, *scores.dead] if name not in layers]
    if unknown:
        raise ValueError(f"the scores name {unknown[0]!r}, which is no BatchNorm layer of the network")
    return scores
