"""The weights of a network that was trained elsewhere, from a file: a state_dict, a checkpoint around one, safetensors.

Only tensors are read, never code, and what does not fit is found before the network is touched.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

WRAPPERS = ("state_dict", "model_state_dict", "model", "network", "net")  # where checkpoints keep a state_dict
REMEDY = "save its weights alone, torch.save(model.state_dict(), FILE), where you trust it"
SHOWN = 3  # differences that are named


def load_weights(network: nn.Module, path: Path, num_classes: int) -> list[str]:
    """Fill a network with the weights of a file.

    The names in the file may have one prefix ("model.", "network.", "module."), as in a Lightning checkpoint; whatever
    is outside of it is left alone. A head for another number of classes stays as it is in the network.

    Args:
        network: is changed in place, if all fits.
        path: a state_dict, a checkpoint with one in it, or ``.safetensors``.
        num_classes: of the network.

    Returns:
        The names of the tensors of the head that were not loaded; none where the number of classes is the same.

    Raises:
        ValueError: the file is missing, holds more than tensors, or is of another network: the message names the first
            three differences. The network is as it was then.
    """
    own, given = network.state_dict(), read_weights(path)
    prefix = _prefix(own, given)
    given = {name.removeprefix(prefix): tensor for name, tensor in given.items() if name.startswith(prefix)}
    head = _head(own, given, num_classes)
    different = _differences(own, {name: tensor for name, tensor in given.items() if name not in head}, head)
    if different:
        more = f"; and {len(different) - SHOWN} more" if len(different) > SHOWN else ""
        kind = type(network).__name__
        raise ValueError(f"weights={path} does not fit {kind}: {'; '.join(different[:SHOWN])}{more}")
    network.load_state_dict({name: given[name] for name in own if name in given and name not in head}, strict=False)
    return head


def read_weights(path: Path) -> dict[str, Tensor]:
    """All tensors of the state_dict that a file holds or is, by name, on the CPU.

    Raises:
        ValueError: there is none, or reading it could run code.
    """
    if not path.is_file():
        raise ValueError(f"weights={path}: there is no such file")
    content = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    if isinstance(content, Mapping) and "plan" in content:
        raise ValueError(f"weights={path} is a slim network; give the weights of the dense one")
    inner = [content, *(content[key] for key in WRAPPERS if isinstance(content, Mapping) and key in content)]
    for found in inner:
        tensors = {str(k): v for k, v in found.items() if isinstance(v, Tensor)} if isinstance(found, Mapping) else {}
        if tensors:
            return tensors
    raise ValueError(f"weights={path} holds no tensors by name; {REMEDY}")


def _safetensors(path: Path) -> Any:
    try:
        from safetensors.torch import load_file
    except ModuleNotFoundError:
        raise ValueError(f"weights={path} needs safetensors: pip install 'netslim[safetensors]'") from None
    try:
        return load_file(path)
    except Exception as error:  # a type of its own for a damaged file
        raise ValueError(f"weights={path} cannot be read ({error})") from None


def _pickled(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # half a dozen types, for a damaged file, code, TorchScript
        if isinstance(error, OSError) and error.filename:
            raise  # it may not be opened, and says so
        raise ValueError(_why_not(path, str(error))) from None


def _why_not(path: Path, error: str) -> str:
    if found := re.search(r"GLOBAL (\S+)", error):
        return f"weights={path} holds objects of {found[1]}, which would run code; {REMEDY}"
    if "TorchScript" in error:
        return f"weights={path} is a TorchScript archive; {REMEDY}"
    if error.startswith("Weights only load failed"):
        return f"weights={path} cannot be read: it is no file of tensors as torch.save or safetensors write it"
    return f"weights={path} cannot be read as tensors ({error.partition(chr(10))[0]})"


def _prefix(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """What stands before the network's names in the file: what most of them have in common."""
    starts = Counter[str]()
    for name in given:
        places = [0, *(place + 1 for place, letter in enumerate(name) if letter == ".")]
        starts.update(name[:place] for place in places if name[place:] in own)
    return max(starts, key=lambda start: (starts[start], -len(start)), default="")


def _head(own: Mapping[str, Tensor], given: Mapping[str, Tensor], num_classes: int) -> list[str]:
    """Tensors that differ in having a row for each of another number of classes."""
    differ = [name for name in own if name in given and own[name].shape != given[name].shape]
    rows = {tuple(given[name].shape[:1]) for name in differ}
    per_class = all(own[name].shape[:1] == (num_classes,) and own[name].shape[1:] == given[name].shape[1:]
                    for name in differ)  # fmt: skip
    return differ if per_class and len(rows) == 1 else []


def _differences(own: Mapping[str, Tensor], given: Mapping[str, Tensor], head: list[str]) -> list[str]:
    """In words, in the network's order; counters of BatchNorm, which old files do not have, are none."""
    found = []
    for name, tensor in own.items():
        if name in head or (name not in given and name.endswith("num_batches_tracked")):
            continue
        if name not in given:
            found.append(f"{name} is missing in the file")
        elif given[name].shape != tensor.shape:
            shape, needed = tuple(given[name].shape), tuple(tensor.shape)
            found.append(f"{name} is {shape} in the file, {needed} in the network")
    return [*found, *(f"{name} is in the file alone" for name in given if name not in own)]
