"""Branches that the example input did not take: what they would read keeps its channels.

A branch on whether a tensor is true is run both ways (recorder.py). Of any other, nothing is on the tape, and only
parameters give it away that no operation has read although the code of the module around them names them, or the layer
that they belong to. This code would run the branch, so whatever its module passes around (what it is given, what its
children return, what it computes itself) is held.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import cache
from types import CodeType
from typing import Any

from torch import nn

from netslim.engine.trace.tape import Tape
from netslim.modules import Network


def untaken(
    tape: Tape, network: Network, ran: Collection[str | None], asked: Iterable[str]
) -> dict[str, tuple[str, set[int]]]:
    """Modules whose code may run what it did not run this time -> why, and the numbers of the tensors it passes around.

    ran: the modules that were run; asked: those that asked whether tensors are true, without an answer both ways.
    """
    branches: dict[str, list[str]] = {}
    for name in _unread(tape, network):
        around, branch = _around(name.rpartition(".")[0], ran)
        child = name.removeprefix(f"{around}.").split(".")[0]
        if child in named(network.modules[around]):
            branches.setdefault(around, []).append(branch or name)
    reasons = {name: f"not run: {', '.join(dict.fromkeys(parts))}" for name, parts in branches.items()}
    reasons |= {name: "a branch on values" for name in asked if name not in reasons}
    own = {name: why for name, why in reasons.items() if not is_torch(network.modules[name])}
    return {name: (why, passed_around(tape, name, ran)) for name, why in own.items()}


def is_torch(module: nn.Module) -> bool:
    """Is its code PyTorch's, which is known to run all that it has?"""
    return type(module).__module__.startswith("torch.")


def named(module: nn.Module) -> set[str]:
    """All names in the code of a module but its constructor's: of its class, and of functions that it keeps."""
    members: dict[str, Any] = {}
    for kind in type(module).__mro__:
        if not kind.__module__.startswith("torch."):
            members = {**vars(kind), **members}  # what is defined again hides what was
    members.pop("__init__", None)
    ahead: list[Any] = [getattr(member, "__code__", None) for member in [*members.values(), *vars(module).values()]]
    found = set[str]()
    while ahead:
        code = ahead.pop()
        if isinstance(code, CodeType):
            found.update(code.co_names, (c for c in code.co_consts if isinstance(c, str)))
            ahead += code.co_consts
    return found


def _unread(tape: Tape, network: Network) -> list[str]:
    """Parameters of modules of which no operation has read any."""
    read = {ref for node in tape.nodes for ref in node.reads}
    used = {name.rpartition(".")[0] for ref, name in tape.state.items() if ref in read} - {""}
    unread = (name for ref, name in tape.state.items() if ref not in read and name.rpartition(".")[0] not in used)
    return [name for name in unread if isinstance(network.state[name], nn.Parameter)]


def _around(owner: str, ran: Collection[str | None]) -> tuple[str, str]:
    """The innermost module around a parameter that was run, and the outermost one in it that was not ("": none)."""
    branch = ""
    while owner and owner not in ran:
        if not any(name and name.startswith(f"{owner}.") for name in ran):  # a list of layers, some of which were run
            branch = owner
        owner = owner.rpartition(".")[0]
    return owner, branch


def passed_around(tape: Tape, module: str, ran: Collection[str | None]) -> set[int]:
    """The tensors that the code of this module has in hand: those that go from one of its parts to another."""

    @cache
    def part(of: str | None) -> str | None:
        """The child that the module has called, "" for itself, None for what lies outside of it."""
        if of is None or of == module:
            return ""
        inner = of.removeprefix(f"{module}.") if module else of
        if inner == of and module:
            return None
        names = inner.split(".")
        calls = (".".join(names[: i + 1]) for i in range(len(names)))
        return next((call for call in calls if f"{module}.{call}".removeprefix(".") in ran), "")

    made = {ref: part(node.module) for node in tape.nodes for ref in node.outs}
    found = {ref for ref, place in made.items() if place == ""}
    read = set[int]()
    for node in tape.nodes:
        place = part(node.module)
        read.update(node.reads)
        found.update(ref for ref in node.reads if place == "" or made.get(ref) != place)
    ends = {ref for ref, place in made.items() if place is not None and (ref not in read or ref in tape.outputs)}
    inside = {ref for node in tape.nodes if part(node.module) is not None for ref in [*node.reads, *node.outs]}
    return (found | ends) & inside & made.keys()
