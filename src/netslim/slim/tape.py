"""The tape: what the network does, written down while it runs once.

The model is run on the example input under a TorchDispatchMode, which sees every ATen operation below autograd, however
the Python code spells it (module, functional, operator). Each operation becomes a Node; tensors become numbers (Ref).
Nothing has to be traced symbolically, so whatever runs in eager mode can be recorded. What is lost: a Python integer
that the code computed from a shape looks the same as one written in it, so the slim network is recorded again
afterwards and compared (replay.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only


@dataclass(frozen=True)
class Ref:
    """The number of a tensor on the tape; an in-place operation makes a new number for the same tensor."""

    index: int


@dataclass
class Node:
    """One ATen operation. `name` is that of the functional form: "add" also for add_."""

    op: Any
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outs: list[int]

    @property
    def reads(self) -> list[int]:
        return [leaf.index for leaf in tree_leaves((self.args, self.kwargs)) if isinstance(leaf, Ref)]


@dataclass
class Tape:
    """nodes in order of execution, and what is known of each tensor, by its number."""

    nodes: list[Node] = field(default_factory=list)
    shape: list[torch.Size] = field(default_factory=list)
    dtype: list[torch.dtype] = field(default_factory=list)
    state: dict[int, str] = field(default_factory=dict)  # parameters and buffers: number -> name
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    integers: dict[int, Tensor] = field(default_factory=dict)  # values of small integer tensors: indices


SELECT = "channel_index"  # the buffer of a BN layer that reads only some channels of its input
ALIASED = "aliased"  # a pseudo operation: this tensor shares memory with one that was just overwritten


class _Recorder(TorchDispatchMode):
    def __init__(self, tape: Tape) -> None:
        super().__init__()
        self.tape = tape
        self.number: dict[int, int] = {}
        self.memory: dict[int, list[Tensor]] = {}  # also keeps all tensors alive, so that id() stays unique

    def add(self, tensor: Tensor) -> int:
        """A new number for this tensor."""
        tape = self.tape
        if id(tensor) not in self.number:
            self.memory.setdefault(tensor.untyped_storage()._cdata, []).append(tensor)
        number = self.number[id(tensor)] = len(tape.shape)
        tape.shape.append(tensor.shape)
        tape.dtype.append(tensor.dtype)
        if not tensor.is_floating_point() and tensor.numel() <= 1 << 20:
            tape.integers[number] = tensor
        return number

    def ref(self, tensor: Tensor) -> Ref:
        known = self.number.get(id(tensor))
        return Ref(self.add(tensor) if known is None else known)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        refs = tree_map_only(Tensor, self.ref, (args, kwargs))
        result = func(*args, **kwargs)
        outs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        written = [args[i] for i, a in enumerate(func._schema.arguments) if a.is_write and i < len(args)]
        node = Node(func, _functional_name(func), refs[0], refs[1], [])
        self.tape.nodes.append(node)
        node.outs = [self.add(out) for out in outs]
        for tensor in written:
            self.overwrite_aliases(tensor, node)
        return result

    def overwrite_aliases(self, tensor: Tensor, node: Node) -> None:
        for other in self.memory.get(tensor.untyped_storage()._cdata, ()):
            if other is not tensor and self.number[id(other)] not in node.outs:
                reads = (self.ref(other), self.ref(tensor))
                alias = Node(node.op, ALIASED, reads, {}, [])
                alias.outs = [self.add(other)]
                self.tape.nodes.append(alias)


def _functional_name(func: Any) -> str:
    name = func._schema.name.removeprefix("aten::")
    return name[:-1] if name.endswith("_") and not name.startswith("__") else name


def unread_aliases(tape: Tape) -> set[int]:
    """Positions of pseudo operations that do not matter, because nobody reads the overwritten tensor again."""
    read = {ref for node in tape.nodes if node.name != ALIASED for ref in node.reads} | set(tape.outputs)
    return {i for i, node in enumerate(tape.nodes) if node.name == ALIASED and not read.intersection(node.outs)}


def is_own_selection(tape: Tape, node: Node) -> bool:
    """Is this the index selection that the engine itself puts in front of a BN layer?"""
    return node.name == "index_select" and tape.state.get(node.args[2].index, "").rpartition(".")[2] == SELECT


def call(model: nn.Module, example_input: Any) -> Any:
    """Run the model: a tuple is positional arguments, a dict keyword arguments, anything else the one argument."""
    if isinstance(example_input, dict):
        return model(**example_input)
    if isinstance(example_input, tuple):
        return model(*example_input)
    return model(example_input)


@contextmanager
def tracing_modes(model: nn.Module, training: bool) -> Iterator[None]:
    """Leaf modules in eval mode, so that nothing is random and no statistics move; containers train or eval as asked.

    Auxiliary heads (GoogLeNet) only run where the containers train.
    """
    before = {m: m.training for m in model.modules()}
    for module in before:
        module.training = training and any(True for _ in module.children())
    try:
        yield
    finally:
        for module, mode in before.items():
            module.training = mode


def record(model: nn.Module, example_input: Any, *, training: bool = True) -> tuple[Tape, str]:
    """Run the model once and write down what it did.

    Returns the tape and an error message, empty if the run came to its end. The model's modes and the random state are
    restored; the tape of a run that failed holds the operations up to the failure.
    """
    tape = Tape()
    recorder = _Recorder(tape)
    example_input = tree_map_only(Tensor, torch.clone, example_input)  # some networks overwrite their input
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        tape.state[recorder.add(tensor)] = name
    tape.inputs = [recorder.add(t) for t in tree_leaves(example_input) if isinstance(t, Tensor)]
    with torch.random.fork_rng(devices=[]), tracing_modes(model, training), torch.no_grad():
        try:
            with recorder:
                result = call(model, example_input)
        except Exception as error:  # the caller decides: a bad example input, or a size written in the code
            return tape, f"{type(error).__name__}: {error}"
    tape.outputs = [recorder.number[id(t)] for t in tensors_in(result) if id(t) in recorder.number]
    return tape, ""


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors in nested lists, tuples, dicts and the attributes of other objects (dataclasses, model outputs)."""
    found = []
    for leaf in tree_leaves(value):
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif hasattr(leaf, "__dict__") and not isinstance(leaf, (type, nn.Module)):
            found += tensors_in(list(vars(leaf).values()))
    return found
