"""Sizes that modules remember, as in ``torch.split(x, self.width, 1)``: they change with the channels.

The tape shows only the number that arrives at an operation. Where the replay finds that one did not change, and the
module that runs the operation has an attribute of that number (or of these numbers, for a list), the number is taken to
come from there: in all modules of that class the attribute is set to the channels that are left. The replay tells again
whether that was right. If it was not, the channels that the number holds are frozen.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from netslim.engine.graph.graph import Graph
from netslim.engine.ops.channel_ids import shrink
from netslim.engine.ops.table import rule_for
from netslim.engine.trace.tape import Node
from netslim.modules import Network

Sizes = dict[tuple[str, str], Any]  # (module, attribute) -> an int or a list of them


def remembered(network: Network, graph: Graph, exist: Tensor) -> Sizes:
    """The attributes of the classes in ``graph.remembering`` that must change if only these ids exist."""
    if not graph.remembering:
        return {}
    modules, found = network.modules, Sizes()
    for node in graph.tape.nodes:
        module = modules.get(node.module) if node.module is not None else None
        if type(module) not in graph.remembering:
            continue
        dense, slim = _numbers(graph, node, exist)
        if dense:
            for name, value in vars(module).items():
                for new in _replaced(value, dense, slim):
                    found.setdefault((str(node.module), name), new)
    return {(owner, name): new for (owner, name), new in found.items() if new != _plain(getattr(modules[owner], name))}


def learn(network: Network, graph: Graph, exist: Tensor, position: int) -> bool:
    """Let the modules that run the operation, or the one before, remember sizes. False if that changes nothing."""
    owners = {node.module for node in graph.tape.nodes[max(0, position - 1) : position + 1]}
    kinds = {type(network.modules[owner]) for owner in owners if owner is not None} - graph.remembering
    before = remembered(network, graph, exist)
    graph.remembering |= {kind for kind in kinds if not issubclass(kind, nn.modules.conv._ConvNd)}
    return remembered(network, graph, exist) != before


def release_lists(network: Network, graph: Graph) -> None:
    """Shares whose sizes stand in a list of the module need not be equal: each has its own entry to set."""
    for position, node in enumerate(graph.tape.nodes):
        if node.name == "split_with_sizes" and position in graph.balances and node.module is not None:
            attributes = vars(network.modules[node.module]).values()
            if list(node.args[1]) in (list(value) for value in attributes if isinstance(value, (list, tuple))):
                graph.release(position)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _replaced(value: Any, dense: list[int], slim: list[int | None]) -> Iterator[Any]:
    """What an attribute becomes if it is one of the dense numbers, or some of them in a row."""
    if type(value) is int and value > 1:
        yield from (new for old, new in zip(dense, slim, strict=True) if old == value and new is not None)
    elif isinstance(value, (list, tuple)) and len(value) > 1:
        n = len(value)
        for i in range(len(dense) - n + 1):
            if dense[i : i + n] == list(value):
                yield [old if new is None else new for old, new in zip(dense[i : i + n], slim[i : i + n], strict=True)]


def _numbers(graph: Graph, node: Node, exist: Tensor) -> tuple[list[int], list[int | None]]:
    """The sizes among an operation's arguments, and what they become; None: no channels are counted by that one."""
    counts = rule_for(node).counts
    found = [] if counts is None else counts(graph, node)
    return [size for size, _, _ in found], [width(ids, dim, exist) for _, ids, dim in found]


def width(ids: Tensor, dim: int, exist: Tensor) -> int | None:
    """The length of a dimension if only these ids exist, or None where it holds no channels."""
    small = shrink(ids)
    dim %= ids.dim()
    if small.size(dim) == 1:
        return None
    rows = exist[small].movedim(dim, 0).reshape(small.size(dim), -1)
    grouped = any(n > 1 for n in small.shape[:dim])  # channels within groups: equally many in each
    return int(rows.sum(0).max()) if grouped else int(rows.any(1).sum())


def before_the_cut(graph: Graph, position: int) -> Tensor:
    """The ids that a slice counts: from the front, in x[:, 2:] and x[:, :2] the first two; from the back, in x[:, -2:]
    and x[:, :-2] the last two. They hold it in place."""
    node = graph.tape.nodes[position]
    x = graph.sym.get(node.args[0].index) if node.name == "slice" else None
    if not isinstance(x, Tensor) or len(node.args) < 3:
        return torch.empty(0, dtype=torch.long)
    dim, size = node.args[1], x.size(node.args[1])
    counted = [end for end in node.args[2:4] if end is not None and -size < end < size]
    front, back = max([0, *counted]), -min([0, *counted])
    return torch.cat([shrink(part).unique() for part in (x.narrow(dim, 0, front), x.narrow(dim, size - back, back))])
