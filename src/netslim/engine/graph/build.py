"""Run the rules over a tape, once from front to back, and write down what they say: the graph."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from netslim.engine.graph import streams
from netslim.engine.graph.flows import AllToAll, Balance, PerChannel, Scattered
from netslim.engine.graph.graph import Graph
from netslim.engine.ops import table
from netslim.engine.ops.channel_ids import Ids, Weight, shrink
from netslim.engine.trace.tape import Tape, unread_aliases
from netslim.modules import Network

LONG = 4096  # places: few layers are so wide, but a flattened map has as many, and each channel many times


def build(network: Network, tape: Tape, scattering: Mapping[str, str]) -> Graph:
    """The graph of what is on the tape. scattering: as in ``Graph``."""
    norms = {f"{name}.weight" if name else "weight": name for name in network.norms}
    graph = Graph(tape, norms, dict(scattering), {ref: Weight(name) for ref, name in tape.state.items()})
    builder = Builder(graph)
    skip = unread_aliases(tape)
    for position, node in enumerate(tape.nodes):
        if position not in skip:
            builder.position = position
            outs = table.rule_for(node).follow(builder, node)
            graph.sym.update(dict.fromkeys(node.outs) | dict(zip(node.outs, outs, strict=False)))
    builder.finish()
    return graph


class Builder:
    """The ``Context`` that writes down what rules say. All ids are new; what must exist together is tied."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.ids, self.position = graph, Ids(), 0
        self.tape, self.sym, self.norms, self.scattering = graph.tape, graph.sym, graph.norms, graph.scattering
        self.sources, self.groups = graph.sources, graph.groups
        self.selected: dict[int, int] = {}
        self._whole: set[str] = set()

    def per_channel(self, ins: list[Tensor], zero: str, tied: list[bool] | None = None, norm: str = "") -> Tensor:
        tied, places = tied or [True] * len(ins), None
        if len(ins[0]) > LONG and all(tied) and not norm:
            ins, places = self._distinct(ins)
        out = self.ids.fresh(len(ins[0]))
        flow = PerChannel(self.position, out, ins, zero, tied, norm, places)
        for line, together in zip(ins, flow.tied, strict=True):
            if together and not norm:
                self.ids.tie(out, line)
        self._add(flow)
        return flow.whole(out)

    def _distinct(self, ins: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """The lines with each combination of ids once, and for each of their places which one it has."""
        places = torch.zeros_like(ins[0])
        for line in ins:
            _, places = (places * self.ids.count + line).unique(return_inverse=True)
        first = torch.empty(int(places.max()) + 1, dtype=torch.long).scatter_(0, places, torch.arange(len(places)))
        return [line[first] for line in ins], places

    def all_to_all(self, ins: Tensor, rows: int, bias: bool) -> Tensor:
        out = self.ids.fresh(len(ins) * rows).reshape(len(ins), rows)
        self._add(AllToAll(self.position, out, ins, bias))
        if len(ins) > 1:
            self.graph.balances[self.position] = Balance([ins, out], droppable=True)
        return out.flatten()

    def _add(self, flow: PerChannel | AllToAll) -> None:
        self.graph.flows.append(flow)
        self.graph.flow_at[self.position] = flow

    def axis(self, name: str, dim: int, ids: Tensor) -> None:
        """A second use ties the ids of both."""
        self.graph.used[self.position, name, dim] = ids
        first = self.graph.axes.setdefault((name, dim), ids)
        if first is not ids:
            self.ids.tie(first, ids)

    def parameter_ids(self, name: str, dim: int, n: int) -> Tensor:
        line = self.ids.fresh(n)
        self.axis(name, dim, line)
        return line

    def untracked(self, key: tuple[int, int], n: int) -> Tensor:
        if key not in self.graph.made:
            self.graph.made[key] = self.ids.fresh(n)
            self.pin("untracked", self.graph.made[key])
        return self.graph.made[key]

    def scatter(self, own: Tensor, norm: str, before: tuple[str, Tensor] | None, width: int) -> Tensor:
        """The stream's ids are equal to the layer's own at their places, and 0 elsewhere. Its flow is a second one of
        the BN layer's operation, so ``flow_at`` does not name it."""
        owner, places = before or (self.scattering[norm], torch.arange(width))
        line = self.ids.fresh(width)
        self.zeros(line.clone())
        line[places] = own
        stream = self.ids.fresh(width)
        for other in self.graph.scattered.values():
            if other.norm == norm:  # the places are the same in every call
                self.ids.tie(other.stream, stream)
        self.graph.scattered[self.position] = Scattered(norm, own, stream[places], stream, owner, before is not None)
        self.graph.flows.append(PerChannel(self.position, stream, [line], "all", [False]))
        return stream

    def balance(self, *sides: Tensor) -> None:
        if sides:
            self.graph.balances[self.position] = Balance(list(sides), droppable=False)

    def demand(self, why: str, ids: Tensor) -> None:
        self.graph.demands.append((why, shrink(ids).unique()))

    def pin(self, why: str, ids: Tensor) -> None:
        self.graph.pins.append((why, ids.flatten()))

    def zeros(self, ids: Tensor) -> None:
        self.graph.zeros.append(ids)

    def whole(self, name: str) -> None:
        self._whole.add(name)

    def finish(self) -> None:
        """Demand the outputs, decide which BN layers select, number the classes."""
        graph = self.graph
        for why, ref in [*(("output", ref) for ref in graph.tape.outputs), *graph.tape.held]:
            sym = graph.sym.get(ref)
            if isinstance(sym, Tensor):
                self.demand(why, sym)
        for (name, _), ids in graph.axes.items():
            if name in self._whole:
                self.pin("parameter", ids)
        selecting = streams.selecting(graph, self.ids.classes())
        for flow in graph.norm_flows:
            if flow.norm in selecting:
                flow.tied = [False]
            else:
                self.ids.tie(flow.out, flow.ins[0])
                graph.sources.pop(flow.norm, None)
        graph.classes = self.ids.classes()
