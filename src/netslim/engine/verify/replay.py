"""Replay: the proof. The slim network is recorded too, and the same rules run over its tape.

Every operation must be fed exactly the channels that its twin on the dense network's tape promised to it, in an order
that its parameters follow (promises.py). Three things can come out:

    nothing       each tensor of the slim network holds the channels it should: done
    orders        a tensor holds the right channels in another order (after a channel shuffle): the parameters that
                  read it are cut anew, in that order
    deviation     a size is written in the code instead of derived from a shape, as in x.view(-1, 512) or x[:, :32]; the
                  channels that this operation touches are frozen, and the engine solves again

So what leaves the engine has been checked, operation by operation, for the network at hand. Most operations need no
rule for that: one that reads the twins of what the dense one reads, whose inputs hold what was promised in the dense
order, and which takes its sizes from them, keeps the promise for its outputs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from netslim.engine.cut.emit import Cut
from netslim.engine.graph.flows import Flow, PerChannel
from netslim.engine.graph.graph import Graph
from netslim.engine.ops import table
from netslim.engine.ops.channel_ids import Weight, shrink
from netslim.engine.trace.tape import Node, Ref, Tape, is_own_selection, leaves, unread_aliases
from netslim.engine.verify.promises import Deviation, Orders, Promises


@dataclass
class Finding:
    """position: where the slim network deviates, on the dense tape (None: nowhere), and why."""

    position: int | None = None
    reason: str = ""
    orders: Orders = field(default_factory=Orders)


def replay(dense: Graph, exist: Tensor, cut: Cut, reordered: set[str], recorded: Tape, error: str) -> Finding:
    """Compare the slim network's tape with the dense graph.

    reordered: parameters that are not cut in the dense order. error: why the recording ended early, or "".
    """
    view = Replay(Promises(dense, exist, cut, recorded), reordered)
    try:
        view.run(error)
    except Deviation as deviation:
        return Finding(view.at, f"{dense.tape.nodes[view.at].name}: {deviation}")
    except (RuntimeError, IndexError) as failure:  # the ids cannot be moved as the data would be
        return Finding(view.at, f"{dense.tape.nodes[view.at].name}: {failure}")
    return Finding(orders=view.promises.orders)


class Replay:
    """Two tapes side by side. kept: tensors of the slim network that hold what was promised, in the dense order."""

    def __init__(self, promises: Promises, reordered: set[str]) -> None:
        self.promises, self.dense, self.tape = promises, promises.dense, promises.tape
        self.twin, self.sym = promises.twin, promises.sym
        self.kept = set(self.twin) - {ref for ref, name in self.tape.state.items() if name in reordered}

    @property
    def at(self) -> int:
        """The position on the dense tape."""
        return min(self.promises.position, len(self.dense.tape.nodes) - 1)

    def run(self, error: str) -> None:
        nodes, skip = self.dense.tape.nodes, unread_aliases(self.dense.tape)
        for node in self.tape.nodes:
            self._pass_selections(node)
            at = self.promises.position
            if at >= len(nodes):
                raise Deviation("the slim network does more than the dense one")
            twin, selects = nodes[at], is_own_selection(self.tape, node)
            if not selects and node.name != twin.name:
                raise Deviation(f"{node.name} instead of {twin.name}")
            if selects:
                self.step(node)
            elif at not in skip:
                self.compare(node, twin)
            self.promises.position += not selects or is_own_selection(self.dense.tape, twin)
        if error or self.promises.position < len(nodes):
            raise Deviation(error or "the slim network does less than the dense one")
        self._compare_outputs()

    def _pass_selections(self, node: Node) -> None:
        """A BN layer of the dense network that selects may read all of its input in the slim one."""
        nodes = self.dense.tape.nodes
        if not is_own_selection(self.tape, node):
            while self.promises.position < len(nodes) and is_own_selection(
                self.dense.tape, nodes[self.promises.position]
            ):
                self.promises.position += 1

    def compare(self, node: Node, twin: Node) -> None:
        """One operation of the slim network beside that of the dense one."""
        rule = table.rule_for(node)
        self._compare_numbers(node, twin, rule.keeps_numbers)
        self._compare_reads(node, twin)
        self.twin.update(zip(node.outs, twin.outs, strict=False))
        reads_twins = self.kept.issuperset(node.reads) and [self.twin[ref] for ref in node.reads] == twin.reads
        plain = rule.sizes_from_inputs and self._plain(self.dense.flow_at.get(self.promises.position))
        certain = [ref for ref in node.outs if self._certain(ref, rule.on_one_dimension)]
        if reads_twins and plain and (certain or not rule.on_one_dimension):
            self.kept.update(certain)
        else:
            self.step(node)

    def _compare_numbers(self, node: Node, twin: Node, which: bool | slice) -> None:
        if which is False:
            return
        mine, theirs = _numbers(self.tape, node, which), _numbers(self.dense.tape, twin, which)
        if mine != theirs:
            raise Deviation(f"it computes with {mine} instead of {theirs}")

    def _compare_reads(self, node: Node, twin: Node) -> None:
        constants = self.tape.numbers.keys() & node.reads
        self.twin.update((a, b) for a, b in zip(node.reads, twin.reads, strict=False) if a in constants)
        self.kept |= constants
        if len(node.reads) != len(twin.reads) or any(map(self._another, node.reads, twin.reads)):
            raise Deviation("it reads other tensors")

    def step(self, node: Node) -> None:
        """Run the rule of an operation."""
        for ref in self.kept.intersection(node.reads):
            if ref not in self.sym:
                self.sym[ref] = self.promises.promise(ref)
        rule = table.rule_for(node)
        outs = rule.follow(self.promises, node)
        self.sym.update(dict.fromkeys(node.outs) | dict(zip(node.outs, outs, strict=False)))
        if rule.picks and not self._same_channels(node.outs[0]):
            raise Deviation("it picks other channels")
        self.kept.update(ref for ref in node.outs if self._keeps(ref))

    def _another(self, mine: int, theirs: int) -> bool:
        """Is this another tensor than the twin, where nothing else is known of it?"""
        return self.dense.sym.get(theirs) is None and self.twin.get(mine, theirs) != theirs

    def _plain(self, flow: Flow | None) -> bool:
        """Neither a BN layer that selects or scatters nor channels in groups."""
        if isinstance(flow, PerChannel):
            return not flow.norm or (flow.tied[0] and flow.norm not in self.dense.scattered)
        return flow is None or len(flow.ins) == 1

    def _certain(self, ref: int, on_one_dimension: bool) -> bool:
        """Does an output that should hold what was promised do so?"""
        if self.dense.sym.get(self.twin[ref]) is None:
            return self.tape.shape[ref] == self.dense.tape.shape[self.twin[ref]]
        return not on_one_dimension or self.promises.promise(ref) is not None

    def _same_channels(self, ref: int) -> bool:
        """Does a tensor hold what was promised, in whatever order? Yes, where nothing is known."""
        mine, promised = self.sym.get(ref), self.promises.promise(ref) if ref in self.twin else None
        if not (isinstance(mine, Tensor) and isinstance(promised, Tensor)):
            return True
        return torch.equal(shrink(mine).unique(), shrink(promised).unique())

    def _keeps(self, ref: int) -> bool:
        mine, promised = self.sym.get(ref), self.promises.promise(ref) if ref in self.twin else None
        if isinstance(mine, Tensor) and isinstance(promised, Tensor):
            return torch.equal(shrink(mine), shrink(promised))
        return isinstance(mine, Weight) and mine == promised

    def _compare_outputs(self) -> None:
        ours, theirs = self.tape.outputs, self.dense.tape.outputs
        if [self.tape.shape[r] for r in ours] != [self.dense.tape.shape[r] for r in theirs]:
            raise Deviation("the outputs have other shapes")
        for a, b in zip(ours, theirs, strict=True):
            if a in self.kept and self.twin[a] == b:
                continue
            mine, promised = self.sym.get(a), self.dense.sym.get(b)
            if isinstance(promised, Tensor) and not (isinstance(mine, Tensor) and torch.equal(mine, promised)):
                raise Deviation("the outputs hold other channels")


def _numbers(tape: Tape, node: Node, which: bool | slice) -> list[float]:
    """All numbers among an operation's arguments, or among a slice of them."""
    given = node.args[which] if isinstance(which, slice) else (*node.args, *node.kwargs.values())
    numbers = [tape.numbers.get(value.index) if isinstance(value, Ref) else value for value in leaves(given)]
    return [number for number in numbers if isinstance(number, (int, float))]
