"""What outlives a forward pass: every tensor that somebody besides the recorder still holds when it is over.

A network hands its results over in any container, keeps some of them as attributes, in a closure, or in a hook's store;
no list of places to look at would be complete. So the question is put to Python: it counts who holds an object. Of a
tensor that the recorder alone holds it counts one holder; whatever else is counted will be read later, by somebody.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Collection, Iterable
from itertools import islice
from types import GeneratorType
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

LAZY = (GeneratorType, map, filter, zip)
MANY = 1000  # items of a lazy result


def computed(result: Any) -> Any:
    """A result in which generators have run: what they do belongs to the forward pass.

    Of an endless one the first items only; what it holds for the others outlives the pass.
    """

    def run(leaf: Any) -> Any:
        return [computed(item) for item in islice(leaf, MANY)] if isinstance(leaf, LAZY) else leaf

    return tree_map(run, result)


def outliving(groups: Collection[list[Tensor]], explained: Iterable[Any]) -> list[Tensor]:
    """The tensors of which these lists are not the only holders, each in one list.

    explained: where tensors are expected to be. If some are held by others still, these may be objects in cycles that
    nobody reaches any more: they are collected before the final count.
    """
    held = held_elsewhere(groups)
    expected = {id(leaf) for value in explained for leaf in tree_leaves(value) if isinstance(leaf, Tensor)}
    if any(id(tensor) not in expected for tensor in held):
        del held
        gc.collect()
        held = held_elsewhere(groups)
    return held


def held_elsewhere(groups: Collection[list[Tensor]]) -> list[Tensor]:
    alone = _holders([torch.empty(0)])[0]
    return [t for group in groups for t, holders in zip(group, _holders(group), strict=True) if holders > alone]


def _holders(tensors: list[Tensor]) -> list[int]:
    """How many hold each tensor, this list and loop included; not counting views and autograd, which do from C++."""
    held: list[Any] = tensors
    return [sys.getrefcount(t) - (_SHARED if _SHARED and t._use_count() > 1 else 0) for t in held]


def _counted_for_views() -> int:
    """Does Python count one holder more where C++ holds a tensor too? That differs between versions of PyTorch."""
    tensor = torch.empty(1)
    alone = sys.getrefcount(tensor)
    view = tensor[:]
    shared = sys.getrefcount(tensor)
    del view
    return shared - alone


_SHARED = _counted_for_views()
