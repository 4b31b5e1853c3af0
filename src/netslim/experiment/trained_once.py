"""Controls that start from the same network and train alike are trained once, whatever chose their widths.

Several methods often keep as many channels of each layer: their ``scratch`` is one network. Which widths a method
leaves is known only when its stages are done, so such controls are stages with names of their own; the second takes
over what the first left.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import nn

from netslim.experiment import paths, records
from netslim.experiment.records import ControlRecord
from netslim.experiment.stage import determining
from netslim.files import write_bytes

# Settings that say where the widths come from; the network itself stands for them.
OF_THE_WIDTHS = {"widths", "macs", "slim", "slimming", "cost_of", "ratio", *records.TARGETS}


def identity(network: nn.Module, settings: Mapping[str, Any]) -> str:
    """A digest of a training: the modules and every number of the network that it starts from, and the recipe.

    Args:
        network: as the training finds it.
        settings: all that determines the training; those that chose the widths do not count.
    """
    start = hashlib.sha256(repr(network).encode())
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        start.update(name.encode())
        start.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    recipe = {key: value for key, value in settings.items() if key not in OF_THE_WIDTHS}
    return f"{start.hexdigest()[:16]}-{paths.digest(determining(recipe))}"


def take_over(folder: Path, training: str) -> ControlRecord | None:
    """What another control of this kind left whose training this is: its files, copied into ``folder``, and its record.

    Args:
        folder: of the control that asks; those of others are beside it.
        training: the ``identity`` of its training.

    Raises:
        ValueError: the record of a control is damaged.
    """
    for path in sorted(folder.parent.glob(f"{folder.name.partition('_')[0]}_*/record.json")):
        record = records.read(path, ControlRecord)
        weights = [file for name in ("slim.pt", "weights.pt") if (file := path.parent / name).exists()]
        if record.training == training and weights:
            for file in weights:
                write_bytes(folder / file.name, file.read_bytes())
            return msgspec.structs.replace(record, same_as=record.same_as or record.name)
    return None
