"""Networks of torchvision and timm by name, and where their published weights lie on this machine."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn


def timm_network(name: str, num_classes: int, in_chans: int = 3) -> nn.Module:
    """A network of timm with new weights, by timm's name for it.

    Raises:
        ValueError: timm has no such network.
    """
    import timm  # here: it is optional, and costs seconds

    if not timm.is_model(name):
        raise ValueError(f"{name} is no network of timm")
    network: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes, in_chans=in_chans)
    return network


def published_weights(library: str, name: str) -> Path:
    """The file of the published weights of a network, where an earlier download has left it.

    Args:
        library: "torchvision" or "timm".

    Raises:
        ValueError: there are none, or no such file; the message says where from and where to.
    """
    return _torchvisions(name) if library == "torchvision" else _timms(name)


def _torchvisions(name: str) -> Path:
    from torchvision import models

    return _downloaded(models.get_model_weights(name).DEFAULT.url, name)


def _timms(name: str) -> Path:
    import timm
    from huggingface_hub import try_to_load_from_cache

    known = timm.get_pretrained_cfg(name)
    if known is None or not known.has_weights:
        raise ValueError(f"net.pretrained=true: timm has no weights of {name}")
    if not known.hf_hub_id:
        return _downloaded(str(known.url), name)
    for file in ("model.safetensors", "pytorch_model.bin"):
        if isinstance(path := try_to_load_from_cache(known.hf_hub_id, file), str):
            return Path(path)
    raise ValueError(
        f"net.pretrained=true: the weights of {name} are not in the hub's cache; download them, "
        f"timm.create_model({name!r}, pretrained=True), or give a file with weights=FILE"
    )


def _downloaded(url: str, name: str) -> Path:
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.is_file():
        raise ValueError(
            f"net.pretrained=true: the weights of {name} are not in {path.parent}; download {url} there, or give a "
            "file with weights=FILE"
        )
    return path
