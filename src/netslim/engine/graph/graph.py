"""The dependency graph: the tape, read once from front to back by the rules.

Running the rules (table.py) over the tape leaves here all that the later steps ask for, and nothing of PyTorch:

    sym      the ids of every tensor on the tape (ids.py); None where they could not be followed
    flows    how new ids depend on old ones: channel by channel (Each) or all on all (Mix)
    axes     which ids lie along which dimension of which parameter or buffer: what emission slices
    balance  places that need equal numbers of channels per row (grouped convolutions, chunks, channel shuffles)
    demands  ids that must be there with their right value (the outputs; the inputs of operations without a rule)

None of it depends on the channels to keep, so one graph serves any number of selections.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from netslim.engine.graph import streams
from netslim.engine.ops import table
from netslim.engine.ops.channel_ids import Ids, Weight, along, shrink, spread
from netslim.engine.trace.tape import Node, Tape, unread_aliases
from netslim.modules import bn_layers


@dataclass(eq=False)
class Each:
    """out[i] is computed from ins[0][i], ins[1][i], ... alone. All lines have shape (n,).

    zero: when out[i] is zero whatever the network's input: "all" ins are, "any" of them is, the "first" is, or "never".
    tied: for each input whether it must have the same channels as out (False: broadcast, or selected by a BN).
    norm: the BN layer's name; its out[i] is zero exactly where γ[i] and β[i] were removed.
    """

    out: Tensor
    ins: list[Tensor]
    zero: str
    tied: list[bool]
    norm: str = ""

    @property
    def reads(self) -> list[Tensor]:
        """The lines that are read without being tied, by a BN layer in any case."""
        return [line for line, tied in zip(self.ins, self.tied, strict=True) if not tied or self.norm]


@dataclass(eq=False)
class Mix:
    """Every channel of out[g] is computed from all channels of ins[g]. Shapes (groups, rows), (groups, columns)."""

    out: Tensor
    ins: Tensor
    bias: bool
    norm = ""  # of no BN layer

    @property
    def reads(self) -> list[Tensor]:
        return [self.ins]


@dataclass(eq=False)
class Balance:
    """Every row keeps equally many channels. sides: matrices with one row per group; a group that is empty on all
    sides may be dropped as a whole where `droppable`."""

    sides: list[Tensor]
    droppable: bool


@dataclass(eq=False)
class Scattered:
    """The output of a BN layer that writes only some channels of a stream: its own go to `places`, the others are 0.

    own, places: shape (k,); stream: all of it, (n,). owner: the module whose hook does it. before: already in the dense
    network.
    """

    own: Tensor
    places: Tensor
    stream: Tensor
    owner: str
    before: bool


@dataclass
class Graph:
    tape: Tape
    norms: dict[str, str]  # name of the γ -> name of the BN layer
    scattering: Mapping[str, str] = field(default_factory=dict)  # BN that may scatter -> the module whose hook does it
    ids: Ids = field(default_factory=Ids)
    sym: dict[int, Tensor | Weight | None] = field(default_factory=dict)
    flows: dict[int, Each | Mix] = field(default_factory=dict)  # position on the tape -> flow
    axes: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    balances: dict[int, Balance] = field(default_factory=dict)
    demands: list[tuple[str, Tensor]] = field(default_factory=list)
    pins: list[tuple[str, Tensor]] = field(default_factory=list)  # must exist, the value does not matter
    zeros: list[Tensor] = field(default_factory=list)  # constants that are zero
    groups: dict[str, Tensor] = field(default_factory=dict)  # weight of a grouped convolution -> ids (groups, columns)
    selected: dict[int, int] = field(default_factory=dict)  # output of a BN's own selection -> its input
    sources: dict[str, Tensor] = field(default_factory=dict)  # BN that selects -> ids of what it selects from
    scattered: dict[str, Scattered] = field(default_factory=dict)  # BN that scatters -> where to
    whole: set[str] = field(default_factory=set)  # parameters used in a way no rule describes
    made: dict[tuple[int, int], Tensor] = field(default_factory=dict)  # (tensor, dimension) -> ids where it has none
    remembering: set[type] = field(default_factory=set)  # classes of modules with sizes as attributes (sizes.py)
    used: dict[tuple[int, str, int], Tensor] = field(default_factory=dict)  # (position, tensor, dimension) -> ids
    position: int = 0
    classes: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))

    # what rules call ---------------------------------------------------------------------------------------------

    def line(self, ref: int, dim: int) -> Tensor:
        """The ids (C,) of a tensor along `dim`; where they are unknown, new ones that are all demanded."""
        sym = self.known(ref)
        line = None if sym is None else along(sym, dim)
        if line is None:
            if sym is not None:
                self.demand(self.tape.nodes[self.position].name, sym)
            shape = self.tape.shape[ref]
            line = self.untracked((ref, dim % len(shape)), shape[dim])
        return line

    def untracked(self, key: tuple[int, int], n: int) -> Tensor:
        """n ids for a tensor along a dimension that could not be followed: all of them stay."""
        if key not in self.made:
            self.made[key] = self.ids.fresh(n)
            self.pins.append(("untracked", self.made[key]))
        return self.made[key]

    def known(self, ref: int) -> Tensor | None:
        """The ids of a tensor, or None. A parameter with one dimension of length above 1 gets ids along it."""
        sym = self.sym.get(ref)
        if isinstance(sym, Weight):
            shape = self.tape.shape[ref]
            long = [d for d, size in enumerate(shape) if size > 1]
            if len(long) != 1:
                self.whole.add(sym.name)
                return None
            return self.adopt(ref, long[0])
        return sym

    def adopt(self, ref: int, dim: int) -> Tensor:
        """Give a parameter new ids along one of its dimensions."""
        weight, shape = self.sym[ref], self.tape.shape[ref]
        assert isinstance(weight, Weight)
        line = self.parameter_ids(weight.name, dim, shape[dim])
        self.sym[ref] = sym = spread(line, shape, dim)
        return sym

    def parameter_ids(self, name: str, dim: int, n: int) -> Tensor:
        line = self.ids.fresh(n)
        self.axis(name, dim, line)
        return line

    def axis(self, name: str, dim: int, ids: Tensor) -> None:
        """These ids lie along dimension `dim` of the parameter or buffer; a second use ties the ids of both."""
        self.used[self.position, name, dim] = ids
        first = self.axes.setdefault((name, dim), ids)
        if first is not ids:
            self.ids.tie(first, ids)

    def each(self, ins: list[Tensor], zero: str, tied: list[bool] | None = None, norm: str = "") -> Tensor:
        out = self.ids.fresh(len(ins[0]))
        tied = tied or [True] * len(ins)
        for line, together in zip(ins, tied, strict=True):
            if together and not norm:
                self.ids.tie(out, line)
        self.flows[self.position] = Each(out, ins, zero, tied, norm)
        return out

    def scatter(self, own: Tensor, norm: str, before: tuple[str, Tensor] | None, width: int) -> Tensor:
        """New ids (width,) of the stream that a BN layer writes its own channels to: equal there, and 0 elsewhere."""
        owner, places = before or (self.scattering[norm], torch.arange(width))
        line = self.ids.fresh(width)
        self.zeros.append(line.clone())
        line[places] = own
        stream = self.ids.fresh(width)
        self.scattered[norm] = Scattered(own, stream[places], stream, owner, before is not None)
        self.flows[~self.position] = Each(stream, [line], "all", [False])  # the second flow at this position
        return stream

    def mix(self, ins: Tensor, rows: int, bias: bool) -> Tensor:
        """New ids (groups · rows,) computed from ins (groups, columns)."""
        out = self.ids.fresh(len(ins) * rows).reshape(len(ins), rows)
        self.flows[self.position] = Mix(out, ins, bias)
        if len(ins) > 1:
            self.balances[self.position] = Balance([ins, out], droppable=True)
        return out.flatten()

    def balance(self, *sides: Tensor) -> None:
        if sides:
            self.balances[self.position] = Balance(list(sides), droppable=False)

    def release(self, position: int) -> None:
        """The shares that an operation cuts need not be equal, only not empty."""
        outs = [self.sym.get(ref) for ref in self.tape.nodes[position].outs]
        rows = [shrink(out).reshape(1, -1) for out in outs if isinstance(out, Tensor) and out.numel()]
        self.balances[position] = Balance(rows, droppable=False)

    def demand(self, why: str, ids: Tensor) -> None:
        self.demands.append((why, ids.unique()))

    def constant_zeros(self, ref: int, side: int, n: int) -> Tensor:
        """n ids for the channels that padding adds to a tensor, before (side 0) or after (1)."""
        line = self.untracked((ref, side - 2), n)  # -2 and -1 are no dimensions
        self.zeros.append(line)
        return line

    def step(self, node: Node) -> None:
        """Apply the node's rule; outputs that it does not mention are unknown."""
        outs = table.rule_for(node)(self, node)
        for ref, sym in zip(node.outs, [*outs, *[None] * len(node.outs)], strict=False):
            self.sym[ref] = sym

    # after the last node -------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Demand the outputs, decide which BN layers select, number the classes."""
        for ref in self.tape.outputs:
            sym = self.sym.get(ref)
            if isinstance(sym, Tensor):
                self.demand("output", sym)
        for (name, _), ids in self.axes.items():
            if name in self.whole:
                self.pins.append(("parameter", ids.flatten()))
        selecting = streams.selecting(self)
        for flow in self.flows.values():
            if isinstance(flow, Each) and flow.norm:
                if flow.norm in selecting:
                    flow.tied = [False]
                else:
                    self.ids.tie(flow.out, flow.ins[0])
                    self.sources.pop(flow.norm, None)
        self.classes = self.ids.classes()


def build(model: nn.Module, tape: Tape, scattering: Mapping[str, str]) -> Graph:
    """Run the rules over the whole tape. scattering: as in ``Graph``."""
    graph = Graph(tape, {f"{name}.weight" if name else "weight": name for name in bn_layers(model)}, scattering)
    run(graph)
    graph.finish()
    return graph


def run(graph: Graph) -> None:
    tape = graph.tape
    for ref, name in tape.state.items():
        graph.sym[ref] = Weight(name)
    skip = unread_aliases(tape)
    for graph.position, node in enumerate(tape.nodes):
        if graph.position not in skip:
            graph.step(node)
