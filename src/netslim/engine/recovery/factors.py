"""Which channels can be multiplied by which factor without changing what the network computes.

A factor c > 0 on a channel passes through what is homogeneous (ReLU, pooling, a sum of channels that all have it) and
is divided out where weights or the statistics of a BN layer read it. Everywhere else the factor must be 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from netslim.engine.graph.flows import AllToAll, Flow, PerChannel
from netslim.engine.graph.graph import Graph
from netslim.engine.ops import table
from netslim.engine.ops.channel_ids import Ids
from netslim.engine.trace.tape import Node

NORMS = ("native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm")


@dataclass
class Common:
    """of: the group of every id; a group has one factor. fixed: groups whose factor is 1 -> the reason."""

    of: Tensor
    fixed: dict[int, str] = field(default_factory=dict)

    def fix(self, why: str, ids: Tensor) -> None:
        for group in self.of[ids.flatten()].unique().tolist():
            self.fixed.setdefault(group, why)


def reads_as_norm(node: Node, flow: Flow) -> bool:
    """Is this the flow in which a BN layer normalises? A second one of the same operation scatters."""
    return node.name in NORMS and isinstance(flow, PerChannel) and flow.zero == "never"


def common(graph: Graph) -> Common:
    """The groups of channels that have one factor."""
    ids, fixed = Ids(), _read_as_they_are(graph)
    ids.fresh(graph.count)
    constant = torch.ones(graph.count, dtype=torch.bool)  # what no BN layer and no weights can multiply
    for flow in graph.flows:
        node = graph.tape.nodes[flow.position]
        if isinstance(flow, AllToAll) or reads_as_norm(node, flow):
            ids.tie(flow.out, flow.out.flatten()[0].expand(flow.out.shape))
            constant[flow.out] = flow.norm == "" and isinstance(flow, PerChannel)
            continue
        assert isinstance(flow, PerChannel)
        carriers = _carriers(node, flow, constant)
        constant[flow.out] = not carriers or bool(torch.stack([constant[line].all() for line in carriers]).all())
        for line in flow.ins:
            if any(line is carrier for carrier in carriers):
                ids.tie(flow.out, line)
            else:
                fixed.append((node.name, line))
    for (_, name, dim), line in graph.used.items():
        ids.tie(line, graph.axes[name, dim])
    _tie_what_one_layer_reads(graph, ids)
    constant[torch.cat([torch.empty(0, dtype=torch.long), *graph.zeros])] = False  # 0 times anything is 0
    found = Common(ids.classes())
    for why, line in fixed:
        found.fix(why, line)
    found.fix("a number of the code or of a parameter", constant.nonzero())
    return found


def _carriers(node: Node, flow: PerChannel, constant: Tensor) -> list[Tensor]:
    """The operands whose common factor is that of the result; the others must have the factor 1."""
    if node.name in (*NORMS, "convolution"):  # a scatter; a convolution channel by channel
        return flow.ins
    if not table.rule_for(node).homogeneous or flow.zero == "never":
        return []
    if flow.zero == "any":
        varying = [line for line in flow.ins if not constant[line].all()]
        return varying if len(varying) == 1 else []
    return flow.ins[:1] if flow.zero == "first" else flow.ins


def _read_as_they_are(graph: Graph) -> list[tuple[str, Tensor]]:
    """(why, ids) of what must keep its numbers: outputs, what operations without a rule read, integers."""
    tape = graph.tape
    rounded = (
        (node.name, ids)
        for node in tape.nodes
        for ref in node.outs
        if not tape.dtype[ref].is_floating_point and isinstance(ids := graph.sym.get(ref), Tensor)
    )
    unmeasured = (
        ("a BatchNorm without running statistics", line)
        for flow in graph.flows
        if reads_as_norm(node := tape.nodes[flow.position], flow) and node.args[3] is None
        for line in flow.ins
    )
    return [*graph.demands, *graph.pins, *rounded, *unmeasured]


def _tie_what_one_layer_reads(graph: Graph, ids: Ids) -> None:
    """The statistics of a BN layer that is called twice are those of both inputs."""
    first: dict[str, Tensor] = {}
    for name, flow in norm_reads(graph):
        ids.tie(flow.ins[0], first.setdefault(name, flow.ins[0]))


def norm_reads(graph: Graph) -> Iterator[tuple[str, PerChannel]]:
    """(name of the running mean, flow) of every BN layer that has one, in the order in which they are called."""
    for flow in graph.flows:
        node = graph.tape.nodes[flow.position]
        if isinstance(flow, PerChannel) and reads_as_norm(node, flow) and node.args[3] is not None:
            yield graph.tape.state[node.args[3].index], flow
