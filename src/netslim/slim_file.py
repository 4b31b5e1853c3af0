"""A slim network in one file: its plan beside its tensors; no pickled code."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from netslim import files
from netslim.engine.cut.plan import ATTRIBUTE, FORMAT, Plan, check_architecture, follow, signature
from netslim.modules import Network

Model = TypeVar("Model", bound=nn.Module)


def save(small: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write a slim network to one file: its plan and its tensors. The file appears whole or not at all.

    Raises:
        ValueError: the network does not come from ``slim``.
    """
    plan = getattr(small, ATTRIBUTE, None)
    if plan is None:
        raise ValueError(f"{type(small).__name__} is not a result of netslim.slim, so there is no plan to save")
    files.write_tensors(Path(path), {"format": FORMAT, "plan": json.dumps(plan), "state": small.state_dict()})


@torch.inference_mode(False)  # parameters made in it could not be trained
def load(path: str | os.PathLike[str], dense_model: Model) -> Model:
    """The slim network from a file of ``save``, as a new module; `dense_model` is left alone.

    Args:
        path: the file; read with ``weights_only=True``, so it cannot run code.
        dense_model: a network of the dense architecture, with any weights.

    Raises:
        ValueError: the file is none of ``save``, or belongs to another architecture (the message names the first
            difference).
    """
    content = files.read_tensors(Path(path))
    if content.get("format") != FORMAT:
        raise ValueError(f"{path} was not written by netslim.save (format {FORMAT!r})")
    plan: Plan = json.loads(content["plan"])
    check_architecture(str(path), plan["dense"], signature(Network(dense_model)))
    small = follow(dense_model, plan)
    small.load_state_dict(content["state"])
    return small
