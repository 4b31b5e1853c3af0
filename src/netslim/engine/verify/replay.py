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
from netslim.engine.ops.context import Sym
from netslim.engine.trace.tape import Node, Tape, is_own_selection, leaves, unread_aliases
from netslim.engine.verify.alignment import free_of_channels, loose_from, pairs
from netslim.engine.verify.promises import Deviation, Orders, Promises


@dataclass
class Deviating:
    """Where the slim network deviates, on the dense tape, and why; fails: the operation does not even run."""

    position: int
    reason: str
    fails: bool


@dataclass
class Replayed:
    """deviations: all that were found. After the first, the replay goes on with what should have come out, so a later
    one may be a consequence of an earlier one."""

    deviations: list[Deviating] = field(default_factory=list)
    orders: Orders = field(default_factory=Orders)


def replay(dense: Graph, exist: Tensor, cut: Cut, reordered: set[str], recorded: Tape, error: str) -> Replayed:
    """Compare the slim network's tape with the dense graph.

    reordered: parameters that are not cut in the dense order. error: why the recording ended early, or "".
    """
    view = Replay(Promises(dense, exist, cut, recorded), reordered)
    view.run(error)
    return Replayed(view.deviations, view.promises.orders)


class Replay:
    """Two tapes side by side. kept: tensors of the slim network that hold what was promised, in the dense order."""

    def __init__(self, promises: Promises, reordered: set[str]) -> None:
        self.promises, self.dense, self.tape = promises, promises.dense, promises.tape
        self.dense_ref, self.sym = promises.dense_ref, promises.sym
        self.kept = set(self.dense_ref) - {ref for ref, name in self.tape.state.items() if name in reordered}
        self.deviations: list[Deviating] = []
        self.free = free_of_channels(self.dense)
        self.unmade = self.tape.unmade
        self.loose_from = loose_from(self.tape)

    def run(self, error: str) -> None:
        """All deviations, as far as both tapes go side by side."""
        skip = unread_aliases(self.dense.tape)
        for i, at in pairs(self.dense.tape, self.tape, self.free, self._is_free):
            self.promises.position = at
            node = self.tape.nodes[i] if i < len(self.tape.nodes) else None
            try:
                if node is None:
                    self._end(error)
                elif at not in skip or is_own_selection(self.tape, node):
                    self._at(i, node)
            except (Deviation, RuntimeError, IndexError) as reason:  # or the ids cannot be moved as the data would be
                self._deviates(str(reason), i in self.tape.failures)
            else:
                continue
            if node is None or not self._trust(node):
                return

    def _is_free(self, i: int) -> bool:
        """Does an operation of the slim network work on detections alone, that is on what depends on the data?

        How many there are, and what is done with them, may differ; all that they are computed from is promised.
        """
        if i < self.loose_from:
            return False
        reads = self.tape.nodes[i].reads
        return all(ref not in self.tape.state and self._sym(ref) is None for ref in reads)

    def _sym(self, ref: int) -> Sym:
        if ref in self.kept and ref not in self.sym:
            return self.dense.sym.get(self.dense_ref[ref])
        return self.sym.get(ref)

    def _deviates(self, reason: str, fails: bool) -> None:
        at = min(self.promises.position, len(self.dense.tape.nodes) - 1)
        self.deviations.append(Deviating(at, f"{self.dense.tape.nodes[at].name}: {reason}", fails))

    def _at(self, i: int, node: Node) -> None:
        """The i-th operation of the slim network."""
        nodes, at = self.dense.tape.nodes, self.promises.position
        if i in self.tape.failures:
            raise Deviation(self.tape.failures[i])
        if at >= len(nodes):
            raise Deviation("the slim network does more than the dense one")
        if is_own_selection(self.tape, node):
            self.step(node)
        elif node.name != nodes[at].name:
            raise Deviation(f"{node.name} instead of {nodes[at].name}")
        else:
            self.compare(node, nodes[at])

    def _end(self, error: str) -> None:
        if error or self.promises.position < len(self.dense.tape.nodes):
            raise Deviation(error or "the slim network does less than the dense one")
        self._compare_outputs()

    def _trust(self, node: Node) -> bool:
        """Go on as if a deviating operation had made what was promised, where that fits what it has made."""
        nodes, at = self.dense.tape.nodes, self.promises.position
        if at >= len(nodes) or node.name != nodes[at].name or len(node.outs) != len(nodes[at].outs):
            return False
        self.dense_ref.update(zip(node.outs, nodes[at].outs, strict=True))
        try:
            certain = all(self._certain(ref, on_one_dimension=True) for ref in node.outs)
        except RuntimeError:  # another shape
            return False
        self.kept.update(node.outs)
        return certain

    def compare(self, node: Node, twin: Node) -> None:
        """One operation of the slim network beside that of the dense one."""
        rule = table.rule_for(node)
        _compare_numbers(node, twin, rule.keeps_numbers)
        self._compare_reads(node, twin)
        if not rule.picks:  # it is compared what is picked
            self._compare_constants(node.reads, twin.reads)
        self.dense_ref.update(zip(node.outs, twin.outs, strict=False))
        reads_twins = self.kept.issuperset(node.reads) and [self.dense_ref[ref] for ref in node.reads] == twin.reads
        plain = rule.sizes_from_inputs and self._plain(self.dense.flow_at.get(self.promises.position))
        certain = [ref for ref in node.outs if self._certain(ref, rule.on_one_dimension)]
        if reads_twins and plain and (certain or not rule.on_one_dimension):
            self.kept.update(certain)
        else:
            self.step(node)

    def _compare_reads(self, node: Node, twin: Node) -> None:
        given = self.unmade.intersection(node.reads)
        if self.loose_from < len(self.tape.nodes):
            given |= {
                ref for ref in node.reads if ref not in self.dense_ref and self.sym.get(ref) is None
            }  # made freely
        self.dense_ref.update((a, b) for a, b in zip(node.reads, twin.reads, strict=False) if a in given)
        self.kept |= given
        if len(node.reads) != len(twin.reads) or any(map(self._another, node.reads, twin.reads)):
            raise Deviation("it reads other tensors")

    def _compare_constants(self, mine: list[int], theirs: list[int]) -> None:
        """What is computed from sizes alone must hold the same values where something else is computed with it; unless
        it has another shape: what that means, rules say."""
        ours, dense = self.tape.recipes, self.dense.tape.recipes
        if ours.keys().isdisjoint(mine) or ours.keys() >= set(mine):
            return
        for a, b in zip(mine, theirs, strict=True):
            if self.tape.shape[a] == self.dense.tape.shape[b] and ours.get(a) != dense.get(b):
                raise Deviation("it computes with other constants, made of sizes")

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
        return self.dense.sym.get(theirs) is None and self.dense_ref.get(mine, theirs) != theirs

    def _plain(self, flow: Flow | None) -> bool:
        """Neither a BN layer that selects or scatters nor channels in groups."""
        if isinstance(flow, PerChannel):
            return not flow.norm or (flow.tied[0] and flow.position not in self.dense.scattered)
        return flow is None or len(flow.ins) == 1

    def _certain(self, ref: int, on_one_dimension: bool) -> bool:
        """Does an output that should hold what was promised do so?"""
        if self.dense.sym.get(self.dense_ref[ref]) is None:
            return self._same_shape(ref, self.dense_ref[ref])
        return not on_one_dimension or self.promises.promise(ref) is not None

    def _same_channels(self, ref: int) -> bool:
        """Does a tensor hold what was promised, in whatever order? Yes, where nothing is known."""
        mine, promised = self.sym.get(ref), self.promises.promise(ref) if ref in self.dense_ref else None
        if not (isinstance(mine, Tensor) and isinstance(promised, Tensor)):
            return True
        return torch.equal(shrink(mine).unique(), shrink(promised).unique())

    def _keeps(self, ref: int) -> bool:
        mine, promised = self.sym.get(ref), self.promises.promise(ref) if ref in self.dense_ref else None
        if isinstance(mine, Tensor) and isinstance(promised, Tensor):
            return torch.equal(shrink(mine), shrink(promised))
        return isinstance(mine, Weight) and mine == promised

    def _same_shape(self, mine: int, theirs: int) -> bool:
        sized_by_data = theirs in self.dense.tape.sized_by_data
        return sized_by_data or self.tape.shape[mine] == self.dense.tape.shape[theirs]

    def _compare_outputs(self) -> None:
        ours, theirs = self.tape.outputs, self.dense.tape.outputs
        if len(ours) != len(theirs) or not all(map(self._same_shape, ours, theirs)):
            raise Deviation("the outputs have other shapes")
        if any(self.tape.recipes.get(a) != self.dense.tape.recipes.get(b) for a, b in zip(ours, theirs, strict=True)):
            raise Deviation("the outputs hold other constants, made of sizes")
        for a, b in zip(ours, theirs, strict=True):
            if a in self.kept and self.dense_ref[a] == b:
                continue
            mine, promised = self.sym.get(a), self.dense.sym.get(b)
            if isinstance(promised, Tensor) and not (
                isinstance(mine, Tensor) and torch.equal(shrink(mine), shrink(promised))
            ):
                raise Deviation("the outputs hold other channels")


def _compare_numbers(node: Node, twin: Node, which: bool | slice) -> None:
    """All numbers among an operation's arguments, or among a slice of them. Those in tensors are constants."""
    if which is False:
        return
    mine, theirs = _numbers(node, which), _numbers(twin, which)
    if mine != theirs:
        raise Deviation(f"it computes with {mine} instead of {theirs}")


def _numbers(node: Node, which: bool | slice) -> list[float]:
    given = node.args[which] if isinstance(which, slice) else (*node.args, *node.kwargs.values())
    return [value for value in leaves(given) if isinstance(value, (int, float))]
