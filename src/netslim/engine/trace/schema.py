"""What the schema of an ATen operation says of it: its name, and the arguments that it overwrites."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from netslim.engine.trace.tape import OUT, leaves

Arguments = list[tuple[int, str]]  # position and name of each; the last of them are keywords


@cache
def signature(func: Any) -> tuple[str, Arguments, bool]:
    """An operation's name in its functional form, the arguments it overwrites, does it draw?

    With out= it has a name of its own: no rule tells of what it writes into.
    """
    name = func._schema.name.removeprefix("aten::")
    name = name[:-1] if name.endswith("_") and not name.startswith("__") else name
    arguments = func._schema.arguments
    written = [(i, argument.name) for i, argument in enumerate(arguments) if argument.is_write]
    out = OUT if any(arguments[i].kwarg_only for i, _ in written) else ""
    return name + out, written, torch.Tag.nondeterministic_seeded in func.tags


def overwritten_tensors(overwritten: Arguments, args: Any, kwargs: Any) -> list[Tensor]:
    """The tensors among the arguments that are overwritten."""
    given = [args[i] if i < len(args) else kwargs.get(name) for i, name in overwritten]
    return [tensor for tensor in leaves(given) if isinstance(tensor, Tensor)]
