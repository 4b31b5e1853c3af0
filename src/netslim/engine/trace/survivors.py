"""What outlives a forward pass: every tensor that somebody besides the recorder still holds when it is over.

A network hands its results over in any container, keeps some of them as attributes, in a closure, or in a hook's store;
no list of places to look at would be complete. So the question is put to Python: it counts who holds an object. Of a
tensor that the recorder alone holds it counts one holder; whatever else is counted will be read later, by somebody.
"""

from __future__ import annotations

import gc
import sys
from collections import deque
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


def outliving(groups: Collection[list[Tensor]], known: set[int], attributes: Iterable[Any]) -> list[Tensor]:
    """The tensors of which these lists are not the only holders, each in one list.

    known, attributes: as in ``unexpected``. What is held elsewhere may be held by objects in cycles that nobody reaches
    any more: these are collected before the final count.
    """
    held = held_elsewhere(groups)
    if unexpected(held, known, attributes):
        del held
        gc.collect()
        held = held_elsewhere(groups)
    return held


def unexpected(tensors: list[Tensor], known: set[int], attributes: Iterable[Any]) -> list[Tensor]:
    """Those that are not where tensors should be: neither known by their id nor among the attributes of modules."""
    left = [tensor for tensor in tensors if id(tensor) not in known]
    expected = {id(leaf) for leaf in tree_leaves(list(attributes)) if isinstance(leaf, Tensor)} if left else set()
    return [tensor for tensor in left if id(tensor) not in expected]


def withdraw(tensors: list[Tensor]) -> None:
    """Take recorded tensors out of lists, dicts, sets and caches of others: of a module, of a class, of a function.

    They are of no use there: a constant that was kept for the next time may have no values, or those of a copy.
    """
    wanted, layers = {id(tensor) for tensor in tensors}, [list[Any](tensors)]
    for _ in range(3):  # a tuple of tensors in a list goes as a whole
        layers.append([holder for holder in gc.get_referrers(*layers[-1]) if type(holder) is tuple])
        wanted.update(map(id, layers[-1]))
    ours = {id(tensors), id(layers), *map(id, layers)}
    for layer in layers:
        for holder in gc.get_referrers(*layer) if layer else ():
            if id(holder) not in ours:
                _take_out(holder, wanted)


def _take_out(holder: Any, wanted: set[int]) -> None:
    if isinstance(holder, (list, deque)):
        kept = [item for item in holder if id(item) not in wanted]
        holder.clear()
        holder.extend(kept)
    elif isinstance(holder, set):
        holder.difference_update([item for item in holder if id(item) in wanted])
    elif isinstance(holder, dict) and "__builtins__" not in holder:  # variables of a module are not taken away
        for key in [key for key, value in holder.items() if id(value) in wanted or id(key) in wanted]:
            del holder[key]
    elif hasattr(holder, "cache_clear"):
        holder.cache_clear()


def held_elsewhere(groups: Collection[list[Tensor]]) -> list[Tensor]:
    mine = [torch.empty(0)]  # held by such a group alone
    tensors, alone = _listed(groups), _holders(_listed([mine]))[0]
    return [t for t, holders in zip(tensors, _holders(tensors), strict=True) if holders > alone]


def _listed(groups: Collection[list[Tensor]]) -> list[Tensor]:
    """All in one list, which is one more holder of each."""
    return [t for group in groups for t in group]


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
