"""Rescaling: every layer's γ back to an average size of 1, and the network computes what it computed.

A penalty on γ can shrink a whole layer at no cost where a BN layer behind divides it out again. What is left after
pruning then has γ of very different sizes, and under SGD the relative step of a γ grows with 1/γ². Rescaling multiplies
γ and β of a layer by c and divides c out where its channels are read.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from netslim.engine.checks import check_model
from netslim.engine.graph.flows import AllToAll, PerChannel
from netslim.engine.graph.graph import Graph
from netslim.engine.recovery.factors import NORMS, Common, common, norm_reads
from netslim.engine.verify.analyse import analyse
from netslim.modules import Network

Factors = dict[int, float]  # group -> what its channels are multiplied by; 1 where it is not named


class Rescaled(dict[str, float]):
    """BN name -> its factor c, of the layers that were rescaled; ``left``: BN name -> why not, of the others."""

    def __init__(self, factors: dict[str, float], left: dict[str, str]) -> None:
        super().__init__(factors)
        self.left = left

    def __str__(self) -> str:
        reasons = list(self.left.values())
        held = ", ".join(f"{reasons.count(why)} held by {why}" for why in dict.fromkeys(reasons))
        return f"rescaled {len(self)} of {len(self) + len(self.left)} BatchNorm layers" + (held and f" ({held})")


@torch.no_grad()
def rescale(small: nn.Module, example_input: Any) -> Rescaled:
    """Multiply γ and β of every BN layer by c = 1 / mean |γ|, in place; the network computes the same as before.

    Where its channels are read, c is divided out: of the weights; or, if only BN layers read what the weights make, of
    their statistics (mean · c, variance c²·(variance + eps) − eps), and the weights keep their size. Layers whose
    channels are added have one c. A layer is left as it is where something behind it is not homogeneous (an output, a
    sigmoid, LayerNorm). In eval mode the outputs are equal to rounding. In training mode they are where weights were
    divided; where statistics were, they are but for eps, which weighs less beside a larger variance.

    Args:
        small: a slim network, or any that ``slim`` takes. Do it right before fine-tuning.
        example_input: a tensor, a tuple of positional or a dict of keyword arguments of the network's forward.

    Returns:
        BN name -> c; see ``Rescaled``. A warning says so where nothing could be rescaled.

    Raises:
        ValueError: a network that cannot be analysed, as for ``slim``.

    >>> net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 1, 1)).eval()
    >>> net[1].weight.data = torch.tensor([0.25, -0.75])
    >>> rescale(net, torch.zeros(1, 1, 2, 2))
    {'1': 2.0}
    """
    network = Network(small)
    check_model(network)
    graph = analyse(network, example_input)
    groups = common(graph)
    factors = _factors(network, graph, groups)
    while refused := _no_variance(network, graph, groups, factors):
        groups.fixed.update(refused)
        factors = _factors(network, graph, groups)
    done = _described(graph, groups, factors)
    if not done:
        warnings.warn(str(done), stacklevel=2)
    _multiply(network, graph, _of_ids(groups, factors))
    return done


def _factors(network: Network, graph: Graph, groups: Common) -> Factors:
    """1 / mean |γ| of the groups of BN layers; what only BN layers read takes the factor of what it is made of."""
    sizes: dict[int, dict[str, Tensor]] = {}
    for flow in graph.norm_flows:
        gamma = network.norms[flow.norm].weight.detach().double().abs().cpu()
        sizes.setdefault(_group(groups, flow), {})[flow.norm] = gamma[gamma > 0]
    found = {}
    for group, own in sizes.items():
        gammas = torch.cat([*own.values()])
        if group not in groups.fixed and len(gammas):
            found[group] = 1 / float(gammas.mean())
    made, read = _makers(graph, groups), _read_by_weights(graph, groups)
    for layer in graph.flows:
        if isinstance(layer, AllToAll):
            group, given = _group(groups, layer), {found.get(g, 1.0) for g in groups.of[layer.ins.flatten()].tolist()}
            alone = len(made[group]) == 1 and not {group} & (groups.fixed.keys() | sizes.keys() | read)
            if alone and len(given) == 1:
                found[group] = given.pop()
    return found


def _group(groups: Common, flow: PerChannel | AllToAll) -> int:
    """Of what a BN layer or weights make: it is one."""
    return int(groups.of[flow.out.flatten()[0]])


def _makers(graph: Graph, groups: Common) -> dict[int, set[str]]:
    """Group -> the weights that make its channels."""
    made: dict[int, set[str]] = {}
    for name, _, flow in _weights(graph):
        made.setdefault(_group(groups, flow), set()).add(name)
    return made


def _read_by_weights(graph: Graph, groups: Common) -> set[int]:
    lines = [flow.ins.flatten() for flow in graph.flows if isinstance(flow, AllToAll)]
    return set(groups.of[torch.cat(lines)].tolist()) if lines else set()


def _weights(graph: Graph) -> Iterator[tuple[str, int, AllToAll]]:
    """(name, dimension of its inputs, flow) of every weight that computes all from all."""
    for (position, name, dim), ids in graph.used.items():
        flow = graph.flow_at.get(position)
        if isinstance(flow, AllToAll) and torch.equal(ids.flatten(), flow.ins.flatten()):
            yield name, dim, flow


def _of_ids(groups: Common, factors: Factors) -> Tensor:
    """Shape (ids,), float64."""
    per_group = torch.ones(int(groups.of.max()) + 1, dtype=torch.float64)
    for group, factor in factors.items():
        per_group[group] = factor
    return per_group[groups.of]


def _variances(network: Network, graph: Graph, factor: Tensor) -> Iterator[tuple[str, PerChannel, Tensor]]:
    """(name, flow, new value) of every running variance whose input is multiplied."""
    for _, flow in norm_reads(graph):
        node = graph.tape.nodes[flow.position]
        name, eps, c = graph.tape.state[node.args[4].index], node.args[7], factor[flow.ins[0]]
        if bool((c != 1).any()):
            before = network.state[name].detach().double().cpu()
            yield name, flow, before.where(c == 1, c.square() * (before + eps) - eps)


def _no_variance(network: Network, graph: Graph, groups: Common, factors: Factors) -> dict[int, str]:
    """Groups whose factor would make a variance negative or infinite."""
    refused = {}
    for name, flow, variance in _variances(network, graph, _of_ids(groups, factors)):
        bad = (variance < 0) | ~variance.to(network.state[name].dtype).isfinite()
        refused.update(dict.fromkeys(groups.of[flow.ins[0][bad]].tolist(), f"the size of {name}"))
    return refused


def _described(graph: Graph, groups: Common, factors: Factors) -> Rescaled:
    done, left = {}, {}
    for flow in graph.norm_flows:
        group = _group(groups, flow)
        if group in factors:
            done[flow.norm] = factors[group]
        else:
            left[flow.norm] = groups.fixed.get(group, "γ = 0")
    return Rescaled(done, left)


def _multiply(network: Network, graph: Graph, factor: Tensor) -> None:
    """Each tensor once, however often the network uses it."""
    times = {**_times_of_norms(graph, factor), **_times_of_layers(network, graph, factor)}
    variances = {name: variance for name, _, variance in _variances(network, graph, factor)}
    for name, c in times.items():
        tensor = network.state[name]
        tensor.copy_(tensor.double() * c.to(tensor.device))
    for name, variance in variances.items():
        network.state[name].copy_(variance)


def _times_of_norms(graph: Graph, factor: Tensor) -> dict[str, Tensor]:
    """γ and β by what their layer writes, the running mean by what it reads."""
    times, tape = {}, graph.tape
    for flow in graph.norm_flows:
        refs = tape.nodes[flow.position].args[1:3]
        times.update({tape.state[ref.index]: factor[flow.out] for ref in refs if ref is not None})
    return times | {name: factor[flow.ins[0]] for name, flow in norm_reads(graph)}


def _times_of_layers(network: Network, graph: Graph, factor: Tensor) -> dict[str, Tensor]:
    """Weights by what they make over what they read, biases by what they are added to."""
    times = {}
    for (position, name, _), ids in graph.used.items():
        if graph.tape.nodes[position].name not in NORMS and network.state[name].dim() == 1:
            times[name] = factor[ids]
    for name, dim, flow in _weights(graph):
        weight = network.state[name]
        c = factor[flow.out.flatten()[0]] / factor[flow.ins]  # (groups, columns)
        rows = c.repeat_interleave(weight.shape[0] // len(c), 0) if dim == 1 else c.reshape(-1, 1)
        times[name] = rows.reshape(*rows.shape, *[1] * (weight.dim() - 2))
    return times
