"""The checkpoint of the last whole epoch: written so that a crash cannot damage it, checked before it is used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.fabric.plugins import TorchCheckpointIO
from torch import nn

from netslim import files


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's own moves a finished file from the system's temporary folder: across file systems that is a copy,
    which a crash cuts off. This one writes beside the target, forces it to disk and renames.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        files.write_tensors(Path(path), checkpoint)


def epochs_done(path: Path, module: nn.Module, shrinks: bool = False) -> int:
    """How many epochs a checkpoint for ``module`` has behind it.

    Args:
        shrinks: whether tensors may be smaller than those of ``module``: it got smaller inside the training.

    Raises:
        ValueError: the file is cut off, no checkpoint, or one of another network; the message names what differs.
    """
    content = files.read_tensors(path)
    if not {"epoch", "state_dict", "callbacks", "optimizer_states"} <= set(content):
        raise ValueError(f"{path} is no checkpoint of a training; remove it and run the command again")
    saved = {name: tuple(tensor.shape) for name, tensor in content["state_dict"].items()}
    given = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    for name in [*saved, *given]:
        if saved.get(name) != given.get(name) and not (shrinks and _smaller(saved.get(name), given.get(name))):
            raise ValueError(
                f"{path} is of another network: {name} is {saved.get(name, 'missing')} there, "
                f"{given.get(name, 'missing')} here; remove it and run the command again"
            )
    return int(content["epoch"]) + 1


def _smaller(saved: tuple[int, ...] | None, given: tuple[int, ...] | None) -> bool:
    known = saved is not None and given is not None and len(saved) == len(given)
    return known and all(a <= b for a, b in zip(saved or (), given or (), strict=True))
