"""What leaves torch inside a forward pass, and what comes in: NumPy, DLPack, addresses, code of extensions.

Such code reads tensors without an operation that the dispatcher sees. The ways out that PyTorch offers are overheard;
each is an operation of its own on the tape, without a rule, so that all it reads is held.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from netslim.modules import Network

WAYS_OUT = frozenset((
    "numpy", "tolist", "data_ptr", "storage", "_typed_storage", "untyped_storage", "__array__", "__dlpack__",
    "__cuda_array_interface__", "__deepcopy__", "__reduce_ex__",
))  # fmt: skip
TRUTH = "__bool__"
CAME_IN = "outside torch"  # the name of the operation that may have made a tensor which nobody has seen before


class Overheard(TorchFunctionMode):
    """note(way out, tensor) is told of every tensor that leaves torch, and of every one that is asked whether it is
    true: then the code may branch."""

    def __init__(self, note: Callable[[str, Tensor], None]) -> None:
        super().__init__()
        self.note = note

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = _name(func)
        if (name in WAYS_OUT or name == TRUTH) and isinstance(args[0], Tensor):
            self.note(name, args[0])
        return func(*args, **(kwargs or {}))


def _name(func: Any) -> str:
    interface = getattr(func, "__self__", None) is torch.Tensor.__cuda_array_interface__
    return "__cuda_array_interface__" if interface else getattr(func, "__name__", "")


def attached(network: Network) -> set[int]:
    """The ids of the tensors that the modules hold as plain attributes: no operation made them, but they are known."""
    values = [vars(module) for module in network.modules.values()]
    return {id(leaf) for leaf in tree_leaves(values) if isinstance(leaf, Tensor)}
