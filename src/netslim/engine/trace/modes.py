"""How the network is run while it is recorded: which module is at work, in which mode, and whether it asks for that.

A recording belongs to its thread. Nothing that other threads run meanwhile is changed or noted: hooks are put on the
recorded copy alone, and the two questions that are overheard are answered to everybody as ever.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from netslim.engine.trace.branches import is_torch

ONE_AT_A_TIME = threading.RLock()  # recordings: what is overheard is the whole process's


@contextmanager
def note_running(modules: Mapping[str, nn.Module], running: list[str | None], ran: set[str | None]) -> Iterator[None]:
    """Keep the names of the modules that are running in a list, innermost last; and of all that have run."""
    names = {module: name for name, module in modules.items()}
    key: Any = object()

    def enter(module: nn.Module, _: Any) -> None:
        running.append(names[module])
        ran.add(names[module])

    def leave(_: nn.Module, __: Any, ___: Any) -> None:
        running.pop()

    hooks: Any
    for module in names:  # what register_forward_pre_hook(prepend=True) and its sister do, in a tenth of the time
        for hooks, hook in ((module._forward_pre_hooks, enter), (module._forward_hooks, leave)):
            hooks[key] = hook
            hooks.move_to_end(key, last=False)
        module._forward_hooks_always_called[key] = True
    try:
        yield
    finally:
        for module in names:
            for hooks in (module._forward_pre_hooks, module._forward_hooks, module._forward_hooks_always_called):
                del hooks[key]


@contextmanager
def tracing_modes(modules: Mapping[str, nn.Module], training: bool) -> Iterator[None]:
    """PyTorch's own layers in eval mode, so that nothing is random and no statistics move; all others as asked.

    Auxiliary heads (GoogLeNet) only run where the containers train.
    """
    before = {m: m.training for m in modules.values()}
    for module in before:
        vars(module)["training"] = training and _may_differ(module)
    try:
        yield
    finally:
        for module, mode in before.items():
            vars(module)["training"] = mode


def _may_differ(module: nn.Module) -> bool:
    """Can what it computes depend on its mode by more than chance and statistics? Not that of a BN layer, even with an
    activation as its child (timm): training, it would refuse a single pixel."""
    contains = any(child is not None for child in module._modules.values())
    return (contains or not is_torch(module)) and not isinstance(module, _BatchNorm)


@dataclass
class Asked:
    """What the network has asked for: its mode, whether gradients are recorded."""

    mode: bool = False
    gradients: bool = False


@contextmanager
def note_questions(modules: Mapping[str, nn.Module]) -> Iterator[Asked]:
    """Overhear what the network asks for: only if it asks can it do something else in another mode."""
    may_differ = {module for module in modules.values() if _may_differ(module)}
    asked, me = Asked(), threading.get_ident()

    def read(module: nn.Module) -> bool:
        if threading.get_ident() == me and module in may_differ:
            asked.mode = True
        try:
            return bool(vars(module)["training"])
        except KeyError:  # TorchScript: the module itself knows
            raise AttributeError("training") from None

    def enabled() -> bool:
        if threading.get_ident() == me and not _is_torch(sys._getframe(1).f_globals):
            asked.gradients = True
        return is_grad_enabled()

    is_grad_enabled = torch.is_grad_enabled
    nn.Module.training = property(read, lambda module, mode: vars(module).update(training=mode))  # type: ignore[assignment]
    torch.is_grad_enabled = enabled
    try:
        yield asked
    finally:
        del nn.Module.training
        torch.is_grad_enabled = is_grad_enabled


@contextmanager
def no_numbers() -> Iterator[None]:
    """Where tensors hold nothing, to ask for their memory or for a pickle is an error, as it is to ask for an array."""
    me, own = threading.get_ident(), {name: getattr(Tensor, name) for name in ("data_ptr", "__reduce_ex__")}

    def refusing(method: Callable[..., Any]) -> Callable[..., Any]:
        def refuse(tensor: Tensor, *args: Any) -> Any:
            if threading.get_ident() == me and tensor.is_meta:
                raise TypeError("the values of a tensor are read outside torch")
            return method(tensor, *args)

        return refuse

    inherited = own.keys() - vars(Tensor).keys()
    for name, method in own.items():
        setattr(Tensor, name, refusing(method))
    try:
        yield
    finally:
        for name, method in own.items():
            if name in inherited:
                delattr(Tensor, name)
            else:
                setattr(Tensor, name, method)


def _is_torch(names: dict[str, Any]) -> bool:
    return str(names.get("__name__")).startswith("torch.")
