"""Numbers that are made up, where a network that runs without any needs some: which boxes overlap, and how many.

A whole detector computes for seconds, and only its last steps need numbers: non-maximum suppression, the places that
pass a threshold. An operation that cannot tell the shape of its result without numbers gets some of ours; indices that
the code makes of sizes are computed as they are. How large a result is may so differ from the example's, as it differs
from image to image. What Python code does must not: a made-up value that leaves torch ends the run, and the network is
run again with its own numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from netslim.engine.trace.meta_kernels import META, Shortcut, infer
from netslim.engine.trace.tape import Node

CPU = torch.device("cpu")
READ_BY_PYTHON = frozenset(("_local_scalar_dense", "equal", "is_nonzero"))
SOME = 16  # of many places that may pass a threshold


class MadeUp:
    """What runs an operation, and knows which tensors hold numbers that are none of the network's.

    >>> x = torch.empty(2, 3, device="meta")
    >>> MadeUp().compute(None, torch.ops.aten.nonzero.default, (x > 0,), {}).shape
    torch.Size([6, 2])
    """

    def __init__(self) -> None:
        self.numbers: set[int] = set()  # on the tape

    def compute(self, shortcut: Shortcut | None, op: Any, args: Any, kwargs: Any) -> Any:
        """Without numbers; where that fails, with made-up ones, which fails too if the shapes do not fit."""
        if not any(isinstance(leaf, Tensor) for leaf in tree_leaves(args)):
            return _of_sizes(op, args, kwargs)
        with suppress(RuntimeError):
            return infer(shortcut, op, args, kwargs)
        with suppress(RuntimeError):  # some of them are on another device
            return op(*_to(META, args), **_to(META, kwargs))
        return op(*_to(CPU, args), **_to(CPU, kwargs))

    def note(self, node: Node, args: Any, outs: Sequence[Tensor]) -> None:
        """What an operation has made of made-up numbers, or of none, is made up, if it holds any."""
        if self.reads(node, args):
            self.numbers.update(n for n, out in zip(node.outs, outs, strict=True) if not out.is_meta)

    def check(self, node: Node, args: Any) -> None:
        """Raises: TypeError: the operation hands a value to Python that is made up."""
        if node.name in READ_BY_PYTHON and self.reads(node, args):
            raise TypeError("Python code reads the values of a tensor")

    def reads(self, node: Node, args: Any) -> bool:
        without = any(isinstance(leaf, Tensor) and leaf.is_meta for leaf in tree_leaves(args))
        return without or not self.numbers.isdisjoint(node.reads)


def _of_sizes(op: Any, args: Any, kwargs: Any) -> Any:
    """What the code makes of sizes alone: indices with their values, all else without."""
    made = op(*args, **kwargs)
    indices = isinstance(made, Tensor) and made.is_meta and not made.is_floating_point()
    return op(*_to(CPU, args), **_to(CPU, kwargs)) if indices else made


def _to(device: torch.device, values: Any) -> Any:
    move: Callable[[Tensor], Tensor] = _numbers if device == CPU else lambda x: x.to(META)

    def moved(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value if value.device == device else move(value)
        return device if isinstance(value, torch.device) else value

    return tree_map(moved, values)


def _numbers(x: Tensor) -> Tensor:
    """Normal numbers; some of what may be true is; indices are 0, which every tensor has."""
    if x.is_floating_point():
        return torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(x.numel()))
    made = torch.zeros(x.shape, dtype=x.dtype)
    if x.dtype == torch.bool:
        made.view(-1)[:SOME] = True
    return made
