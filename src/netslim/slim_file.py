"""A slim network in one file: its plan beside its tensors; no pickled code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from netslim import files
from netslim.engine.cut import fits, plan, replaced
from netslim.engine.cut.signature import description, differences
from netslim.engine.trace.tape import SCATTER, SELECT
from netslim.modules import Network

Model = TypeVar("Model", bound=nn.Module)


def save(small: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write a slim network to one file: its plan and its tensors. The file appears whole or not at all.

    Layers of torch.nn that were put into it after slimming (a head for other classes, a convolution with its BN folded
    in) are saved with it.

    Raises:
        ValueError: the network does not come from ``slim``, or was changed since in a way that a file without code
            cannot hold.
    """
    if getattr(small, plan.ATTRIBUTE, None) is None:
        raise ValueError(f"{type(small).__name__} is not a result of netslim.slim, so there is no plan to save")
    text = plan.of_file(Network(small))
    files.write_tensors(Path(path), {"format": plan.FORMAT, "plan": text, "state": small.state_dict()})


@torch.inference_mode(False)  # parameters made in it could not be trained
def load(path: str | os.PathLike[str], dense_model: Model) -> Model:
    """The slim network from a file of ``save``, as a new module; `dense_model` is left alone.

    Args:
        path: the file; read with ``weights_only=True``, so it cannot run code.
        dense_model: a network of the dense architecture, with any weights. Layers that were replaced after slimming
            need not be in it as they were: neither the old head nor the new one.

    Raises:
        ValueError: the file is none of ``save``, or belongs to another architecture (the message names the first
            difference), or was edited.
    """
    content = files.read_tensors(Path(path))
    if content.get("format") != plan.FORMAT:
        raise ValueError(f"{path} was not written by netslim.save (format {plan.FORMAT!r})")
    found = plan.read(str(path), content.get("plan"))
    fits.check(str(path), found, Network(dense_model))
    small = plan.follow(dense_model, found)
    _put_in(str(path), small, found, content.get("state"))
    _fill(str(path), small, content.get("state"))
    _check_result(str(path), small, found)
    plan.carry(small, found)
    return small


def _put_in(path: str, small: nn.Module, found: plan.Plan, state: Any) -> None:
    """Make the layers that were replaced, of the dtype of their tensors, where the network's other parameters are."""
    device = next((p.device for p in small.parameters()), torch.device("cpu"))
    for name, layer in found.replaced.items():
        try:
            made = replaced.made_of(layer)
        except ValueError as error:
            raise ValueError(f"{path} cannot be read ({error}); save the network again") from None
        parent = Network(small).modules[name.rpartition(".")[0]]
        parent.add_module(name.rpartition(".")[2], made.train(parent.training))
        _check_tensors(path, {f"{name}.{key}": t for key, t in made.state_dict().items()}, state, dtypes=False)
        made.to_empty(device=device)
        for key, tensor in [*made.named_parameters(), *made.named_buffers()]:
            tensor.data = tensor.data.to(state[f"{name}.{key}"].dtype)


def _fill(path: str, small: nn.Module, state: Any) -> None:
    """The tensors of the file into the network, if they are those that it wants."""
    own = Network(small).state  # not what a hook or a module adds
    _check_tensors(path, {name: tensor for name, tensor in small.state_dict().items() if name in own}, state)
    for name, buffer in own.items():
        if name.rpartition(".")[2] in (SELECT, SCATTER) and not torch.equal(buffer.cpu(), state[name].cpu()):
            raise ValueError(f"{path} was edited: {name} is not what its plan says; save the network again")
    try:
        small.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} does not hold the tensors of its plan ({reason}); save the network again") from None


def _check_tensors(path: str, wanted: dict[str, Any], state: Any, dtypes: bool = True) -> None:
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds no tensors beside its plan; save the network again")
    for name, tensor in wanted.items():
        given = state.get(name)
        if not isinstance(given, Tensor) or given.shape != tensor.shape:
            got = f"{tuple(given.shape)}" if isinstance(given, Tensor) else "nothing"
            raise ValueError(f"{path} holds {got} for {name}, its plan wants {tuple(tensor.shape)}; save it again")
        if dtypes and given.dtype != tensor.dtype:
            raise ValueError(
                f"{path} is of another dtype: {name} is {given.dtype} in the file, {tensor.dtype} in dense_model; "
                "convert dense_model first"
            )


def _check_result(path: str, small: nn.Module, found: plan.Plan) -> None:
    """What came out is what was saved: an edited plan that fits could have made another network."""
    if found.slim is not None:
        now = description(Network(small), found.sizes)
        for name in differences(found.slim, now, found.apart):
            ours, theirs = found.slim.get(name, "missing"), now.get(name, "missing")
            raise ValueError(f"{path} was edited: {name} is {ours} in the saved network, {theirs} by its plan")
