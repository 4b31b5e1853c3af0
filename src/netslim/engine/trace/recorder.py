"""The recorder: a network is run, and what it does is written onto a tape.

The model is run on the example input under a TorchDispatchMode, which sees every ATen operation below autograd, however
the Python code spells it (module, functional, operator). Nothing has to be traced symbolically, so whatever runs in
eager mode can be recorded. What is lost: a Python integer that the code computed from a shape looks the same as one
written in it, so the slim network is recorded again afterwards and compared (replay.py).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from netslim.engine.trace import meta_kernels
from netslim.engine.trace.modes import note_running, note_who_asks, tracing_modes
from netslim.engine.trace.tape import ALIASED, SCATTER, Node, Ref, Tape, is_own, is_own_selection
from netslim.modules import Network, call, tensors_in

Kernels = Callable[[str], meta_kernels.Shortcut | None]  # name of an operation -> a faster way to the shape it makes


def record(
    network: Network, example_input: Any, *, modes: tuple[bool, ...] = (False,), kernels: Kernels | None = None
) -> tuple[Tape, str]:
    """Run the model and write down what it did.

    modes: do its containers train? Where one of them asks, the model is run in each of these modes, and what the later
    runs do beside the first is written behind it. kernels: the model's parameters and floating-point buffers are on
    the meta device; the input is put there, and operations that have a shortcut take it.

    Returns the tape and an error message, empty if all runs came to their end. The model's modes and the random state
    are restored; the tape of a run that failed holds the operations up to the failure.
    """
    model, on_meta = network.model, kernels is not None
    tape = Tape(on_meta=on_meta, modes=modes)
    running: list[str | None] = []
    recorder = _Recorder(tape, running, kernels)
    own = partial(torch.empty_like, device=meta_kernels.META) if on_meta else torch.clone
    tensors = network.state
    tape.state = {recorder.add(tensor): name for name, tensor in tensors.items()}
    for training in modes:
        given = tree_map_only(Tensor, own, example_input)  # some networks overwrite their input
        inputs = [t for t in tree_leaves(given) if isinstance(t, Tensor)]
        if tape.nodes:
            recorder.start_again(tensors, inputs)
        else:
            tape.inputs = [recorder.add(t) for t in inputs]
        with torch.random.fork_rng(devices=[]), tracing_modes(network.modules, training), torch.no_grad():
            try:
                with note_who_asks(network.modules) as asked, note_running(network.modules, running), recorder:
                    result = call(model, given)
            except Exception as error:  # the caller decides: a bad example input, or a size written in the code
                return tape, f"{type(error).__name__}: {error}"
        tape.outputs += [recorder.number[id(t)] for t in tensors_in(result) if id(t) in recorder.number]
        if not asked:
            break
    return tape, ""


class _Recorder(TorchDispatchMode):
    def __init__(self, tape: Tape, running: list[str | None], kernels: Kernels | None) -> None:
        super().__init__()
        self.tape, self.running, self.kernels = tape, running, kernels
        self.number: dict[int, int] = {}
        self.known: dict[Any, Node] = {}  # what earlier runs did
        self.scattered: dict[int, Node] = {}  # output of a BN layer that scatters -> the layer
        self.memory: dict[int, list[Tensor]] = {}  # also keeps all tensors alive, so that id() stays unique

    def start_again(self, tensors: Mapping[str, Tensor], inputs: list[Tensor]) -> None:
        """Another run on the same inputs, of which only what is new will be written down."""
        self.known = {_key(node): node for node in self.tape.nodes}
        names = {name: number for number, name in self.tape.state.items()}
        for name, tensor in tensors.items():
            self.call(tensor, names[name])
        for tensor, number in zip(inputs, self.tape.inputs, strict=True):
            self.call(tensor, number)

    def call(self, tensor: Tensor, number: int) -> int:
        """Give this tensor a number."""
        if id(tensor) not in self.number:
            self.memory.setdefault(tensor.untyped_storage()._cdata, []).append(tensor)
        self.number[id(tensor)] = number
        return number

    def add(self, tensor: Tensor) -> int:
        """A new number for this tensor."""
        tape = self.tape
        number = self.call(tensor, len(tape.shape))
        tape.shape.append(tensor.shape)
        tape.dtype.append(tensor.dtype)
        if not tensor.is_floating_point() and tensor.device != meta_kernels.META and tensor.numel() <= 1 << 20:
            tape.integers[number] = tensor.cpu()
        return number

    def add_outer(self, tensor: Tensor) -> None:
        """A tensor that no recorded operation made. A number that an earlier run met too is the same."""
        if tensor.dim() > 0 or tensor.device == meta_kernels.META or tensor.is_complex():
            self.add(tensor)
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
            if id(value) not in self.number:
                self.add_outer(value)
            reads.append(self.number[id(value)])
            if self.tape.on_meta and value.device == meta_kernels.META and not value.is_floating_point():
                raise TypeError("the values of an integer tensor matter")
            return Ref(reads[-1])
        if isinstance(value, (list, tuple)) and value and type(value[0]) is not int:  # a list of sizes holds no tensors
            nested = (Tensor, list, tuple)
            return type(value)([self.refs(item, reads) if isinstance(item, nested) else item for item in value])
        return value

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name, overwritten = _signature(func)
        node = Node(func, name, (), {}, [], [], self.running[-1] if self.running else None)
        nested = (Tensor, list, tuple)
        node.args = tuple([self.refs(item, node.reads) if isinstance(item, nested) else item for item in args])
        if kwargs:
            node.kwargs = {key: self.refs(value, node.reads) for key, value in kwargs.items()}
        if self.kernels is not None:
            result = meta_kernels.infer(self.kernels(name), func, args, kwargs, bool(overwritten))
        else:
            result = func(*args, **kwargs)
        norm = self.scattering_norm(node) if name == "index_copy" else None
        own = norm is not None or (name == "index_select" and is_own_selection(self.tape, node))
        if own and meta_kernels.in_channels_last(args[0] if norm is None else args[3]):  # as the hooks in hooks.py do
            result = result.contiguous(memory_format=torch.channels_last)
        if norm is not None:
            self.write_scatter(norm, node, result)
            return result
        if name == "slice" and args[2:] == (0, sys.maxsize):  # all of it, as in x[:, :8] before PyTorch 2.9
            self.call(result, node.reads[0])
            return result
        outs = [result] if isinstance(result, Tensor) else tree_leaves(result)
        self.write(node, [out for out in outs if isinstance(out, Tensor)])
        for i in overwritten:
            if i < len(args):
                self.overwrite_aliases(args[i], node)
        return result

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


@cache
def _signature(func: Any) -> tuple[str, list[int]]:
    """An operation's name in its functional form, and the positions of the arguments it overwrites."""
    name = func._schema.name.removeprefix("aten::")
    name = name[:-1] if name.endswith("_") and not name.startswith("__") else name
    return name, [i for i, argument in enumerate(func._schema.arguments) if argument.is_write]


def _key(node: Node) -> Any:
    """What an operation does, with what, and where."""
    return node.op, node.name, node.module, _frozen(node.args), _frozen(list(node.kwargs.items()))


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, (list, tuple)) else value
