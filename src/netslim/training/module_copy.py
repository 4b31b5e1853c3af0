"""Copies of a LightningModule: to measure with, and with the slim network where the dense one was.

``copy.deepcopy`` of a whole module fails for a lock, an open file or a connection in it, and would copy data sets. Here
the network and all numbers are copied, what a copy cannot be made of is shared.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, Dataset

from netslim.modules import modules_by_name, state

SHARED = (Trainer, LightningDataModule, DataLoader, Dataset, Logger)
TENSORS = ("_parameters", "_buffers", "_modules")
Memo = dict[int, Any]  # id of an original -> its copy, as in copy.deepcopy


def copied(module: LightningModule, memo: Memo | None = None) -> LightningModule:
    """A copy without a trainer. ``memo`` says what stands for what, by identity, wherever the module refers to it."""
    memo = {} if memo is None else memo
    parts = [part for part in module.modules() if id(part) not in memo]
    plain = [part for part in parts if not _copies_itself(type(part))]
    for part in plain:
        memo[id(part)] = object.__new__(type(part))
    for part in parts:
        if id(part) not in memo:
            memo[id(part)] = _value(part, memo)
    for part in plain:
        memo[id(part)].__dict__.update({key: _value(value, memo) for key, value in _attributes(part).items()})
    copy_of_it: LightningModule = memo[id(module)]
    return copy_of_it


def with_network(module: LightningModule, path: str, small: nn.Module) -> LightningModule:
    """A copy of the module with ``small`` in place of its network at ``path``, by all its names.

    What else refers to a layer or a tensor of the network (tied weights) refers to that of the slim one.
    """
    return copied(module, _counterparts(module.get_submodule(path), small))


def without_what_cannot_be_copied(module: LightningModule) -> tuple[LightningModule, dict[str, Any]]:
    """The module in another object, of the same layers and tensors, for ``slim``.

    Returns:
        the object, and the attributes that it is without: those of which no copy can be made, and those that refer to
        the module itself, such as its methods. ``given_back`` gives them to the slim module.
    """
    parts = {id(part): part for part in [*module.modules(), *state(module).values()] if part is not module}
    attributes, without = {**_attributes(module), "_trainer": module._trainer}, {}
    for key in attributes.keys() - {*TENSORS, "_trainer"}:
        value, memo = attributes[key], dict(parts)
        same = _value(value, memo) is value
        if id(module) in memo or (same and not _is_atom(value)):
            without[key] = attributes.pop(key)
    view = object.__new__(type(module))
    vars(view).update(attributes, **UNLOGGED)
    return view, without


def given_back(module: LightningModule, small: LightningModule, attributes: dict[str, Any]) -> None:
    """Give the slim module the attributes that ``without_what_cannot_be_copied`` took off."""
    memo = {id(module): small, **_counterparts(module, small)}
    for name in UNLOGGED:
        vars(small).pop(name, None)
    vars(small).update({key: _value(value, memo) for key, value in attributes.items()})


def keep_network_in_setup(module: LightningModule) -> None:
    """Let ``setup`` and ``configure_model`` of this one object run without replacing the layers that it has.

    For classes that build their network there, anew with every fit.
    """
    for hook in ("setup", "configure_model"):
        if getattr(type(module), hook) is not getattr(LightningModule, hook):
            setattr(module, hook, partial(_run_and_keep, module, hook))


def _run_and_keep(module: LightningModule, hook: str, *args: Any, **kwargs: Any) -> None:
    kept = {kind: dict(getattr(module, kind)) for kind in TENSORS}
    getattr(type(module), hook)(module, *args, **kwargs)
    for kind, members in kept.items():
        getattr(module, kind).update(members)


@contextmanager
def unlogged(module: LightningModule) -> Iterator[None]:
    """Inside, what the module logs goes nowhere: it runs outside of Lightning's loops, which would not take it."""
    vars(module).update(UNLOGGED)
    try:
        yield
    finally:
        for name in UNLOGGED:
            vars(module).pop(name, None)


def _nothing(*args: Any, **settings: Any) -> None:
    pass


UNLOGGED = {"log": _nothing, "log_dict": _nothing}


def _counterparts(network: nn.Module, small: nn.Module) -> Memo:
    """For each layer and tensor of the network that of the same name in the slim one."""
    old = {**modules_by_name(network), **state(network)}
    new = {**modules_by_name(small), **state(small)}
    return {id(part): new.get(f"{name}.", new[name]) for name, part in old.items() if name in new}


def _attributes(module: nn.Module) -> dict[str, Any]:
    """What a copy is made of: no trainer, and nothing that torch.compile made of the module's own methods."""
    attributes = dict(module.__getstate__())
    attributes.pop("_compiled_call_impl", None)
    if isinstance(module, LightningModule):
        attributes["_metric_attributes"] = None  # Lightning's cache of the names of metrics, by identity
        if attributes.get("_compiler_ctx") is not None:
            attributes["_compiler_ctx"] = None
            for method in ("forward", *(f"{kind}_step" for kind in ("training", "validation", "test", "predict"))):
                attributes.pop(method, None)
    return attributes


def _copies_itself(kind: type[nn.Module]) -> bool:
    """Does the class define how its objects are copied (as metrics do), or keep more than their attributes?"""
    base = LightningModule if issubclass(kind, LightningModule) else nn.Module
    methods = ("__reduce__", "__reduce_ex__", "__getstate__", "__setstate__")
    defines = any(getattr(kind, method, None) != getattr(base, method, None) for method in methods)
    return defines or hasattr(kind, "__deepcopy__") or any("__slots__" in vars(part) for part in kind.__mro__)


def _value(value: Any, memo: Memo) -> Any:
    """A copy; the value itself where none can be made. Tensors with a history become leaves."""
    if isinstance(value, SHARED):
        return value
    for leaf in tree_leaves(value):
        if isinstance(leaf, Tensor) and not leaf.is_leaf:
            memo.setdefault(id(leaf), leaf.detach().clone())
    try:
        return copy.deepcopy(value, memo)
    except Exception:  # whatever it says: it cannot be copied
        return value


def _is_atom(value: Any) -> bool:
    """Is the value its own copy, as numbers, strings, functions and empty tuples are?"""
    try:
        return copy.deepcopy(value) is value
    except Exception:
        return False
