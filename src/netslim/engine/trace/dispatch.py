"""The operations of a network that runs, written onto a tape one by one.

A TorchDispatchMode sees every ATen operation below autograd, however the Python code spells it (module, functional,
operator). Tensors are told apart by identity, and known by number on the tape.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from netslim.engine.trace import meta_kernels
from netslim.engine.trace.made_up import READ_BY_PYTHON, MadeUp
from netslim.engine.trace.outside import CAME_IN, Answers, Overheard, attached
from netslim.engine.trace.schema import overwritten_tensors, signature
from netslim.engine.trace.survivors import held_elsewhere
from netslim.engine.trace.tape import ALIASED, SCATTER, Node, Ref, Tape, is_own, is_own_selection
from netslim.modules import Network

Kernels = Callable[[str], meta_kernels.Shortcut | None]  # name of an operation -> a faster way to the shape it makes
Rescue = Callable[[Tape, Node], Tensor | None]  # the tape so far, an operation that fails -> what to go on with
NO_OP = torch.ops.aten.alias.default  # of an operation on the tape that is none of ATen's


class Writer(TorchDispatchMode):
    def __init__(self, tape: Tape, network: Network, kernels: Kernels | None, rescue: Rescue | None) -> None:
        super().__init__()
        self.tape, self.network, self.kernels, self.rescue = tape, network, kernels, rescue
        self.running: list[str | None] = []  # modules, innermost last
        self.number: dict[int, int] = {}
        self.storage: dict[int, int] = {}  # of the same tensors: the memory that they are known in
        self.started = False
        self.drew = False  # random numbers, from a generator of PyTorch
        self.left = False  # have values left torch in this run? Then what comes from outside may be made of them
        self.known: dict[Any, Node] = {}  # what earlier runs did
        self.scattered: dict[int, Node] = {}  # output of a BN layer that scatters -> the layer
        self.memory: dict[int, list[Tensor]] = {}  # also keeps all tensors alive, so that id() stays unique
        self.made_up = MadeUp() if tape.made_up else None
        self.attached = attached(network) if self.has_numbers else set[int]()
        tape.state = {self.add(tensor): name for name, tensor in network.state.items()}

    def start(self, inputs: list[Tensor]) -> None:
        """A run on these inputs. Of a later run only what is new will be written down."""
        self.running.clear()
        self.left = False
        if not self.started:
            self.started = True
            self.tape.inputs = [self.add(t) for t in inputs]
            return
        self.known = {_key(node): node for node in self.tape.nodes}
        names = {name: number for number, name in self.tape.state.items()}
        for name, tensor in self.network.state.items():
            self.call(tensor, names[name])
        for tensor, number in zip(inputs, self.tape.inputs, strict=True):
            self.call(tensor, number)

    @property
    def has_numbers(self) -> bool:
        """Do some tensors hold numbers that code could read?"""
        return self.tape.made_up or not self.tape.on_meta

    @property
    def given(self) -> set[int]:
        """What no operation makes: parameters, buffers, inputs."""
        return {*self.tape.state, *self.tape.inputs}

    def reads(self, why: str, numbers: set[int], module: str | None) -> None:
        """An operation that is none of ATen's, and gives nothing back."""
        reads = sorted(numbers - self.given)
        self.write(Node(NO_OP, why, tuple(map(Ref, reads)), {}, reads, [], module), [])

    def overhear(self, answers: Answers) -> Overheard:
        return Overheard(self.read_outside, self.module, answers)

    def read_outside(self, way: str, tensor: Tensor) -> None:
        """A tensor's values leave torch."""
        if id(tensor) in self.number:
            if self.made_up and self.number[id(tensor)] in self.made_up.numbers:
                raise TypeError("the values of a tensor are read outside torch")
            self.left = True
            self.reads(way, {self.number[id(tensor)]}, self.module())

    def came_in(self) -> None:
        """A tensor of unknown origin: what is still held somewhere, or was read by no operation, may be in it."""
        read = {ref for node in self.tape.nodes for ref in node.reads}
        unread = {number for node in self.tape.nodes for number in node.outs} - read
        held = {self.number[id(tensor)] for tensor in held_elsewhere(self.memory.values())}
        self.reads(CAME_IN, held | unread, self.module())

    def module(self) -> str | None:
        return self.running[-1] if self.running else None

    def call(self, tensor: Tensor, number: int) -> int:
        """Give this tensor a number."""
        storage, before = tensor.untyped_storage()._cdata, self.storage.get(id(tensor))
        if storage != before:
            if before is not None:
                self.memory[before] = [other for other in self.memory[before] if other is not tensor]
            self.memory.setdefault(storage, []).append(tensor)
            self.storage[id(tensor)] = storage
        self.number[id(tensor)] = number
        return number

    def look_at(self, tensor: Tensor) -> int:
        """The number of a tensor. No operation tells of x.data = y: then x lies in other memory than before, in that of
        y, or in some of unknown origin."""
        if id(tensor) not in self.number:
            self.add_outer(tensor)
        elif (storage := tensor.untyped_storage()._cdata) != self.storage[id(tensor)]:
            others = {self.number[id(y)] for y in self.memory.get(storage, ()) if _lie_alike(tensor, y)}
            self.call(tensor, others.pop()) if len(others) == 1 else self.add_outer(tensor)
        return self.number[id(tensor)]

    def add(self, tensor: Tensor) -> int:
        """A new number for this tensor."""
        tape = self.tape
        number = self.call(tensor, len(tape.shape))
        tape.shape.append(tensor.shape)
        tape.dtype.append(tensor.dtype)
        if not tensor.is_floating_point() and tensor.device != meta_kernels.META and tensor.numel() <= 1 << 20:
            tape.integers[number] = tensor.detach().cpu()  # not the tensor itself: it is counted who holds that
        return number

    def add_outer(self, tensor: Tensor) -> None:
        """A tensor that no recorded operation made, nor plain numbers."""
        if tensor.is_meta:
            raise TypeError("a tensor comes from outside torch, whose values matter")
        if tensor.dim() > 0 and self.has_numbers and id(tensor) not in self.attached:
            self.came_in()
            self.add(tensor)
        else:
            self.add_made(tensor)

    def add_made(self, tensor: Tensor) -> None:
        """A tensor that no recorded operation made. A number that an earlier run met too is the same."""
        if tensor.dim() > 0 or tensor.device == meta_kernels.META or tensor.is_complex():
            number = self.add(tensor)
            if tensor.device != meta_kernels.META and not self.left:
                self.tape.values[number] = tensor.detach().clone()
            return
        numbers, value = self.tape.numbers, tensor.item()
        same = [n for n, other in numbers.items() if other == value and self.tape.dtype[n] == tensor.dtype]
        if self.known and same:
            self.call(tensor, same[0])
        else:
            numbers[self.add(tensor)] = value

    def refs(self, value: Any, reads: list[int]) -> Any:
        """The same arguments with numbers for tensors."""
        if isinstance(value, Tensor):
            reads.append(self.look_at(value))
            if not self.has_numbers and value.device == meta_kernels.META and not value.is_floating_point():
                raise TypeError("the values of an integer tensor matter")
            return Ref(reads[-1])
        if isinstance(value, (list, tuple)) and value and type(value[0]) is not int:  # a list of sizes holds no tensors
            nested = (Tensor, list, tuple)
            return type(value)([self.refs(item, reads) if isinstance(item, nested) else item for item in value])
        return value

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name, overwritten, draws = signature(func)
        self.drew, self.left = self.drew or draws, self.left or name in READ_BY_PYTHON
        node = Node(func, name, (), {}, [], [], self.module())
        nested = (Tensor, list, tuple)
        if name == "lift_fresh" and id(args[0]) not in self.number:  # made of plain numbers, whose ways out are known
            self.add_made(args[0])
        node.args = tuple([self.refs(item, node.reads) if isinstance(item, nested) else item for item in args])
        if kwargs:
            node.kwargs = {key: self.refs(value, node.reads) for key, value in kwargs.items()}
        if self.made_up:
            self.made_up.check(node, args)
        try:
            result = self.compute(node, args, kwargs, bool(overwritten))
        except Exception as error:
            result = self.rescue(self.tape, node) if self.rescue is not None and not overwritten else None
            if result is None:
                raise
            self.tape.failures[len(self.tape.nodes)] = f"{type(error).__name__}: {error}"
        norm = self.scattering_norm(node) if name == "index_copy" else None
        own = norm is not None or (name == "index_select" and is_own_selection(self.tape, node))
        if own and meta_kernels.in_channels_last(args[0] if norm is None else args[3]):  # as select_scatter.py does
            result = result.contiguous(memory_format=torch.channels_last)
        if norm is not None:
            self.write_scatter(norm, node, result)
            return result
        if name == "slice" and args[2:] == (0, sys.maxsize):  # all of it, as in x[:, :8] before PyTorch 2.9
            self.call(result, node.reads[0])
            return result
        outs = [result] if isinstance(result, Tensor) else tree_leaves(result)
        outs = [out for out in outs if isinstance(out, Tensor)]
        written = overwritten_tensors(overwritten, args, kwargs)
        outs += [tensor for tensor in written if all(tensor is not out for out in outs)]  # as of _foreach_add_
        self.write(node, outs)
        if self.made_up:
            self.made_up.note(node, args, outs)
        for tensor in written:
            self.overwrite_aliases(tensor, node)
        return result

    def compute(self, node: Node, args: Any, kwargs: Any, in_place: bool) -> Any:
        if self.kernels is None:
            return node.op(*args, **kwargs)
        shortcut = self.kernels(node.name)
        if self.made_up and not in_place:
            return self.made_up.compute(shortcut, node.op, args, kwargs)
        return meta_kernels.infer(shortcut, node.op, args, kwargs, in_place)

    def scattering_norm(self, node: Node) -> Node | None:
        """The BN layer that this operation scatters: the last but one, zeros(width).index_copy(1, places, x)."""
        if not is_own(self.tape, node, SCATTER):
            return None
        before, zeros = self.tape.nodes[-2:]
        (stream, _, _, x) = node.args
        norm = self.scattered.get(x.index, before)
        return norm if zeros.name == "new_zeros" and [stream.index] == zeros.outs and x.index == norm.outs[0] else None

    def write_scatter(self, norm: Node, node: Node, result: Tensor) -> None:
        """On the tape it is the BN layer's own doing: two operations less, and an output of full width."""
        self.tape.nodes.pop()
        if norm.scatter is None:
            places = node.args[2].index
            norm.scatter = self.tape.state[places].rpartition(".")[0], self.tape.integers[places]
            norm.outs[0] = self.add(result)
            self.scattered[norm.outs[0]] = norm
        self.call(result, norm.outs[0])

    def write(self, node: Node, outs: list[Tensor]) -> None:
        """Onto the tape with it, unless an earlier run did the same with the same."""
        known = self.known.get(_key(node)) if self.known else None
        if known is None:
            self.tape.nodes.append(node)
            node.outs = [self.add(out) for out in outs]
            if node.name == "scalar_tensor":  # a number that came as such, as in where(x > 0, x, 0.0)
                self.tape.numbers[node.outs[0]] = node.args[0]
        else:
            node.outs = [self.call(out, number) for out, number in zip(outs, known.outs, strict=True)]

    def overwrite_aliases(self, tensor: Tensor, node: Node) -> None:
        for other in self.memory.get(tensor.untyped_storage()._cdata, ()):
            if other is not tensor and self.number[id(other)] not in node.outs:
                reads = [self.number[id(other)], self.number[id(tensor)]]
                self.write(Node(node.op, ALIASED, tuple(map(Ref, reads)), {}, reads, []), [other])


def _lie_alike(a: Tensor, b: Tensor) -> bool:
    """Are these two tensors the same numbers in the same memory?"""
    same = a is not b and a.untyped_storage()._cdata == b.untyped_storage()._cdata and a.dtype == b.dtype
    return same and (a.shape, a.stride(), a.storage_offset()) == (b.shape, b.stride(), b.storage_offset())


def _key(node: Node) -> Any:
    """What an operation does, with what, and where."""
    return node.op, node.name, node.module, _frozen(node.args), _frozen(list(node.kwargs.items()))


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, (list, tuple)) else value
