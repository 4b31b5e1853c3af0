"""``weights=FILE`` and ``net.pretrained=true``: where a job's weights come from."""

from __future__ import annotations

import copy
from pathlib import Path

from omegaconf import DictConfig, flag_override

from netslim.nets.library import published_weights

LIBRARIES = {"torchvision.models.get_model": "torchvision", "netslim.nets.timm_network": "timm"}


def resolved(cfg: DictConfig) -> DictConfig:
    """The configuration with a file's name under ``weights`` in place of ``net.pretrained``.

    Raises:
        ValueError: there is no such file, or both are given.
    """
    if "pretrained" in cfg.net and cfg.net._target_.startswith("netslim.nets.") and cfg.net._target_ not in LIBRARIES:
        raise ValueError("net.pretrained is for net=torchvision and net=timm; give a file, weights=FILE")
    if "pretrained" in cfg.net and cfg.net._target_ in LIBRARIES:
        cfg = copy.deepcopy(cfg)
        with flag_override(cfg, ["struct", "readonly"], [False, False]):
            asked = cfg.net.pop("pretrained")
            if asked not in (True, False):
                raise ValueError(f"net.pretrained={asked} is neither true nor false")
            if asked and cfg.weights is not None:
                raise ValueError(f"net.pretrained=true and weights={cfg.weights} are two answers; give one of them")
            if asked:
                cfg.weights = str(published_weights(LIBRARIES[cfg.net._target_], cfg.net.name))
    if cfg.weights is not None and not Path(str(cfg.weights)).is_file():
        raise ValueError(f"weights={cfg.weights}: there is no such file")
    return cfg
