"""``debug=true``: two batches per epoch, everything else as it is, in a folder of its own."""

from __future__ import annotations

import copy

from omegaconf import DictConfig, flag_override

LIMITS = {"limit_train_batches": 2, "limit_val_batches": 2, "limit_test_batches": 2}


def debugged(cfg: DictConfig) -> DictConfig:
    """The configuration of a trial: with other settings, so that its stages are others too; else as it is."""
    if not cfg.debug:
        return cfg
    cfg = copy.deepcopy(cfg)
    with flag_override(cfg, ["struct", "readonly"], [False, False]):
        cfg.trainer.update(LIMITS)
    return cfg


def suffix(debug: object) -> str:
    """What makes the folder of a trial another one than that of the results.

    >>> suffix(True), suffix(False)
    ('_debug', '')
    """
    return "_debug" if debug is True else ""
