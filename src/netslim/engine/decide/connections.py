"""What lies around every BN layer: what its channels cost, and the layers that compute with them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from netslim.engine.graph.flows import AllToAll, Flow, PerChannel
from netslim.engine.graph.graph import Graph
from netslim.engine.ops.table import node_macs
from netslim.method.scores import Connections, Reader
from netslim.modules import Network

Labels = npt.NDArray[np.int64]  # of every id: which channel of a BN layer it comes from, -1: none


def connections(network: Network, graph: Graph) -> dict[str, Connections]:
    """Of every BN layer that was run. Of a network that is run in several modes, the first run counts."""
    costs, spread = channel_macs(graph), _spread(network, graph)
    return {
        name: Connections(cost, tuple(_readers(network, graph, name, len(cost), spread)))
        for name, cost in costs.items()
    }


def channel_macs(graph: Graph) -> dict[str, Tensor]:
    """BN name -> the multiply-adds that the dense network saves with each of its channels alone, (C,), float64: those
    of what makes it and of what reads it, and of all that must be removed with it."""
    per_class = torch.zeros(int(graph.classes.max()) + 1, dtype=torch.float64)
    for flow in _first_run(graph):
        macs = node_macs(graph.tape, graph.tape.nodes[flow.position])
        if not macs or graph.flow_at.get(flow.position) is not flow:
            continue
        lines = [flow.out, flow.ins] if isinstance(flow, AllToAll) else [flow.out]
        for line in lines:
            ids = graph.classes[line.flatten()]
            per_class.index_add_(0, ids, torch.full(ids.shape, macs / ids.numel(), dtype=torch.float64))
    return {flow.norm: per_class[graph.classes[flow.out]] for flow in graph.norm_flows}


def _first_run(graph: Graph) -> Iterator[Flow]:
    end = len(graph.tape.first_run)
    return (flow for flow in graph.flows if flow.position < end)


def _spread(network: Network, graph: Graph) -> Tensor:
    """Running variance + eps of every id that a BN layer reads; nan of others. Shape (ids,), float64."""
    spread = torch.full((graph.count,), torch.nan, dtype=torch.float64)
    for flow in graph.norm_flows:
        layer = network.norms[flow.norm]
        if layer.running_var is not None:
            spread[flow.ins[0]] = layer.running_var.detach().double().cpu() + layer.eps
    return spread


def _readers(network: Network, graph: Graph, name: str, width: int, spread: Tensor) -> Iterator[Reader]:
    """Follow the channels of a BN layer, operation by operation, up to the layers that compute with them."""
    label: Labels = np.full(graph.count, -1, dtype=np.int64)
    for flow in _first_run(graph):
        if flow.norm == name:
            label[flow.out.numpy()] = np.arange(width)
        elif not flow.norm:
            ins = [flow.ins] if isinstance(flow, AllToAll) else flow.ins
            found = [label[line.numpy()] for line in ins]
            if not any((line >= 0).any() for line in found):
                continue
            energy = _energy(network, graph, flow)
            if energy is not None:
                yield _reader(energy, found[0].flatten(), width, spread[flow.out.flatten()])
            elif isinstance(flow, PerChannel):
                label[flow.out.numpy()] = np.maximum.reduce(found)


def _reader(energy: Tensor, channel: Labels, width: int, spread: Tensor) -> Reader:
    """energy: (O, columns); channel: of which BN channel each column is, -1: of none."""
    mine = torch.from_numpy(np.flatnonzero(channel >= 0))
    own = torch.zeros(len(energy), width, dtype=torch.float64)
    own.index_add_(1, torch.from_numpy(channel)[mine], energy[:, mine])
    return Reader(own, None if spread.isnan().any() else spread)


def _energy(network: Network, graph: Graph, flow: Flow) -> Tensor | None:
    """Σ of the squared weights of a layer between each output and each column, (O, columns); None: it has no weights.

    Zero between the groups of a grouped layer, and but for the diagonal in one that works channel by channel.
    """
    if isinstance(flow, PerChannel):
        if graph.tape.nodes[flow.position].name != "convolution":
            return None
        (weight,) = (network.state[name] for name, dim, _ in _axes(network, graph, flow) if dim == 0)
        return torch.diag(_squares(weight).reshape(len(flow.out), -1).sum(1))
    for name, dim, ids in _axes(network, graph, flow):
        if torch.equal(ids.flatten(), flow.ins.flatten()):
            squares = _squares(network.state[name])
            squares = squares.flatten(2).sum(2) if squares.dim() > 2 else squares
            (groups, rows), columns = flow.out.shape, flow.ins.shape[1]
            by_group = squares.reshape(groups, *((rows, columns) if dim else (columns, rows)))
            return torch.block_diag(*(by_group if dim else by_group.transpose(1, 2)))
    return None


def _axes(network: Network, graph: Graph, flow: Flow) -> list[tuple[str, int, Tensor]]:
    """(name, dimension, ids) of the parameters of more than one dimension that an operation uses."""
    return [
        (name, dim, ids)
        for (position, name, dim), ids in graph.used.items()
        if position == flow.position and network.state[name].dim() > 1
    ]


def _squares(weight: Tensor) -> Tensor:
    return weight.detach().double().cpu().square()
