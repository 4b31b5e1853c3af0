"""What leaves torch inside a forward pass, and what comes in: NumPy, DLPack, addresses, code of extensions.

Such code reads tensors without an operation that the dispatcher sees. The ways out that PyTorch offers are overheard;
each is an operation of its own on the tape, without a rule, so that all it reads is held.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from netslim.engine.trace.meta_kernels import META
from netslim.modules import Network

WAYS_OUT = frozenset((
    "numpy", "tolist", "data_ptr", "storage", "_typed_storage", "untyped_storage", "__array__", "__dlpack__",
    "__cuda_array_interface__", "__deepcopy__", "__reduce_ex__",
))  # fmt: skip
OF_NUMBERS = frozenset(("tensor", "as_tensor", "asarray", "new_tensor"))
TRUTH = "__bool__"
CAME_IN = "outside torch"  # the name of the operation that may have made a tensor which nobody has seen before


class Answers:
    """To the question whether a tensor is true: those that are forced, then the truth.

    heard: (place in the code, module, answer) of all questions, in order.
    """

    def __init__(self, forced: tuple[bool, ...] = ()) -> None:
        self.forced = forced
        self.heard: list[tuple[Any, str | None, bool]] = []

    def answer(self, truth: bool, module: str | None) -> bool:
        asked = len(self.heard)
        told = self.forced[asked] if asked < len(self.forced) else truth
        frame = sys._getframe(2)
        self.heard.append(((frame.f_code, frame.f_lasti), module, told))
        return told


class Overheard(TorchFunctionMode):
    """Of every tensor that leaves torch, read(way, tensor) is told; whether one is true is answered as asked for.

    module() is the name of the module that runs.
    """

    def __init__(self, read: Callable[[str, Tensor], None], module: Callable[[], str | None], answers: Answers) -> None:
        super().__init__()
        self.read, self.module, self.answers = read, module, answers

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = _name(func), kwargs or {}
        if name in WAYS_OUT:
            self.read(name, args[0])
        if name in OF_NUMBERS and _without_numbers(name, args, kwargs):
            return func(*args, **{**kwargs, "device": "cpu"}).to(META)
        result = func(*args, **kwargs)
        return self.answers.answer(result, self.module()) if name == TRUTH else result


def _without_numbers(name: str, args: Any, kwargs: Any) -> bool:
    """Does torch.tensor(numbers, device=x.device) make a tensor that forgets its numbers, where x has none?"""
    new = name == "new_tensor"
    device = kwargs.get("device", args[0].device if new else None)
    tensors = any(isinstance(value, Tensor) for value in args[new:])
    return device is not None and torch.device(device) == META and not tensors


def _name(func: Any) -> str:
    interface = getattr(func, "__self__", None) is torch.Tensor.__cuda_array_interface__
    return "__cuda_array_interface__" if interface else getattr(func, "__name__", "")


def attached(network: Network) -> set[int]:
    """The ids of the tensors that the modules hold as plain attributes: no operation made them, but they are known."""
    values = [vars(module) for module in network.modules.values()]
    return {id(leaf) for leaf in tree_leaves(values) if isinstance(leaf, Tensor)}
