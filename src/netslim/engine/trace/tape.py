"""The tape: what a network did when it was run (recorder.py), as plain data.

Each operation is a Node, tensors are numbers (Ref). Here is also what the steps before and after ask of networks and
tapes: state, call, tensors_in; leaves, is_own, unread_aliases.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Ref:
    """The number of a tensor on the tape; an in-place operation makes a new number for the same tensor."""

    index: int


@dataclass(slots=True)
class Node:
    """One ATen operation. `name` is that of the functional form: "add" also for add_. `reads`: the tensors in args.
    `module`: the name of the innermost module that runs it; None if the model has no such module.
    `scatter`: of a BN layer that scatters its channels: the layer around which it is done, and their places, (k,)."""

    op: Any
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    reads: list[int]
    outs: list[int]
    module: str | None = None
    scatter: tuple[str, Tensor] | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """A forward pass. training: do containers train? gradients: are they recorded? answers: what the code was told, in
    order, when it asked whether a tensor is true; after these, the truth."""

    training: bool
    gradients: bool = False
    answers: tuple[bool, ...] = ()


@dataclass
class Tape:
    """nodes in order of execution, and what is known of each tensor, by its number."""

    nodes: list[Node] = field(default_factory=list)
    shape: list[torch.Size] = field(default_factory=list)
    dtype: list[torch.dtype] = field(default_factory=list)
    state: dict[int, str] = field(default_factory=dict)  # parameters and buffers: number -> name
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    held: list[tuple[str, int]] = field(default_factory=list)  # why, and what code may read that was not run
    integers: dict[int, Tensor] = field(default_factory=dict)  # values of small integer tensors: indices
    numbers: dict[int, float] = field(default_factory=dict)  # values of scalars, as in x * 0.5
    values: dict[int, Tensor] = field(default_factory=dict)  # of tensors that come from outside, as torch.tensor([1.0])
    on_meta: bool = False  # run without numbers (meta_kernels.py)
    made_up: bool = False  # and with made-up ones where it needs some (made_up.py)
    passes: list[Run] = field(default_factory=list)  # how the network was run
    runs: list[int] = field(default_factory=list)  # where on the tape what is new in each run begins
    failures: dict[int, str] = field(default_factory=dict)  # position of an operation that failed -> its error

    def run_of(self, position: int) -> int:
        """The number of the run, from 1, in which an operation was written down."""
        return bisect_right(self.runs, position)

    @property
    def first_run(self) -> list[Node]:
        return self.nodes[: self.runs[1]] if len(self.runs) > 1 else self.nodes

    @cached_property
    def sized_by_data(self) -> set[int]:
        """Tensors whose sizes, or whether there are any, depend on the numbers in others: what nonzero, a mask or
        non-maximum suppression makes, and all that is computed from it."""
        found: set[int] = set()
        for node in self.nodes:
            masks = node.name == "index" and any(self.dtype[ref] == torch.bool for ref in node.reads[1:])
            if masks or node.name in SIZED_BY_DATA or not found.isdisjoint(node.reads):
                found.update(node.outs)
        return found

    @cached_property
    def constants(self) -> set[int]:
        """Tensors that are computed from sizes and numbers in the code alone, as arange(x.shape[1]).flip(0)."""
        found: set[int] = set()
        for node in self.nodes:
            if found.issuperset(node.reads) and torch.Tag.nondeterministic_seeded not in node.op.tags:
                found.update(node.outs)
        return found

    @cached_property
    def unmade(self) -> set[int]:
        """Tensors that no operation has made, nor were they given: numbers, and what comes from outside."""
        made = {ref for node in self.nodes for ref in node.outs}
        return set(range(len(self.shape))) - made - self.state.keys() - set(self.inputs)

    @cached_property
    def recipes(self) -> dict[int, str]:
        """Tensors that are computed from sizes and numbers, or come from outside -> a digest of how and from what. Two
        with the same recipe hold the same values: torch.tensor(x.shape[1]) has another one in a network of other width.
        """
        found = {ref: _digest(self.dtype[ref], value) for ref, value in self.numbers.items()}
        found |= {ref: _digest(value.dtype, value.shape, _bytes(value)) for ref, value in self.values.items()}
        for node in self.nodes:
            reads = () if node.name.startswith("new_") else node.reads  # x.new_zeros(4) holds nothing of x
            known = found.keys() >= set(reads) and node.name != "set"  # that one takes what a storage holds
            if known and torch.Tag.nondeterministic_seeded not in node.op.tags:
                how = node.name, _by_recipe(node.args, found), _by_recipe(list(node.kwargs.items()), found)
                found.update((out, _digest(i, *how)) for i, out in enumerate(node.outs))
        return found


def _digest(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _bytes(values: Tensor) -> str:
    flat = values.cpu().resolve_conj().resolve_neg().contiguous().view(-1).view(torch.uint8)
    return hashlib.sha256(flat.numpy().tobytes()).hexdigest()


def _by_recipe(value: Any, recipes: dict[int, str]) -> Any:
    """Arguments with recipes in place of numbers of tensors."""
    if isinstance(value, (list, tuple)):
        return [_by_recipe(item, recipes) for item in value]
    return recipes.get(value.index) if isinstance(value, Ref) else value


# fmt: off
SIZED_BY_DATA = {
    "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "unique_dim_consecutive", "bincount",
    "repeat_interleave", "torchvision::nms",
}
# fmt: on
SELECT = "channel_index"  # the buffer of a BN layer that reads only some channels of its input
SCATTER = "channel_place"  # the buffer for one that writes only some channels of its output
OUT = ".out"  # behind the name of an operation that writes into a tensor it is given
ALIASED = "aliased"  # a pseudo operation: this tensor shares memory with one that was just overwritten


def leaves(value: Any) -> Iterator[Any]:
    """What is in an operation's nested arguments."""
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def unread_aliases(tape: Tape) -> set[int]:
    """Positions of pseudo operations that do not matter, because nobody reads the overwritten tensor again."""
    read = {ref for node in tape.nodes if node.name != ALIASED for ref in node.reads} | set(tape.outputs)
    return {i for i, node in enumerate(tape.nodes) if node.name == ALIASED and not read.intersection(node.outs)}


def is_own_selection(tape: Tape, node: Node) -> bool:
    """Is this the index selection that the engine itself puts in front of a BN layer?"""
    return node.name == "index_select" and is_own(tape, node, SELECT)


def is_own(tape: Tape, node: Node, buffer: str) -> bool:
    """Does an operation's third argument hold the indices of the engine (select_scatter.py)?"""
    return tape.state.get(node.args[2].index, "").rpartition(".")[2] == buffer
